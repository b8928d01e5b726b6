from __future__ import annotations

from typing import Any

import cel
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adjoin.dag import Fields, Interpolation, Items, Literal, Reference, Template, evaluate
from adjoin.dag.binding import Binding, container, literal, references
from adjoin.dag.names import NAME, RESERVED
from adjoin.dag.text import parse_text, write
from adjoin.errors import GraphError, InputError
from adjoin.types import Passage

names = st.from_regex(NAME, fullmatch=True).filter(lambda name: name not in RESERVED)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
dollars = st.text("${}a.", max_size=8)
refs = st.builds(
    Reference,
    names,
    st.lists(texts | st.integers(0, 10**9 - 1) | names, max_size=3).map(tuple),
)


@given(texts | dollars)
def test_a_constant_text_survives_writing(text: str) -> None:
    assert parse_text(write(Literal(text))) == Literal(text)


@given(refs)
def test_a_reference_survives_writing(reference: Reference) -> None:
    assert parse_text(str(reference)) == reference


@given(refs)
def test_a_reference_is_a_cel_expression(reference: Reference) -> None:
    cel.compile(str(reference)[2:-1])


@given(st.lists((texts | dollars).filter(bool) | refs, min_size=2, max_size=5))
def test_a_text_with_references_survives_writing(parts: list[str | Reference]) -> None:
    merged: list[str | Reference] = []
    for part in parts:
        if isinstance(part, str) and merged and isinstance(merged[-1], str):
            merged[-1] += part
        else:
            merged.append(part)
    if not any(isinstance(part, Reference) for part in merged) or len(merged) == 1:
        return
    assert parse_text(write(Interpolation(tuple(merged)))) == Interpolation(tuple(merged))


@pytest.mark.parametrize(
    ("text", "binding"),
    [
        ("plain", Literal("plain")),
        ("$5 {x}", Literal("$5 {x}")),
        ("$${x}", Literal("${x}")),
        ("${a}", Reference("a")),
        ("${ a . b [ 0 ] }", Reference("a", ("b", 0))),
        ("${a['x-y'][\"z\"]}", Reference("a", ("x-y", "z"))),
        ("Q: ${inputs.q}?", Interpolation(("Q: ", Reference("inputs", ("q",)), "?"))),
        ("$$${a}", Interpolation(("$", Reference("a")))),
    ],
)
def test_texts_are_parsed(text: str, binding: Binding) -> None:
    assert parse_text(text) == binding


@pytest.mark.parametrize(
    "text", ["${", "${}", "${a", "${a +}", "${a.}", "${1 2}", "${{x}}", "${a b}", "${a]}"]
)
def test_what_is_no_expression_is_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(GraphError, match="is not an expression") as caught:
        parse_text(text)
    assert "${stage.field}" in caught.value.hint


def test_a_word_of_the_language_needs_quotes() -> None:
    with pytest.raises(GraphError, match="'in'"):
        parse_text("${a.in}")
    assert parse_text('${a["in"]}') == Reference("a", ("in",))


def test_values_pass_as_they_are() -> None:
    array = np.zeros(3, dtype=np.float32)
    scope = {"inputs": {"q": "hi"}, "embed": array, "retrieve": [Passage(id="1", text="t")]}
    assert evaluate(Reference("embed"), scope) is array
    assert evaluate(Reference("retrieve", (0, "text")), scope) == "t"
    assert evaluate(Reference("inputs", ("q",)), scope) == "hi"
    assert evaluate(Template("x"), scope) == Template("x")
    assert evaluate(Items((Literal(1), Reference("embed"))), scope) == [1, array]
    assert evaluate(Fields((("a", Reference("inputs", ("q",))),)), scope) == {"a": "hi"}


@pytest.mark.parametrize(("value", "text"), [("a", "a"), (1, "1"), (1.5, "1.5"), (True, "true")])
def test_scalars_are_put_into_texts(value: Any, text: str) -> None:
    assert evaluate(Interpolation(("<", Reference("s"), ">")), {"s": value}) == f"<{text}>"


def test_other_values_are_not_put_into_texts() -> None:
    with pytest.raises(InputError, match="cannot be put into a text"):
        evaluate(Interpolation(("<", Reference("s"))), {"s": [1]})


@pytest.mark.parametrize(
    "path",
    [("nope",), ("__class__",), ("_private",), ("method",), (0,), ("metadata", "nope")],
)
def test_only_data_can_be_reached(path: tuple[str | int, ...]) -> None:
    class Thing:
        _private = 1
        metadata: dict[str, int] = {}  # noqa: RUF012 - a stand-in

        def method(self) -> None: ...

    with pytest.raises(InputError, match="does not exist"):
        evaluate(Reference("s", path), {"s": Thing()})


@pytest.mark.parametrize(
    ("value", "path"), [("text", (0,)), ([1], (1,)), ([1], ("a",)), ({}, ("a",))]
)
def test_a_path_that_is_not_there_is_the_callers_error(
    value: Any, path: tuple[str | int, ...]
) -> None:
    with pytest.raises(InputError, match="does not exist"):
        evaluate(Reference("s", path), {"s": value})


@pytest.mark.parametrize(
    "value", [object(), float("nan"), float("inf"), {1: 2}, b"x", 2**63, "\ud800", {"\ud800": 1}]
)
def test_what_is_not_plain_is_no_constant(value: object) -> None:
    with pytest.raises(GraphError):
        literal(value)


def test_constants_are_bounded_in_depth() -> None:
    value: Any = 1
    for _ in range(100_000):
        value = [value]
    with pytest.raises(GraphError, match="levels"):
        literal(value)


def test_containers_of_constants_are_constants_in_one_order() -> None:
    assert container({"b": Literal(1), "a": Literal([2])}) == Literal({"a": [2], "b": 1})
    assert list(literal({"b": 1, "a": 2}).value) == ["a", "b"]
    mixed = container({"b": Reference("s"), "a": Literal(1)})
    assert mixed == Fields((("a", Literal(1)), ("b", Reference("s"))))
    assert list(references(mixed)) == [Reference("s")]


@given(refs)
def test_bindings_survive_the_wire(reference: Reference) -> None:
    binding: Binding = Items((reference, Fields((("a", Interpolation(("x", reference))),))))
    assert msgspec.json.decode(msgspec.json.encode(binding), type=Binding) == binding
