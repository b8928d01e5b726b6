from __future__ import annotations

import pickle
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import cloudpickle
import pytest

import adjoin
from adjoin import Settings
from adjoin.errors import Conflict, DefinitionError, NotFound, YamlError
from adjoin.loading import load_graph

FUNCTION = (
    "import adjoin\n\n@adjoin.function\ndef shout(text: str) -> str:\n    return text.upper()\n"
)
WORKFLOW = FUNCTION + textwrap.dedent(
    """
        @adjoin.workflow
        def loud(text: str):
            return shout(text)
        """
)


def yaml_using(uses: str) -> str:
    return textwrap.dedent(
        f"""\
        apiVersion: adjoin/v1
        kind: Workflow
        metadata: {{name: loud}}
        spec:
          inputs: {{text: {{type: string}}}}
          stages:
            shout: {{uses: "{uses}", with: {{text: "${{inputs.text}}"}}}}
          outputs: "${{shout}}"
        """
    )


@pytest.fixture(autouse=True)
def _modules() -> Iterator[None]:
    modules, path = dict(sys.modules), list(sys.path)
    yield
    for name in set(sys.modules) - set(modules):
        del sys.modules[name]
    sys.modules.update(modules)
    sys.path[:] = path


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "project"
    path.mkdir()
    return path


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_yaml_and_python_name_the_same_function(folder: Path, settings: Settings) -> None:
    app = write(folder / "loud_app.py", WORKFLOW)
    flow = write(folder / "flow.yaml", yaml_using("py:loud_app:shout"))
    assert load_graph(flow, settings).version == load_graph(app, settings).version


def test_a_python_file_and_a_name_in_it(folder: Path, settings: Settings) -> None:
    two = WORKFLOW + "\n@adjoin.workflow\ndef twice(text: str):\n    return shout(shout(text))\n"
    app = write(folder / "two_app.py", two)
    assert load_graph(f"{app}:twice", settings).name == "twice"
    with pytest.raises(NotFound, match="several workflows; name one: loud, twice"):
        load_graph(app, settings)
    with pytest.raises(NotFound, match="no workflow 'twise'; did you mean 'twice'"):
        load_graph(f"{app}:twise", settings)


def test_a_module_in_the_working_directory(
    folder: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder / "loud_here.py", WORKFLOW)
    monkeypatch.chdir(folder)
    assert load_graph("loud_here:loud", settings).name == "loud"


def test_neighbours_are_found_and_travel_by_value(folder: Path, settings: Settings) -> None:
    write(folder / "loud_words.py", "def up(text):\n    return text.upper()\n")
    source = FUNCTION.replace("import adjoin\n", "import adjoin\nfrom loud_words import up\n")
    write(folder / "loud_main.py", source.replace("text.upper()", "up(text)"))
    flow = write(folder / "flow.yaml", yaml_using("py:loud_main:shout"))
    function = load_graph(flow, settings).stages[0].function
    # another process, which cannot import either module
    code = "import pickle, sys; print(pickle.load(sys.stdin.buffer)('hi'))"
    done = subprocess.run(
        [sys.executable, "-c", code], input=cloudpickle.dumps(function), capture_output=True
    )
    assert done.stdout.decode().strip() == "HI", done.stderr.decode()


def test_an_installed_module_of_the_same_name_does_not_run(
    folder: Path, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "elsewhere"
    other.mkdir()
    write(other / "loud_twin.py", f"open({str(tmp_path / 'ran')!r}, 'w')\n" + WORKFLOW)
    monkeypatch.syspath_prepend(str(other))
    write(folder / "loud_twin.py", WORKFLOW)
    flow = write(folder / "flow.yaml", yaml_using("py:loud_twin:shout"))
    load_graph(flow, settings)
    assert not (tmp_path / "ran").exists()
    assert Path(str(sys.modules["loud_twin"].__file__)).parent == folder


def test_a_name_that_is_taken_is_a_conflict(folder: Path, settings: Settings) -> None:
    write(folder / "json.py", WORKFLOW)
    with pytest.raises(Conflict, match=r"'json' is taken by .*; rename the file"):
        load_graph(str(folder / "json.py"), settings)
    assert hasattr(sys.modules["json"], "loads")


def test_a_file_is_imported_once(folder: Path, settings: Settings) -> None:
    app = write(folder / "loud_once.py", WORKFLOW)
    load_graph(app, settings)
    before = sys.modules["loud_once"]
    load_graph(app, settings)
    assert sys.modules["loud_once"] is before


def test_other_modules_need_to_be_allowed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "library"
    other.mkdir()
    write(other / "loud_library.py", FUNCTION)
    monkeypatch.syspath_prepend(str(other))
    flow = write(folder / "flow.yaml", yaml_using("py:loud_library:shout"))
    with pytest.raises(YamlError, match=r"flow.yaml:7:.*not allowed"):
        load_graph(flow, Settings(home=tmp_path))
    assert "loud_library" not in sys.modules
    allowing = Settings(home=tmp_path, allowed_modules=("loud_library",))
    assert load_graph(flow, allowing).name == "loud"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("1 / 0\n", r"ZeroDivisionError.*"),
        ("def broken(:\n", r"SyntaxError.*"),
        ("import no_such_module_at_all\n", r"ModuleNotFoundError.*no_such_module_at_all"),
    ],
)
def test_a_module_that_raises(folder: Path, settings: Settings, source: str, message: str) -> None:
    app = write(folder / "loud_broken.py", source)
    with pytest.raises(DefinitionError, match=rf"loud_broken.py:1: .*{message}"):
        load_graph(app, settings)
    assert "loud_broken" not in sys.modules


@pytest.mark.parametrize(
    "target", ["nowhere.yaml", "nowhere.py", "nowhere", "no_such_module:flow", "no.such:flow"]
)
def test_what_is_not_there(target: str, settings: Settings) -> None:
    with pytest.raises(NotFound):
        load_graph(target, settings)


def test_a_file_that_is_no_workflow(folder: Path, settings: Settings) -> None:
    text = write(folder / "notes.txt", "notes")
    with pytest.raises(NotFound, match=r"not a workflow; name a \.yaml file"):
        load_graph(text, settings)
    with pytest.raises(NotFound, match=r"has no workflow; decorate"):
        load_graph(write(folder / "loud_empty.py", FUNCTION), settings)


def test_the_public_load(folder: Path, settings: Settings) -> None:
    app = write(folder / "loud_public.py", WORKFLOW)
    graph = adjoin.load(Path(app), settings)
    assert graph.name == "loud"
    assert pickle.loads(cloudpickle.dumps(graph.stages[0].function))("hi") == "HI"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("Say {{ txt }}", r"stage 'say', .*'txt' is not given; did you mean 'text'\?"),
        ("Say {{ text", r"stage 'say', .*line 1"),
        ("{% include 'x' %}", r"stage 'say', .*include is not available"),
    ],
)
def test_a_wrong_template_is_found_when_the_workflow_is_loaded(
    folder: Path, settings: Settings, template: str, message: str
) -> None:
    text = yaml_using("prompt").replace(
        'with: {text: "${inputs.text}"}', f"with: {{template: {template!r}, text: hello}}"
    )
    flow = write(folder / "flow.yaml", text.replace("shout", "say"))
    with pytest.raises(DefinitionError, match=message) as caught:
        load_graph(flow, settings)
    assert caught.value.where == flow


def test_a_wrong_template_is_found_in_a_workflow_within(folder: Path, settings: Settings) -> None:
    text = """\
    import adjoin
    from adjoin import functions as fn

    @adjoin.workflow
    def inner(text: str):
        return fn.prompt("{{ txt }}", text=text)

    @adjoin.workflow
    def outer(text: str):
        return inner(text)
    """
    app = write(folder / "loud_nested.py", textwrap.dedent(text))
    with pytest.raises(DefinitionError, match="'txt' is not given"):
        load_graph(f"{app}:outer", settings)
