"""What the documentation shows is true: its code loads, its tables are complete."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import adjoin
from adjoin.dag.parameter import Parameter
from adjoin.functions import BUILTINS
from adjoin.settings import Settings

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = sorted(
    page
    for pattern in ("*.md", "docs/**/*.md", "examples/**/*.md")
    for page in ROOT.glob(pattern)
    if page.name != "answer.md"  # a prompt
)
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)")
_CODE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def blocks(page: Path, language: str) -> list[str]:
    text = page.read_text(encoding="utf-8")
    return [body for found, body in _BLOCK.findall(text) if found == language]


@pytest.fixture(autouse=True)
def _modules() -> Iterator[None]:
    modules, path = dict(sys.modules), list(sys.path)
    yield
    for name in set(sys.modules) - set(modules):
        del sys.modules[name]
    sys.path[:] = path


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delitem(sys.modules, "app", raising=False)  # that of an example, from another test
    (python,) = blocks(README, "python")
    (yaml,) = blocks(README, "yaml")
    (tmp_path / "app.py").write_text(python, encoding="utf-8")
    (tmp_path / "workflow.yaml").write_text(yaml, encoding="utf-8")
    return tmp_path


def test_the_readmes_python_and_yaml_are_one_graph(project: Path) -> None:
    python, yaml = adjoin.load(project / "app.py"), adjoin.load(project / "workflow.yaml")
    assert python.version == yaml.version
    assert python == yaml


def test_the_readmes_error_is_the_real_one(tmp_path: Path) -> None:
    example = ROOT / "examples" / "rag"
    text = (example / "workflow.yaml").read_text(encoding="utf-8")
    (tmp_path / "workflow.yaml").write_text(
        text.replace("uses: retrieve", "usess: retrieve"), encoding="utf-8"
    )
    with pytest.raises(adjoin.YamlError) as caught:
        adjoin.load(tmp_path / "workflow.yaml")
    shown = f"error: {caught.value}".replace(f"{tmp_path}/", "")
    assert shown in README.read_text(encoding="utf-8")


@pytest.mark.models
@pytest.mark.usefixtures("fresh_home")
def test_the_readmes_program_runs(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = project / "notes"
    folder.mkdir()
    (folder / "cat.md").write_text("# Cats\n\nThe cat of the house is called Minka.\n")
    adjoin.load(project / "app.py")
    sys.modules["app"].main(folder, "What is the name of the cat?")
    assert "Minka" in capsys.readouterr().out


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_in_the_documentation_compiles(page: Path) -> None:
    for code in blocks(page, "python"):
        compile(code, str(page), "exec")


def test_the_quick_starts_workflow_loads(tmp_path: Path) -> None:
    code = blocks(ROOT / "docs" / "quickstart.md", "python")[0]
    (tmp_path / "translate.py").write_text(code, encoding="utf-8")
    graph = adjoin.load(tmp_path / "translate.py")
    assert [stage.function.name for stage in graph.stages] == ["prompt", "generate"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in _LINK.findall(_CODE.sub("", page.read_text(encoding="utf-8"))):
        path = page.parent / target if target else page
        assert path.exists(), target
        assert not anchor or anchor in anchors(path), f"{target}#{anchor}"


def anchors(page: Path) -> set[str]:
    """Of the headings, as GitHub makes them."""
    headings = _HEADING.findall(_CODE.sub("", page.read_text(encoding="utf-8")))
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in headings}


def rows(page: str, columns: int) -> list[list[str]]:
    """Cells of the tables with so many columns, without the heads."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8").replace("\\|", "¦")
    cells = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    found = [[cell.strip().replace("¦", "|") for cell in row] for row in cells]
    return [row for row in found if len(row) == columns and row[0].startswith("`")]


def test_every_parameter_of_a_built_in_function_is_documented() -> None:
    text = (ROOT / "docs" / "functions.md").read_text(encoding="utf-8")
    heads = dict(re.findall(r"^## (\w+)\n\n`\w+\(.*?\) → (.+?)`:", text, re.MULTILINE))
    assert heads == {
        name: str(function.returns)
        for name, function in BUILTINS.items()
        if function.result is None  # where it depends on the arguments, a table says how
    }
    expected = [
        [f"`{each.name}`", f"`{each.type}`", shown_default(each)]
        for function in BUILTINS.values()
        for each in function.parameters
    ]
    assert [row[:3] for row in rows("functions.md", 4)] == expected


def shown_default(parameter: Parameter) -> str:
    if parameter.default is None:
        return ""
    value = parameter.default.value
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def test_every_error_is_documented_with_its_code() -> None:
    found = {row[0]: row[1:3] for row in rows("cli.md", 4)}
    assert found == {
        f"`{error.__name__}`": [f"`{error.code}`", str(error.exit_code)]
        for error in tree(adjoin.AdjoinError)
    }


def tree(root: type[adjoin.AdjoinError]) -> Iterator[type[adjoin.AdjoinError]]:
    yield root
    for child in root.__subclasses__():
        if child.__module__ == "adjoin.errors":
            yield from tree(child)


def test_every_setting_is_documented_with_its_default() -> None:
    text = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+?) \| .+ \|$", text, re.MULTILINE))
    assert rows.keys() == Settings.model_fields.keys()
    for name, field in Settings.model_fields.items():
        if name not in ("home", "allowed_modules", "database_url"):
            assert rows[name] == f"`{field.default!r}`", name


def test_every_command_is_documented() -> None:
    from adjoin.cli.app import app

    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    names = [command.name for command in app.registered_commands]
    names += [group.name for group in app.registered_groups]
    assert all(f"adjoin {name} " in text or f"adjoin {name}\n" in text for name in names)
