from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from dag_library import RAG_YAML, REGISTRY, TEMPLATE, import_function, load
from test_trace import make_rag

from adjoin import dag
from adjoin.dag import Interpolation, Literal, Reference, Template
from adjoin.errors import AdjoinError, NotFound, YamlError


def workflow(stages: str, outputs: str = '"${a}"', rest: str = "") -> str:
    """A small workflow; its stages start on line 6."""
    body = "\n".join("    " + line for line in stages.strip("\n").splitlines())
    return (
        "apiVersion: adjoin/v1\nkind: Workflow\nmetadata: {name: w}\nspec:\n  stages:\n"
        f"{body}\n  inputs: {{q: string, n: integer}}\n  outputs: {outputs}\n{rest}"
    )


def error_of(text: str, **options: Any) -> YamlError:
    with pytest.raises(YamlError) as caught:
        load(text, **options)
    error = caught.value
    assert error.details["file"] == "w.yaml"
    assert str(error).startswith(f"w.yaml:{error.details['line']}:{error.details['column']}: ")
    return error


def test_python_and_yaml_give_one_graph(tmp_path: Path) -> None:
    traced = make_rag(tmp_path).graph
    (tmp_path / "w.yaml").write_text(RAG_YAML)
    text = RAG_YAML.replace("rag}", "rag, description: Answer from passages.}")
    loaded = load(text, directory=tmp_path)
    assert loaded == traced and loaded.version == traced.version
    assert hash(loaded) == hash(traced)


def test_a_file_is_loaded_with_its_templates(tmp_path: Path) -> None:
    (tmp_path / "w.yaml").write_bytes(b"\xef\xbb\xbf" + RAG_YAML.encode())
    (tmp_path / "answer.md").write_text(TEMPLATE)
    graph = dag.load(
        tmp_path / "w.yaml",
        registry=REGISTRY,
        import_function=import_function,
        allowed_modules=lambda name: name == "dag_library",
    )
    assert graph.stage("prompt").bindings["template"] == Template(TEMPLATE)


def test_a_graph_written_out_needs_no_files(tmp_path: Path) -> None:
    graph = make_rag(tmp_path).graph
    (tmp_path / "answer.md").unlink()
    assert load(graph.to_yaml()) == graph


def test_the_order_of_the_text_does_not_matter() -> None:
    one = load(
        workflow('a: {uses: chunk, with: {text: "${b}"}}\nb: {uses: prompt, with: {template: x}}')
    )
    two = load(
        workflow('b: {uses: prompt, with: {template: x}}\na: {uses: chunk, with: {text: "${b}"}}')
    )
    assert one == two and one.version == two.version
    assert [stage.id for stage in one.stages] == ["b", "a"]


@pytest.mark.parametrize(
    ("text", "binding"),
    [
        ("hi", Literal("hi")),
        ("'${q.x[0]}'", None),
        ("'${inputs.q}'", Reference("inputs", ("q",))),
        ("'<${inputs.q}>'", Interpolation(("<", Reference("inputs", ("q",)), ">"))),
        ("'$${q}'", Literal("${q}")),
        ("yes", Literal("yes")),
        ("2024-01-01", Literal("2024-01-01")),
        ("'5'", Literal("5")),
    ],
)
def test_texts_with_references(text: str, binding: dag.Binding | None) -> None:
    source = workflow(f"a: {{uses: chunk, with: {{text: {text}}}}}")
    if binding is None:
        assert "names no stage" in str(error_of(source))
    else:
        assert load(source).stage("a").bindings["text"] == binding


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("~", None),
        ("null", None),
        ("true", True),
        ("5", 5),
        ("0x1F", 31),
        ("0o17", 15),
        ("1.5", 1.5),
        ("-1e3", -1000.0),
        ("[1, {b: x, a: [2]}]", [1, {"a": [2], "b": "x"}]),
        ("{}", {}),
        ("|\n          two\n          lines\n", "two\nlines\n"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: Any) -> None:
    source = workflow(f"a:\n  uses: py:dag_library:join\n  with:\n    parts: {text}")
    bound = load(source).stage("a").bindings["parts"]
    assert bound == Literal(value)
    assert type(getattr(bound, "value", value)) is type(value)


def test_policies_are_those_of_the_function_unless_given() -> None:
    graph = load(
        workflow(
            "a: {uses: py:dag_library:join, with: {parts: ['${b}', '${c}']}}\n"
            "b: {uses: py:dag_library:join, with: {parts: x}, timeout: 250ms}\n"
            "c: {uses: py:dag_library:join, with: {parts: x}, timeout: 2, retry: {attempts: 5}}"
        )
    )
    assert graph.stage("a").policy == dag.Policy(timeout=5.0, attempts=2)
    assert graph.stage("b").policy == dag.Policy(timeout=0.25, attempts=2)
    assert graph.stage("c").policy == dag.Policy(timeout=2.0, attempts=5)


def test_serving_is_kept_and_is_no_part_of_the_version() -> None:
    stage = "a: {uses: chunk, with: {text: x}}"
    serve = (
        "  serve: {scale: {min: 0, max: 2, idle_after: 60s}, concurrency: 16, queue: 64, "
        "slo: {ttft: 2s, itl: 100ms}}\n"
    )
    plain, served = load(workflow(stage)), load(workflow(stage, rest=serve))
    assert served.serve == dag.Serve(
        scale=dag.Scale(max=2, idle_after=60.0),
        concurrency=16,
        queue=64,
        slo=dag.Objective(ttft=2.0, itl=0.1),
    )
    assert served.version == plain.version and served != plain
    assert load(served.to_yaml()) == served


# --- wrong texts: each with its place ---------------------------------------------------------

A = "a: {uses: chunk, with: {text: x}}"
INLINE = RAG_YAML.replace("{file: answer.md}", "x")
WRONG: list[tuple[str, int, int, str]] = [
    # text, line, column, message
    ("", 1, 1, "empty"),
    ("- a", 1, 1, "a workflow must be a mapping"),
    ("apiVersion: adjoin/v2\nkind: Workflow\nmetadata: {}\nspec: {}", 1, 13, "must be adjoin/v1"),
    ("apiVersion: adjoin/v1\nkind: Flow\nmetadata: {}\nspec: {}", 2, 7, "must be Workflow"),
    ("apiVersion: adjoin/v1\nkind: Workflow\nspec: {}", 1, 1, "needs the key 'metadata'"),
    (INLINE.replace("spec:", "spek:"), 4, 1, "no key 'spek'; did you mean 'spec'"),
    (INLINE.replace("name: rag", "name: my-rag"), 3, 18, "cannot name a workflow"),
    (workflow(A.replace("with", "wiht")), 6, 22, "no key 'wiht'; did you mean 'with'"),
    (workflow(A.replace("chunk", "chnk")), 6, 15, "no function 'chnk'; did you mean 'chunk'"),
    (workflow(A.replace("uses: chunk, ", "")), 6, 8, "needs the key 'uses'"),
    (workflow(A.replace("text: x", "txt: x")), 6, 29, "no argument 'txt'; did you mean 'text'"),
    (workflow(A.replace("text: x", "")), 6, 5, "'chunk' needs 'text'"),
    (workflow(A.replace("text: x", "text: 5")), 6, 35, "takes string, but it is given integer"),
    (workflow(A.replace("text: x", 'text: "${inputs.n}"')), 6, 35, "but input 'n' is integer"),
    (workflow(A.replace("text: x", 'text: "${inputs.m}"')), 6, 35, "names no input"),
    (workflow(A.replace("text: x", 'text: "${q}"')), 6, 35, r"write \$\{inputs.q\}"),
    (workflow(A.replace("text: x", 'text: "${inputs}"')), 6, 35, r"write \$\{inputs.name\}"),
    (workflow(A.replace("text: x", 'text: "${ab}"')), 6, 35, "names no stage; did you mean .a"),
    (workflow(A.replace("text: x", 'text: "${a +}"')), 6, 35, "is not an expression"),
    (workflow(A.replace("text: x", 'text: "<${c}>"') + "\nc: {uses: chunk, with: {text: x}}")
     , 6, 35, r"list\[string\], which cannot be put into a text"),
    (workflow(A + "\nb: {uses: chunk, with: {text: x}}"), 7, 5, "nothing uses .* stage 'b'"),
    (workflow(A.replace("x}", '"${b}"}')
     + '\nb: {uses: py:dag_library:join, with: {parts: "${a}"}}'),
     6, 5, "stages a → b → a wait"),
    (workflow(A.replace("a:", "in:"), '"${in}"'), 8, 12, "expressions use"),
    (workflow(A.replace("a:", "in:")), 6, 5, "expressions use"),
    (workflow(A.replace("a:", "inputs:")), 6, 5, "expressions use"),
    (workflow(A.replace("a:", "'a b':")), 6, 5, "cannot name a stage"),
    (workflow(A, "{x: '${b}'}"), 8, 16, "output 'x': .* names no stage"),
    (workflow(A, "{x-y: '${a}'}"), 8, 18, "cannot name an output"),
    (workflow(A, "{}"), 8, 12, "at least one output"),
    (workflow(A, "{x: '${a.b}'}"), 8, 16, r"list\[string\] has no field 'b'"),
    (workflow(A[:-1] + ", timeout: 0s}"), 6, 48, "duration"),
    (workflow(A[:-1] + ", timeout: [1]}"), 6, 48, "duration"),
    (workflow(A[:-1] + ", retry: 3}"), 6, 46, "retry must be a mapping"),
    (workflow(A[:-1] + ", retry: {attempts: 11}}"), 6, 57, "from 1 to 10"),
    (workflow(A.replace("chunk", '"py:os:system"')), 6, 15, "'os' are not allowed"),
    (workflow(A.replace("chunk", '"py:os"')), 6, 15, "not py:module:name"),
    (workflow(A.replace("chunk", '"py:absent:f"')), 6, 15, "ModuleNotFoundError"),
    (workflow(A.replace("chunk", '"py:dag_library:nope"')), 6, 15, "KeyError"),
    (workflow(A.replace("chunk", '"py:dag_library:undecorated"')), 6, 15, "decorate it"),
    (INLINE.replace("{type: string,", "{type: strng,"), 5, 29, "'strng' is not a type"),
    (INLINE.replace("maxLength", "maxLenght"), 5, 37, "did you mean 'maxLength'"),
    (INLINE.replace("maxLength: 4000", "maxLength: x"), 5, 22, "Expected `int"),
    (INLINE.replace("default: 4", "default: x"), 5, 83, "default of 'k' is string, not integer"),
    (INLINE.replace("default: 4", "default: null"), 5, 83, "is null, not integer"),
    (INLINE.replace("source: smoll", "sauce: smoll"), 7, 13, "did you mean 'source'"),
    (INLINE.replace("2048", "[1]"), 7, 71, "engine argument 'max_model_len'"),
    (workflow(A, rest="  serve: {scale: {min: 3}}\n"), 9, 18, "min .3. is larger than max"),
    (workflow(A, rest="  serve: {scales: {}}\n"), 9, 11, "did you mean 'scale'"),
    (workflow(A, rest="  serve: {queue: -1}\n"), 9, 18, "whole number from 0"),
    # what YAML could do and a workflow does not need
    (workflow(A.replace("x}", "!!python/name:os.system x}")), 6, 35, "a tag"),
    (workflow(A.replace("x}", "&anchor x}")), 6, 35, "an anchor"),
    (workflow(A.replace("x}", "*anchor}")), 6, 35, "an alias"),
    (workflow(A + "\n" + A), 7, 5, "'a' is there twice; first on line 6"),
    (workflow(A) + "---\na: 1\n", 9, 1, "a second document"),
    ("%TAG ! tag:x,2000:\n---\na: 1", 2, 1, "a tag directive"),
    (workflow(A.replace("text: x", "1: x")), 6, 29, "must be a text"),
    (workflow(A.replace("text: x", "[a]: x")), 6, 29, "as a key"),
    (workflow(A.replace("text: x", "text: .nan")), 6, 35, "not finite"),
    (workflow(A.replace("text: x", "text: 1e999")), 6, 35, "not finite"),
    (workflow(A.replace("text: x", "text: 99999999999999999999")), 6, 35, "64-bit"),
    (workflow(A)[:-3], 8, 16, "not valid YAML"),
    ("a: \t- b\n\tc: d", 1, 4, "not valid YAML"),
    ("a: 1\nb: \x01", 2, 4, "a character is not allowed"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line", "column", "message"), WRONG)
def test_a_wrong_text_has_its_place(text: str, line: int, column: int, message: str) -> None:
    with pytest.raises(YamlError, match=message) as caught:
        load(text)
    found = caught.value.details
    assert (found["line"], found["column"]) == (line, column)
    assert str(caught.value).startswith(f"w.yaml:{found['line']}:{found['column']}: ")


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "{a: " * 100_000,
        "- " * 100_000,
        "? " * 100_000,
        "a:\n" + "".join(" " * depth + "a:\n" for depth in range(1, 400)),
        "x: " + "y" * 1_000_001,
        "a: &a [x]\n" + "".join(f"b{i}: &b{i} [*a, *a]\n" for i in range(100)),
        "a: 1" + "0" * 100_000,
    ],
)
def test_hostile_texts_are_refused_quickly(text: str) -> None:
    started = time.perf_counter()
    error_of(text)
    assert time.perf_counter() - started < 5


def test_depth_is_bounded() -> None:
    def nested(levels: int) -> str:
        parts = "[" * levels + "]" * levels
        return workflow(f"a: {{uses: py:dag_library:join, with: {{parts: {parts}}}}}")

    assert len(load(nested(30)).stages) == 1
    assert "more than 40 levels is not allowed" in str(error_of(nested(50)))


def test_python_needs_both_an_importer_and_permission() -> None:
    text = workflow("a: {uses: py:dag_library:join, with: {parts: x}}")
    cases: tuple[dict[str, Any], ...] = (
        {"allowed_modules": ["dag_library"]},
        {"import_function": import_function},
        {"import_function": import_function, "allowed_modules": "xdag_libraryx"},
        {"import_function": import_function, "allowed_modules": ["dag_library.sub"]},
    )
    for options in cases:
        with pytest.raises(YamlError, match="not allowed here"):
            dag.load_yaml(text, registry=REGISTRY, **options)


# --- templates ------------------------------------------------------------------------------------


def prompted(template: str) -> str:
    return workflow(f"a: {{uses: prompt, with: {{template: {template}}}}}")


@pytest.mark.parametrize("template", ["'hi {{ x }}'", "{text: 'hi {{ x }}'}"])
def test_a_template_may_be_written_in_place(template: str) -> None:
    assert load(prompted(template)).stage("a").bindings["template"] == Template("hi {{ x }}")


def test_a_verbatim_template_may_hold_what_looks_like_a_reference() -> None:
    graph = load(prompted("{text: '${{ price }}'}"))
    assert graph.stage("a").bindings["template"] == Template("${{ price }}")
    assert load(graph.to_yaml()) == graph


@pytest.mark.parametrize("name", ["../secret.md", "link.md", "sub/link.md", "linked/a.md", "."])
def test_a_template_file_stays_in_the_workflows_folder(name: str, tmp_path: Path) -> None:
    (tmp_path / "secret.md").write_text("secret")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "a.md").write_text("secret")
    folder = tmp_path / "flow"
    (folder / "sub").mkdir(parents=True)
    (folder / "link.md").symlink_to(tmp_path / "secret.md")
    (folder / "sub" / "link.md").symlink_to(tmp_path / "secret.md")
    (folder / "linked").symlink_to(tmp_path / "outside")
    error = error_of(prompted(f"{{file: {name}}}"), directory=folder)
    assert error.details["line"] == 6
    absolute = error_of(prompted(f"{{file: {tmp_path / 'secret.md'}}}"), directory=folder)
    assert "not inside the workflow's folder" in str(absolute)


def test_template_files_need_a_folder() -> None:
    assert "cannot be read here" in str(error_of(prompted("{file: a.md}")))


@pytest.mark.parametrize("template", ["{fil: a.md}", "{file: a, text: b}", "{}", "{text: 5}"])
def test_other_forms_of_templates_are_refused(template: str, tmp_path: Path) -> None:
    assert error_of(prompted(template), directory=tmp_path).details["line"] == 6


def test_a_missing_template_is_named(tmp_path: Path) -> None:
    error = error_of(prompted("{file: a.md}"), directory=tmp_path)
    assert "cannot be read: No such file" in str(error) and "a.md" in str(error)


# --- files ------------------------------------------------------------------------------------


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="No such file"):
        dag.load(tmp_path / "none.yaml", registry=REGISTRY)


def test_a_file_that_is_not_utf8_has_its_line(tmp_path: Path) -> None:
    (tmp_path / "w.yaml").write_bytes(b"a: 1\nb: \xff\n")
    with pytest.raises(YamlError, match=r"w\.yaml:2:1: the text is not UTF-8"):
        dag.load(tmp_path / "w.yaml", registry=REGISTRY)


def test_an_error_of_the_importer_is_kept() -> None:
    def failing(module: str, name: str) -> Any:
        raise AdjoinError("the module is broken")

    with pytest.raises(YamlError, match="the module is broken"):
        dag.load_yaml(
            workflow('a: {uses: "py:m:f"}'),
            registry=REGISTRY,
            import_function=failing,
            allowed_modules=["m"],
        )
