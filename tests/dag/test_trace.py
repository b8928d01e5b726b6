from __future__ import annotations

import inspect
import pickle
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pytest
from dag_library import CHUNK, EMBED, GENERATE, PROMPT, RETRIEVE, TEMPLATE, cite, join

from adjoin import dag
from adjoin.dag import Reference, Template
from adjoin.errors import DefinitionError, GraphError
from adjoin.types import Passage, StageContext


def line_of(text: str) -> int:
    """The line of this file that holds the text, so that tests do not count."""
    lines = Path(__file__).read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if line.strip().endswith(text))


# --- functions ------------------------------------------------------------------------------------


def test_a_users_function_runs_outside_of_a_workflow() -> None:
    assert cite("a", [Passage(id="1", text="t", source="s")]) == "a [s]"
    assert cite.ref == "py:dag_library:cite"
    assert inspect.signature(cite).parameters.keys() == {"answer", "passages"}


def test_a_built_in_one_does_not() -> None:
    with pytest.raises(DefinitionError, match="outside of a workflow") as caught:
        CHUNK("text")  # called here
    assert caught.value.where.endswith(f"test_trace.py:{line_of('# called here')}")


def test_a_signature_says_what_a_function_is() -> None:
    assert [each.name for each in GENERATE.parameters] == [
        "prompt",
        "model",
        "max_tokens",
        "temperature",
    ]
    assert GENERATE.wants_context and GENERATE.needs == dag.Needs(model="model")
    assert RETRIEVE.needs == dag.Needs(collection="collection")
    assert PROMPT.extra and not PROMPT.wants_context
    assert str(EMBED.returns) == "Vector"
    assert GENERATE.description == "Generate text."
    assert join.policy == dag.Policy(timeout=5.0, attempts=2)


def test_bounds_come_from_annotations() -> None:
    @dag.function
    def bounded(
        mode: Literal["fast", "good"] = "fast",
        level: Literal[1, 2] | None = None,
        name: Annotated[str, msgspec.Meta(min_length=1, max_length=5, description="who")] = "x",
    ) -> str:
        return mode + name

    mode, level, name = bounded.parameters
    assert mode.bounds.enum == ("fast", "good")
    assert level.bounds.enum == (1, 2) and str(level.type) == "integer | null"
    assert (name.bounds.min_length, name.bounds.max_length, name.description) == (1, 5, "who")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def f(*args): ...", "by name"),
        ("def f(x, /): ...", "by name"),
        ("def f() -> list[int]:\n yield 1", "yields, but is annotated"),
        ("async def f() -> Iterator[int]:\n yield 1", "yields, but is annotated"),
        ("async def f() -> AsyncIterator[int]: ...", "does not yield"),
        ("async def f(x: Iterator[int]): ...", "would block the worker's event loop"),
        ("def f(x: AsyncIterator[int]): ...", "only async def can read"),
        ("def f(x: list[Iterator[int]]): ...", "within another type"),
        ("def f(x: Missing): ...", "'Missing', which is not defined"),
        ("def f(x: int = 'a'): ...", "the default of 'x' is string, not integer"),
        ("def f(x: Annotated[int, Meta(ge=1)] = 0): ...", "must be at least 1"),
        ("def f(x: Annotated[int, Meta(gt=1)]): ...", "bounded by gt"),
        ("def f(x=object()): ...", "cannot be written"),
        ("class f: ...", "not a Python function"),
    ],
)
def test_what_cannot_be_a_function(text: str, message: str) -> None:
    names: dict[str, Any] = {"Annotated": Annotated, "Meta": msgspec.Meta}
    names |= {"Iterator": Iterator, "AsyncIterator": AsyncIterator}
    exec("from __future__ import annotations\n" + text, names)
    with pytest.raises(DefinitionError, match=message):
        dag.function(names["f"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timeout": 0}, "duration"),
        ({"timeout": "soon"}, "duration"),
        ({"timeout": True}, "duration"),
        ({"timeout": float("nan")}, "duration"),
        ({"attempts": 0}, "attempts"),
        ({"attempts": 11}, "attempts"),
        ({"attempts": 1.5}, "attempts"),
    ],
)
def test_policies_are_bounded(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        dag.function(**options)(lambda: None)
    with pytest.raises(DefinitionError, match=message):
        CHUNK.options(**options)


def test_the_digest_follows_source_and_closure() -> None:
    def make(n: int) -> dag.Function:
        @dag.function
        def add(x: int) -> int:
            return x + n

        return add

    assert make(1).digest == make(1).digest != make(2).digest


def test_a_function_without_source_has_a_digest() -> None:
    def made(body: str) -> dag.Function:
        names: dict[str, Any] = {}
        exec(f"def f(x):\n return {body}", names)
        return dag.function(names["f"])

    assert made("x + 1").digest == made("x + 1").digest != made("x + 2").digest


SHIP = """
import sys, cloudpickle
from adjoin import dag

@dag.function
def double(x: int) -> int:
    return 2 * x

@dag.function
def quadruple(x: int) -> int:
    return double(double(x))

sys.stdout.buffer.write(cloudpickle.dumps(quadruple))
"""


def test_a_function_reaches_a_worker_that_lacks_its_module(tmp_path: Path) -> None:
    (tmp_path / "absent.py").write_text(SHIP)
    data = subprocess.run(
        [sys.executable, "absent.py"], cwd=tmp_path, capture_output=True, check=True
    ).stdout
    found = pickle.loads(data)
    assert found.ref == "py:absent:quadruple" and found(3) == 12


# --- tracing --------------------------------------------------------------------------------------


def make_rag(folder: Path) -> dag.Workflow:
    (folder / "answer.md").write_text(TEMPLATE)

    @dag.workflow(models={"small": dag.ModelSpec("smollm2-135m", args={"max_model_len": 2048})})
    def rag(question: Annotated[str, msgspec.Meta(max_length=4000)], k: int = 4) -> dict[str, Any]:
        """Answer from passages.

        At length.
        """
        passages = RETRIEVE(EMBED(question, model="minilm"), collection="handbook", k=k)
        answer = GENERATE.options(timeout="30s", attempts=3)(
            PROMPT(folder / "answer.md", question=question, passages=passages),
            model="small",
            max_tokens=128,
        )
        return {"answer": cite(answer, passages), "sources": passages}

    return rag


def test_a_workflow_becomes_a_graph(tmp_path: Path) -> None:
    graph = make_rag(tmp_path).graph
    assert [stage.id for stage in graph.stages] == [
        "embed",
        "passages",
        "prompt",
        "answer",
        "cite",
    ]
    assert graph.dependencies("cite") == {"answer", "passages"}
    assert graph.consumers("passages") == {"prompt", "cite"}
    assert graph.consumers("cite") == frozenset()
    assert graph.output_stages() == {"cite", "passages"}
    assert graph.model_names() == {"minilm", "small"}
    assert graph.collection_names() == {"handbook"}
    assert graph.stage("prompt").bindings["template"] == Template(TEMPLATE)
    assert graph.stage("answer").policy == dag.Policy(timeout=30.0, attempts=3)
    assert graph.stage("answer").model == "small"
    assert graph.description == "Answer from passages."


def test_arguments_and_outputs_are_evaluated(tmp_path: Path) -> None:
    graph = make_rag(tmp_path).graph
    scope = {"inputs": {"question": "q", "k": 2}, "embed": "v", "passages": ["p"], "cite": "c"}
    assert graph.stage("passages").arguments(scope) == {
        "vector": "v",
        "collection": "handbook",
        "k": 2,
    }
    assert graph.resolve_outputs(scope) == {"answer": "c", "sources": ["p"]}


def test_a_bare_result_is_returned_bare() -> None:
    @dag.workflow
    def one(text: str) -> Any:
        return CHUNK(text)

    assert one.graph.bare and one.graph.resolve_outputs({"chunk": ["a"]}) == ["a"]


def test_stages_are_called_like_variables_or_functions() -> None:
    def aided(text: Any) -> Any:
        inner = CHUNK(text)
        return [inner]

    @dag.workflow
    def named(text: str) -> Any:
        first = CHUNK(
            text,
            size=1,
        )
        first = join(first)
        second: Any = join(aided(text))
        both = [third := join([first, second, CHUNK(text), CHUNK(text)])]
        a = b = CHUNK(text)
        return [join.options(id="own")(third), both, a, b, join(text), [join(n) for n in range(2)]]

    assert {stage.id for stage in named.graph.stages} == {
        *("first", "first_2", "inner", "second", "chunk", "chunk_2", "third", "chunk_3"),
        *("own", "join", "join_2", "join_3"),
    }


def test_two_stages_cannot_be_given_one_id() -> None:
    @dag.workflow
    def twice(text: str) -> Any:
        return [CHUNK.options(id="a")(text), CHUNK.options(id="a")(text)]

    with pytest.raises(GraphError, match="two stages are called 'a'"):
        _ = twice.graph


def test_parts_of_symbols_are_references() -> None:
    @dag.workflow
    def parts(facts: dict[str, str]) -> Any:
        found = RETRIEVE(EMBED(facts["q"], model="m"), collection="c")
        return {"first": found[0].text, "page": found[1].metadata["page"]}

    assert parts.graph.outputs == {
        "first": Reference("found", (0, "text")),
        "page": Reference("found", (1, "metadata", "page")),
    }
    assert parts.graph.stage("embed").bindings["texts"] == Reference("inputs", ("facts", "q"))


def test_a_workflow_is_traced_once_even_by_many_threads() -> None:
    calls = []

    @dag.workflow
    def counted(text: str) -> Any:
        calls.append(1)
        return CHUNK(text)

    threads = [threading.Thread(target=lambda: counted.graph) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1 and counted.graph is counted.graph


def test_a_workflow_cannot_be_called() -> None:
    @dag.workflow
    def w(text: str) -> Any:
        return CHUNK(text)

    with pytest.raises(DefinitionError, match=r"run it: adjoin\.Runtime"):
        w("x")


STATEMENTS = {
    "if q: pass": "decides on a value",
    "q and q": "decides on a value",
    "not q": "decides on a value",
    "[x for x in q]": "loops over a value",
    "a, b = q": "loops over a value",
    "len(q)": "length of a value",
    "'a' in q": "contains something",
    "f'{q}'": "f-string",
    "str(q)": "f-string",
    "int(q)": "into a number",
    "q // 2": "calculates",
    "2 ** q": "calculates",
    "q < 1": "string < integer cannot be computed",
    "q + 1": r"string \+ integer cannot be computed",
    "-q": "string cannot be computed",
    "~q": "string cannot be computed",
    "q & (q == 'a')": "string && boolean cannot be computed",
    "q.upper()": "string has no field 'upper'",
    "q[-1]": "counts from its end",
    "q[1:]": "takes a slice",
    "q['a']": "string has no field 'a'",
    "q[0]": "no items",
    "q()": "calls a value",
    "q[0] = 1": "changes a value",
    "with q: pass": "opens a value",
    "passages[0].txt": "Passage has no field 'txt'",
    "mapping.key": r'write \["key"\]',
}


@pytest.mark.parametrize("statement", STATEMENTS)
def test_python_on_a_symbol_is_refused_with_its_line(statement: str, tmp_path: Path) -> None:
    file = tmp_path / "flow.py"
    file.write_text(f"def w(q: str, passages: list[Passage], mapping: dict):\n\n    {statement}\n")
    names: dict[str, Any] = {"Passage": Passage}
    exec(compile(file.read_text(), str(file), "exec"), names)
    with pytest.raises(GraphError, match=STATEMENTS[statement]) as caught:
        _ = dag.workflow(names["w"]).graph
    assert caught.value.where == f"{file}:3"
    assert caught.value.hint


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ("None", "returns nothing"),
        ("{}", "named by texts"),
        ("{1: CHUNK(q)}", "named by texts"),
        ("{'a b': CHUNK(q)}", "cannot name an output"),
        ("q", "has no stages"),
        ("CHUNK(q, 1, 2, 3)", "given 4 arguments"),
        ("CHUNK(q, text=q)", "'text' twice"),
        ("CHUNK()", "'chunk' needs 'text'"),
        ("CHUNK(q, sise=3)", r"no argument 'sise'; did you mean 'size'"),
        ("CHUNK(q, size='a')", "'chunk' takes integer, but it is given string"),
        ("CHUNK(q, size=object())", "a object cannot be written"),
        ("PROMPT(Path('x'))", "cannot be read"),
        ("CHUNK(Path('x'))", "only taken where a function wants a template"),
        ("CHUNK(CHUNK(q))", r"takes string, but stage 'chunk' gives list\[string\]"),
        ("[CHUNK(q), Path('x')]", "only taken where a function wants a template"),
        ("GENERATE(q, model=q)", "must be a plain name"),
        ("GENERATE(q, model='')", "must be a plain name"),
        ("RETRIEVE(EMBED(q, model='m'), collection='c', k=0)", "must be at least 1"),
        ("undefined", "NameError"),
    ],
)
def test_a_wrong_workflow_is_refused(result: str, message: str) -> None:
    names: dict[str, Any] = {**globals()}
    exec(f"def w(q: str):\n  return {result}", names)
    with pytest.raises(DefinitionError, match=message):
        _ = dag.workflow(names["w"]).graph


def test_an_error_of_a_stage_has_its_line() -> None:
    @dag.workflow
    def wrong(text: str) -> Any:
        good = CHUNK(text)
        bad = CHUNK(good)  # not a text
        return [bad]

    with pytest.raises(GraphError, match="stage 'bad', argument 'text'") as caught:
        _ = wrong.graph
    assert caught.value.where.endswith(f"test_trace.py:{line_of('# not a text')}")


def test_an_unused_stage_is_an_error_at_its_line() -> None:
    @dag.workflow
    def wasteful(text: str) -> Any:
        CHUNK(text)  # for nothing
        return join(text)

    with pytest.raises(GraphError, match="nothing uses the result of stage 'chunk'") as caught:
        _ = wasteful.graph
    assert caught.value.where.endswith(f"test_trace.py:{line_of('# for nothing')}")


@pytest.mark.parametrize(
    "parameters", ["*args", "**kwargs", "x: Thing", "x: StageContext", "x: int = 'a'"]
)
def test_what_cannot_be_an_input(parameters: str) -> None:
    names: dict[str, Any] = {**globals(), "Thing": type("Thing", (), {})}
    exec(f"def w({parameters}):\n  return CHUNK('a')", names)
    with pytest.raises(DefinitionError):
        _ = dag.workflow(names["w"]).graph


# --- templates ------------------------------------------------------------------------------------


def test_a_template_path_is_relative_to_the_workflows_file(tmp_path: Path) -> None:
    (tmp_path / "t.md").write_text("hello")
    file = tmp_path / "flow.py"
    file.write_text("def w():\n    return PROMPT(Path('t.md'))\n")
    names: dict[str, Any] = {**globals()}
    exec(compile(file.read_text(), str(file), "exec"), names)
    stage = dag.workflow(names["w"]).graph.stage("prompt")
    assert stage.bindings == {"template": Template("hello")}


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "cannot be read"), (b"\xff", "UTF-8"), (b"x" * 300_000, "larger")],
)
def test_a_bad_template_file_is_named(content: bytes | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "t.md").write_bytes(content)

    @dag.workflow
    def w() -> Any:
        return PROMPT(tmp_path / "t.md")

    with pytest.raises(DefinitionError, match=message) as caught:
        _ = w.graph
    assert str(tmp_path / "t.md") in str(caught.value)


def test_a_changed_template_is_another_version(tmp_path: Path) -> None:
    before = make_rag(tmp_path).graph.version
    assert make_rag(tmp_path).graph.version == before
    rag = make_rag(tmp_path)
    (tmp_path / "answer.md").write_text("other")
    assert rag.graph.version != before


# --- programs -------------------------------------------------------------------------------------


def test_a_program_and_its_import_agree(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        textwrap.dedent("""
            from adjoin import dag

            @dag.function
            def shout(text: str) -> str:
                return text.upper()

            @dag.workflow
            def w(text: str):
                return shout(text)

            if __name__ == "__main__":
                print(shout.ref, w.graph.version)
        """)
    )
    importing = "import app; print(app.shout.ref, app.w.graph.version)"
    run, module, imported = (
        subprocess.run(
            [sys.executable, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout
        for arguments in (["app.py"], ["-m", "app"], ["-c", importing])
    )
    assert run == module == imported
    assert run.startswith("py:app:shout ")


def test_a_workflow_typed_into_an_interpreter_works() -> None:
    typed = (
        "from adjoin import dag\n"
        "@dag.function\ndef f(x: str) -> str: return x\n\n"
        "@dag.workflow\ndef w(x: str):\n  y = f(x)\n  return y\n\n"
        "print(f.ref, [s.id for s in w.graph.stages])\n"
    )
    done = subprocess.run(
        [sys.executable, "-"], input=typed, capture_output=True, text=True, check=True
    )
    assert done.stdout == "py:__main__:f ['f']\n"


def test_the_context_is_given_to_functions_that_ask_for_it() -> None:
    @dag.function
    async def asks(ctx: StageContext, text: str, model: str = "minilm") -> str:
        return text

    @dag.workflow
    def w(text: str) -> Any:
        return asks(text)

    assert asks.wants_context
    assert w.graph.stage("asks").model == "minilm"
