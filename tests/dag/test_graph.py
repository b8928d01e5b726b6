from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from dag_library import CHUNK, EMBED, GENERATE, RETRIEVE, cite, join, load, resolve
from hypothesis import given, settings
from hypothesis import strategies as st

from adjoin import dag
from adjoin.dag import Bounds, Literal, Parameter, Reference, Stage
from adjoin.dag import datatypes as dt
from adjoin.dag.annotations import parse_type
from adjoin.dag.binding import Binding, container, literal
from adjoin.dag.names import RESERVED
from adjoin.errors import GraphError, InputError, NotFound
from adjoin.types import Message, Passage

TEXT = Parameter("text", dt.STRING)


def stage(id: str, function: dag.Function = join, **bindings: Binding) -> Stage:
    return Stage(id, function, bindings or {"parts": Literal("x")}, function.policy)


def graph(*stages: Stage, **options: Any) -> dag.Graph:
    options = {"inputs": [TEXT], "outputs": {"out": Reference(stages[-1].id)}, **options}
    return dag.build("w", stages=stages, **options)


# --- building -------------------------------------------------------------------------------------


def test_stages_are_put_in_order_whatever_their_order_is() -> None:
    stages = [
        stage("d", parts=container([Reference("b"), Reference("c")])),
        stage("c", parts=Reference("a")),
        stage("b", parts=Reference("a")),
        stage("a"),
    ]
    one, two = (graph(*order, outputs={"out": Reference("d")}) for order in (stages, stages[::-1]))
    assert [each.id for each in one.stages] == ["a", "b", "c", "d"]
    assert one == two and one.version == two.version


def test_a_cycle_is_listed_along_its_edges() -> None:
    stages = [
        stage("a", parts=Reference("c")),
        stage("b", parts=Reference("a")),
        stage("c", parts=Reference("b")),
    ]
    with pytest.raises(GraphError, match=r"(a → b → c → a|b → c → a → b|c → a → b → c) wait"):
        graph(*stages)


def test_a_stage_that_waits_for_itself_is_a_cycle() -> None:
    with pytest.raises(GraphError, match="a → a wait"):
        graph(stage("a", parts=Reference("a")))


def test_a_chain_that_leads_nowhere_names_its_first_stage() -> None:
    with pytest.raises(GraphError, match="stage 'a'"):
        graph(stage("a"), stage("b", parts=Reference("a")), stage("c"))


def test_an_edge_of_two_types_names_both_stages_and_both_types() -> None:
    with pytest.raises(GraphError) as caught:
        graph(stage("one", CHUNK, text=Literal("x")), stage("two", CHUNK, text=Reference("one")))
    assert caught.value.message == (
        "stage 'two', argument 'text': 'chunk' takes string, but stage 'one' gives list[string]"
    )
    assert caught.value.details == {"stage": "two", "argument": "text"}


def test_a_container_has_the_types_of_its_parts() -> None:
    made = container([Reference("inputs", ("text",)), Literal("x")])
    fits = graph(stage("a", EMBED, texts=made, model=Literal("m")))
    assert fits.stage("a").model == "m"
    wrong = container([Reference("inputs", ("text",)), Literal(1)])
    with pytest.raises(GraphError, match=r"list\[integer \| string\]"):
        graph(stage("a", EMBED, texts=wrong, model=Literal("m")))


def test_an_input_may_only_be_what_callers_can_write() -> None:
    thing = dt.DataType("struct", name="m:Thing")
    with pytest.raises(GraphError, match="m:Thing, which callers cannot write"):
        graph(stage("a"), inputs=[Parameter("x", thing)])


@pytest.mark.parametrize("name", ["", "a-b", "1a", "a" * 65, "é", "a\n"])
def test_names_are_bounded(name: str) -> None:
    with pytest.raises(GraphError, match="cannot name an input"):
        graph(stage("a"), inputs=[Parameter(name)])
    with pytest.raises(GraphError, match="cannot name an output"):
        graph(stage("a"), outputs={name: Reference("a")})
    with pytest.raises(GraphError, match="cannot name a stage"):
        graph(stage(name))
    with pytest.raises(GraphError, match="cannot name a workflow"):
        dag.build(name, inputs=[], stages=[stage("a")], outputs={"a": Reference("a")})


def chain(count: int) -> list[Stage]:
    first = [stage("s0")]
    return first + [stage(f"s{i}", parts=Reference(f"s{i - 1}")) for i in range(1, count)]


def test_a_thousand_stages_build_within_a_second() -> None:
    stages = chain(1000)[::-1]
    started = time.perf_counter()
    built = graph(*stages, outputs={"out": Reference("s999")})
    assert built.version
    assert time.perf_counter() - started < 1
    assert [each.id for each in built.stages] == [f"s{i}" for i in range(1000)]


def test_the_number_of_stages_is_bounded() -> None:
    with pytest.raises(GraphError, match="at most 10000 stages"):
        graph(*(stage(f"s{i}") for i in range(10_001)))


def test_an_unknown_stage_is_not_found_with_a_suggestion() -> None:
    with pytest.raises(NotFound, match="no stage 'answr'; did you mean 'answer'"):
        graph(stage("answer")).stage("answr")


def test_a_collection_may_be_the_functions_own_default() -> None:
    found = stage("r", RETRIEVE, vector=Reference("e"), collection=Literal("docs"))
    built = graph(stage("e", EMBED, texts=Literal("x"), model=Literal("m")), found)
    assert built.collection_names() == {"docs"} and built.model_names() == {"m"}


def test_arguments_are_kept_within_bounds_when_they_are_known() -> None:
    found = stage(
        "r",
        RETRIEVE,
        vector=Reference("e"),
        collection=Literal("docs"),
        k=Reference("inputs", ("k",)),
    )
    built = graph(
        stage("e", EMBED, texts=Literal("x"), model=Literal("m")),
        found,
        inputs=[Parameter("k", dt.INTEGER)],
    )
    with pytest.raises(InputError, match="argument 'k': must be at least 1, got 0"):
        built.stage("r").arguments({"inputs": {"k": 0}, "e": 1})


# --- inputs of a run ------------------------------------------------------------------------------


def inputs(*parameters: Parameter) -> dag.Graph:
    return graph(stage("a"), inputs=parameters)


def test_defaults_are_filled_in() -> None:
    built = inputs(TEXT, Parameter("k", dt.INTEGER, Literal(4)))
    assert built.check_inputs({"text": "x"}) == {"text": "x", "k": 4}


@pytest.mark.parametrize(
    ("type", "value", "found"),
    [
        ("number", 1, 1),
        ("string | null", None, None),
        ("list[number]", [1, 2.5], [1, 2.5]),
        ("list[string]", ("a",), ["a"]),
        ("bytes", "aGk=", b"hi"),
        ("bytes", b"hi", b"hi"),
        ("Passage", {"id": "1", "text": "t"}, Passage(id="1", text="t")),
        ("list[Message]", [{"role": "user", "content": "c"}], [Message(role="user", content="c")]),
        ("list[Message] | string", "x", "x"),
        ("dict[string, list[Message]]", {"a": []}, {"a": []}),
        ("any", {"a": [None]}, {"a": [None]}),
    ],
)
def test_json_forms_become_values(type: str, value: Any, found: Any) -> None:
    assert inputs(Parameter("x", parse_type(type))).check_inputs({"x": value}) == {"x": found}


@pytest.mark.parametrize("value", [[1, 2], [[1.0], [2.0]], np.array([1, 2], dtype=np.float64)])
def test_numbers_become_a_vector(value: Any) -> None:
    found = inputs(Parameter("v", dt.VECTOR)).check_inputs({"v": value})["v"]
    assert found.dtype == np.float32 and found.tolist() == np.asarray(value).tolist()


@pytest.mark.parametrize(
    ("type", "value", "message"),
    [
        ("string", 1, "expected string, got integer 1"),
        ("integer", "1", "expected integer, got text '1'"),
        ("integer", True, "expected integer, got boolean True"),
        ("integer", 1.0, "expected integer, got number"),
        ("number", float("nan"), "finite"),
        ("number", False, "boolean"),
        ("boolean", 1, "expected boolean"),
        ("string", None, "expected string, got null"),
        ("string | null", 1, r"expected string \| null"),
        ("list[string]", ["a", 1], r"\[1\]: expected string"),
        ("list[string]", "ab", "expected list"),
        ("dict[string, integer]", {"a": "b"}, r"\['a'\]: expected integer"),
        ("dict[string, integer]", [1], "expected dict"),
        ("bytes", "?", "base64"),
        ("bytes", 1, "expected bytes"),
        ("Vector", ["a"], "expected Vector"),
        ("Vector", [[1], [2, 3]], "expected Vector"),
        ("Vector", [float("inf")], "finite"),
        ("Vector", [[[1.0]]], "a vector or a matrix"),
        ("Passage", {"id": 1}, "expected Passage"),
    ],
)
def test_a_value_that_does_not_fit_is_named(type: str, value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        inputs(Parameter("x", parse_type(type))).check_inputs({"x": value})
    assert caught.value.where == "input 'x'"


@pytest.mark.parametrize(
    ("bounds", "good", "bad"),
    [
        (Bounds(minimum=1), 1, 0),
        (Bounds(maximum=1.5), 1.5, 2),
        (Bounds(min_length=1), "a", ""),
        (Bounds(max_length=2), "ab", "abc"),
        (Bounds(max_length=1), ["a"], ["a", "b"]),
        (Bounds(enum=("a", 1)), 1, "b"),
    ],
)
def test_values_keep_within_bounds(bounds: Bounds, good: Any, bad: Any) -> None:
    built = inputs(Parameter("x", bounds=bounds))
    assert built.check_inputs({"x": good}) == {"x": good}
    with pytest.raises(InputError, match="input 'x': must"):
        built.check_inputs({"x": bad})


def test_missing_and_unknown_inputs_are_named() -> None:
    with pytest.raises(InputError, match="needs the input 'text'; give a value of type string"):
        inputs(TEXT).check_inputs({})
    with pytest.raises(InputError, match="no input 'txt'; did you mean 'text'"):
        inputs(TEXT).check_inputs({"txt": "x"})


@pytest.mark.parametrize(
    ("type", "text", "value"),
    [
        ("string", "5", "5"),
        ("string | null", "null", "null"),
        ("integer", "5", 5),
        ("number", "5", 5),
        ("boolean", "true", True),
        ("integer | null", "null", None),
        ("list[string]", '["a"]', ["a"]),
        ("any", "5", 5),
        ("any", "five", "five"),
        ("any", "NaN", "NaN"),
        ("Passage", '{"id": "1", "text": "t"}', Passage(id="1", text="t")),
    ],
)
def test_typed_texts_become_values(type: str, text: str, value: Any) -> None:
    assert dag.parse_input(Parameter("x", parse_type(type)), text) == value


@pytest.mark.parametrize(
    ("type", "text"),
    [
        *(("integer", "five"), ("integer", "1.5"), ("number", "NaN"), ("boolean", "yes")),
        *(("list[any]", "[" * 100_000), ("integer", "1" * 10_000)),
    ],
)
def test_typed_texts_that_do_not_fit_are_refused(type: str, text: str) -> None:
    with pytest.raises(InputError, match="input 'x'"):
        dag.parse_input(Parameter("x", parse_type(type)), text)


# --- the version ------------------------------------------------------------------------------


def test_the_version_covers_what_changes_the_meaning() -> None:
    base = {"stages": [stage("a")], "inputs": [TEXT], "outputs": {"o": Reference("a")}}
    slow = Stage("a", join, {"parts": Literal("x")}, dag.Policy(timeout=9.0))
    changed = dag.function(name="join")(lambda parts, size=2: "x")
    variants: list[dict[str, Any]] = [
        {},
        {"stages": [stage("a", parts=Literal("y"))]},
        {"stages": [stage("a", parts=Literal(1))]},
        {"stages": [stage("a", parts=Literal(1.0))]},
        {"stages": [stage("a", parts=Literal(True))]},
        {"stages": [stage("b")], "outputs": {"o": Reference("b")}},
        {"stages": [slow]},
        {"stages": [stage("a", changed)]},
        {"inputs": [Parameter("text", dt.ANY)]},
        {"inputs": [Parameter("text", dt.STRING, Literal("x"))]},
        {"inputs": [Parameter("text", dt.STRING, bounds=Bounds(max_length=1))]},
        {"outputs": {"p": Reference("a")}},
        {"models": {"m": dag.ModelSpec("x")}},
        {"models": {"m": dag.ModelSpec("x", args={"a": 1})}},
        {"outputs": {"output": Reference("a")}},
        {"outputs": {"output": Reference("a")}, "bare": True},
    ]
    versions = [dag.build("w", **{**base, **variant}).version for variant in variants]
    assert len(set(versions)) == len(variants)


def test_the_version_is_that_of_the_meaning_only() -> None:
    base: dict[str, Any] = {"stages": [stage("a")], "outputs": {"o": Reference("a")}}
    one = dag.build("w", inputs=[TEXT, Parameter("k")], **base)
    two = dag.build(
        "v",
        inputs=[Parameter("k", description="how many"), TEXT],
        description="d",
        serve=dag.Serve(queue=1),
        **base,
    )
    assert one.version == two.version and one != two


def test_models_and_serving_from_python_are_checked() -> None:
    with pytest.raises(GraphError, match="models"):
        graph(stage("a"), models={"m": dag.ModelSpec(source=5)})  # type: ignore[arg-type]
    with pytest.raises(GraphError, match="serve"):
        graph(stage("a"), serve=dag.Serve(queue="x"))  # type: ignore[arg-type]


# --- the wire, and any graph at all -----------------------------------------------------------


def test_another_source_is_noticed() -> None:
    wire = graph(stage("a")).to_wire()
    with pytest.raises(GraphError, match="another source here"):
        dag.from_wire(wire, lambda ref, digest: cite)


@pytest.mark.parametrize("data", [b"", b"{}", b"[1]", b"\xff", b"[" * 10_000])
def test_other_data_is_no_graph(data: bytes) -> None:
    with pytest.raises(GraphError, match="not a workflow"):
        dag.from_wire(data, resolve)


names = st.from_regex(r"[a-z_][a-z0-9_]{0,5}", fullmatch=True).filter(
    lambda name: name not in RESERVED and name != "inputs"
)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    [
        *("${x}", "$", "$${", "yes", "~", "1_0", "0x1", "1e3", " a", "a\n", "\n", "# a"),
        *("- a", "a: b", "line\nline  \n\n", "\ttab", "a\r\nb", "\u2028", "\x85", "\x07"),
        *("\ufeff", "'", '"', "null"),
    ]
)
plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)


@st.composite
def graphs(draw: st.DrawFn) -> dag.Graph:
    parameters = [
        Parameter(name, dt.ANY, draw(st.none() | plain.map(literal)), description=draw(texts))
        for name in draw(st.lists(names, max_size=3, unique=True))
    ]
    roots: list[Binding] = [Reference("inputs", (each.name,)) for each in parameters]
    stages: list[Stage] = []
    for id in draw(st.lists(names, min_size=1, max_size=5, unique=True)):
        leaf = bound_of(roots)
        bound = st.lists(leaf, max_size=3).map(container) | leaf
        # every stage takes the one before, so that none is unused
        before = [Reference(stages[-1].id)] if stages else []
        given: dict[str, Binding] = {"parts": container([*before, draw(bound), draw(bound)])}
        policy = join.policy
        if draw(st.booleans()):
            policy = dag.Policy(draw(st.floats(1e-3, 86_400)), draw(st.integers(1, 10)))
        stages.append(Stage(id, join, given, policy))
        roots.append(Reference(id))
    prompt = Stage(
        "the_prompt",
        resolve("prompt", ""),
        {"template": dag.Template(draw(texts)), "x": Reference(stages[-1].id)},
        dag.Policy(),
    )
    args = st.dictionaries(texts, st.none() | st.booleans() | st.integers(0, 9) | texts, max_size=2)
    models = st.dictionaries(names, st.builds(dag.ModelSpec, texts, texts, args), max_size=2)
    last = Reference("the_prompt", ())
    bare = draw(st.booleans())
    return dag.build(
        draw(names),
        inputs=parameters,
        stages=[*stages, prompt],
        outputs={"output": last} if bare else {"one": last, draw(names): draw(bound_of(roots))},
        bare=bare,
        models=draw(models),
        serve=dag.Serve(
            scale=dag.Scale(
                max=draw(st.integers(1, 9)), idle_after=draw(st.none() | st.just(0.25))
            ),
            queue=draw(st.none() | st.integers(0, 9)),
        ),
        description=draw(texts),
    )


def bound_of(roots: list[Binding]) -> st.SearchStrategy[Binding]:
    return st.one_of(plain.map(literal), *map(st.just, roots))


@settings(max_examples=60, deadline=None)
@given(graphs())
def test_every_graph_survives_yaml_and_the_wire(built: dag.Graph) -> None:
    for again in (load(built.to_yaml()), dag.from_wire(built.to_wire(), resolve)):
        assert again == built
        assert again.version == built.version
        assert again.stages == built.stages


def test_a_graph_says_what_it_is() -> None:
    built = graph(stage("a", GENERATE, prompt=Literal("x"), model=Literal("m")))
    assert repr(built).startswith(f"<Graph w {built.version[:12]}")
