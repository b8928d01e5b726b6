from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adjoin.dag import datatypes as dt
from adjoin.dag import expression
from adjoin.dag.annotations import parse_type
from adjoin.dag.expression import compute, infer
from adjoin.dag.parser import MAX_SOURCE, parse
from adjoin.dag.syntax import (
    Binary,
    Call,
    Choice,
    Constant,
    Index,
    ListOf,
    Name,
    Node,
    Part,
    Unary,
    text_of,
)
from adjoin.errors import GraphError, InputError
from adjoin.types import Passage

integers = st.integers(-(2**62), 2**62).map(Constant)
leaves = (
    integers
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=4).map(Constant)
    | st.sampled_from([Constant(None), Constant(True), Constant(0.5), Constant(1e300)])
    | st.sampled_from("abc").map(Name)
)


def grown(parts: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    named = st.builds(
        Part, st.sampled_from("abc").map(Name), st.sampled_from(["x", "in", "a b", 3])
    )
    return (
        named
        | st.builds(
            Binary, st.sampled_from(["||", "&&", "==", "<", "in", "+", "-", "*"]), parts, parts
        )
        | st.builds(Unary, st.just("!"), parts)
        | st.builds(Choice, parts, parts, parts)
        | st.builds(Index, named, st.sampled_from("abc").map(Name))
        | st.lists(parts, max_size=2).map(lambda items: ListOf(tuple(items)))
        | st.builds(lambda of, body: Call("map", (Name("x"), body), of), named, leaves)
        | st.builds(lambda of: Call("size", (of,)), parts)
    )


@given(st.recursive(leaves, grown, max_leaves=8))
def test_a_tree_survives_writing_and_is_cel(node: Node) -> None:
    text = text_of(node)
    assert parse(text) == (node, len(text))
    cel.compile(text)


numbers = st.recursive(
    st.integers(-9, 9).map(Constant),
    lambda parts: (
        st.builds(Binary, st.sampled_from("+-*"), parts, parts)
        | st.builds(
            Choice, st.builds(Binary, st.sampled_from(["<", "=="]), parts, parts), parts, parts
        )
    ),
    max_leaves=8,
)


def by_hand(node: Node) -> Any:
    match node:
        case Constant(value):
            return value
        case Choice(condition, yes, no):
            return by_hand(yes) if by_hand(condition) else by_hand(no)
        case Binary(sign, left, right):
            one, two = by_hand(left), by_hand(right)
            by_sign = {"+": one + two, "-": one - two, "*": one * two, "<": one < two}
            return by_sign.get(sign, one == two)
    raise AssertionError


@given(numbers)
def test_the_implementation_reads_the_text_as_the_same_tree(node: Node) -> None:
    assert compute(text_of(node), {}) == by_hand(node)


SCOPE: Mapping[str, Any] = {
    "inputs": {"n": 3, "name": "h\u00e9"},
    "found": [Passage(id="1", text="a", score=0.25, metadata={"page": 2})],
    "parts": ["a", "b", "c"],
    "gone": None,
    "vector": np.zeros(3, dtype=np.float32),
    "mixed": {"done": True, "vector": np.zeros(3), "inner": {"a": [1, 2]}},
}


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("found[0].score < 0.4", True),
        ("found[0].score < 1", True),
        ("found[0].metadata.page + 1", 3),
        ("found.map(p, p.text)", ["a"]),
        ("size(parts) > 2 && inputs.n == 3", True),
        ("size(inputs.name)", 2),
        ("parts.size()", 3),
        ("parts.filter(p, p != 'b')", ["a", "c"]),
        ("parts.exists(p, p == inputs.name)", False),
        ("gone == null", True),
        ("gone == null || gone.x > 1", True),
        ("gone == null ? 'none' : gone.x", "none"),
        ("has(mixed.inner.b)", False),
        ("has(mixed.done)", True),
        ("mixed.done", True),
        ("mixed.inner.a[1]", 2),
        ("'b' in parts", True),
        ("inputs.name.startsWith('h')", True),
        ("{'a': inputs.n, 'b': [1, 2]}", {"a": 3, "b": [1, 2]}),
        ("-inputs.n", -3),
        ("7 / 2", 3),
        ("double(inputs.n) / 2.0", 1.5),
        ("string(inputs.n) + '!'", "3!"),
        ("parts[inputs.n - 1]", "c"),
    ],
)
def test_expressions_are_computed(source: str, value: Any) -> None:
    expression.check(source)
    assert compute(source, SCOPE) == value


def test_structures_are_maps() -> None:
    @dataclass
    class Point:
        x: int
        _hidden: int = 0

    assert compute("p.x", {"p": Point(3)}) == 3
    assert compute("p", {"p": Point(3)}) == {"x": 3}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("gone < 1", "does not take these values"),
        ("gone.x > 1", "does not take these values"),
        ("mixed.nope", "there is no 'nope'"),
        ("found[3].score > 0.1", "out of bounds"),
        ("inputs.n / 0", "division by zero"),
        ("1.0 / 0.0", "not a finite number"),
        ("9223372036854775807 + inputs.n", "verflow"),
        ("vector == null", "ndarray; compute with it in a function"),
        ("mixed.vector[0] > 0.0", "ndarray; compute with it in a function"),
        ("inputs.n + 0.5", "does not take these values"),
        ("int(inputs.name)", "int"),
    ],
)
def test_what_has_no_value_is_the_callers_error(source: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        compute(source, SCOPE)
    assert source in str(caught.value) and caught.value.hint


@pytest.mark.parametrize(
    ("source", "length", "fits"),
    [
        ("size(l) > 0", 10_000, True),
        ("size(l) > 0", 10_001, False),
        ("l.exists(x, x < 0)", 1_000, True),
        ("l.exists(x, x < 0)", 1_001, False),
        ("l.all(x, l.exists(y, y == x))", 100, True),
        ("l.all(x, l.exists(y, y == x))", 101, False),
    ],
)
def test_lists_are_bounded(source: str, length: int, fits: bool) -> None:
    values = {"l": list(range(length))}
    if fits:
        assert isinstance(compute(source, values), bool)
    else:
        with pytest.raises(InputError, match=f"a list has {length} items"):
            compute(source, values)


def test_values_are_bounded() -> None:
    deep: Any = 1
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(InputError, match="levels"):
        compute("size(d)", {"d": deep})
    with pytest.raises(InputError, match="values"):
        compute("size(d)", {"d": [[0] * 1000] * 1000})
    with pytest.raises(InputError, match="characters"):
        compute("d == 'a'", {"d": "a" * 2_000_000})
    with pytest.raises(InputError, match="64 bits"):
        compute("d > 1", {"d": 2**64})


def test_the_most_work_that_bounds_allow_is_soon_done() -> None:
    started = time.perf_counter()
    compute("l.map(x, {'a': x})", {"l": list(range(1000))})
    compute("l.map(x, l.map(y, {'a': y}))", {"l": list(range(100))})
    assert time.perf_counter() - started < 10


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", "expected a value"),
        ("1 +", "expected a value"),
        ("(1", r"expected '\)' before the end"),
        ("a b", "'b' is left"),
        ("a.b(1)", "no function 'b'"),
        ("sizes(a)", "no function 'sizes'"),
        ("size(a, b)", "takes 1 values, got 2"),
        ("matches(a, 'x')", "no function 'matches'"),
        ("a.map(1, 2)", r"write list.map\(x"),
        ("(a + a).map(x, x)", "a computed list"),
        ("a.map(x, a.map(y, a.map(z, z)))", "more than 2 loops"),
        ("has(a)", r"write has\(value.field\)"),
        ("a[-1]", "counts from the start"),
        ("a.in", "the word 'in'"),
        ("for", "the word 'for'"),
        ("99999999999999999999", "too large"),
        ("1e999", "too large"),
        (r"'\x'", "expected a value"),
        (r'"\q"', "not a quoted text"),
        (r'"\ud800"', "lone surrogate"),
        ("1u", "expected a value"),
        ("a.?b", "expected a name"),
        ("(" * 40 + "1" + ")" * 40, "levels deep"),
        ("!" * 2000 + "a", "levels deep"),
        ("[" * 2000, "levels deep"),
        ("true ? 1 : " * 300 + "1", "levels deep"),
        ("1" + "+ 1" * 1000, "in a row"),
        ("a" + ".b" * 1000, "in a row"),
        ("a == '" + "x" * MAX_SOURCE + "'", "at most 4096 characters"),
    ],
)
def test_what_is_no_expression(source: str, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        expression.check(source)


TYPES = {
    "inputs": dt.record({"n": dt.INTEGER, "maybe": parse_type("string | null")}),
    "found": parse_type("list[Passage]"),
    "open": dt.ANY,
    "score": dt.NUMBER,
}


@pytest.mark.parametrize(
    ("source", "type"),
    [
        ("found[0].score < 0.4", "boolean"),
        ("size(found)", "integer"),
        ("inputs.n + 1", "integer"),
        ("double(inputs.n) * score", "number"),
        ("found[0].text + '!'", "string"),
        ("inputs.maybe == null ? '' : inputs.maybe", "null | string"),
        ("inputs.n > 1 ? 'a' : 2", "integer | string"),
        ("found.map(p, p.text)", "list[string]"),
        ("found.filter(p, p.score > 0.5)", "list[Passage]"),
        ("found.map(p, p.text)[inputs.n]", "string"),
        ("[1] + [2]", "list[integer]"),
        ("{'a': 1}", "dict[string, integer]"),
        ("open.x.y", "any"),
        ("open + 1", "any"),
        ("!open", "boolean"),
        ("has(found[0].nope)", "boolean"),
        ("inputs.maybe.contains('x')", "boolean"),
    ],
)
def test_types_are_inferred(source: str, type: str) -> None:
    assert infer(source, TYPES) == parse_type(type)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("found[0].scor > 1", "Passage has no field 'scor'"),
        ("found.map(p, p.txt)", "Passage has no field 'txt'"),
        ("inputs.maybe + 1", r"string \+ integer"),
        ("found[0].text < 1", "string < integer"),
        ("inputs.n + score", r"integer \+ number cannot be computed: convert"),
        ("-found[0].text", "- string"),
        ("!score", "! number"),
        ("found && open", r"list\[Passage\] && any"),
    ],
)
def test_what_no_value_can_do_is_refused(source: str, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        infer(source, TYPES)


def test_it_knows_what_it_refers_to() -> None:
    found = set(expression.paths("a.b[0] > 1 && a.c[d].e == c.map(x, x + f.g)[0] || has(h.i)"))
    assert found == {
        ("a", ("b", 0)),
        ("a", ("c",)),
        ("d", ()),
        ("c", ()),
        ("f", ("g",)),
        ("h", ("i",)),
    }
