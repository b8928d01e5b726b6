"""Random workflows with every construct, on a few functions on numbers that can be called."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import cel  # noqa: F401 - its import draws random numbers, which a strategy must not
from hypothesis import strategies as st

from adjoin import dag
from adjoin.dag import (
    Each,
    Expression,
    Function,
    Graph,
    Policy,
    Reference,
    Repeat,
    Stage,
    as_function,
)
from adjoin.dag import Literal as Constant
from adjoin.dag.binding import Binding, container
from adjoin.dag.datatypes import INTEGER
from adjoin.dag.parameter import Parameter


def add(x: int, y: int = 1) -> int:
    return (x + y) % 1000


def either(x: int | None = None, y: int | None = None) -> int:
    """Takes what was skipped as null."""
    return next((value for value in (x, y) if value is not None), -1)


def spread(x: int) -> list[int]:
    return [x + index for index in range(x % 4)]


def total(items: list[Any]) -> int:
    """Counts errors and nulls as 1."""
    return sum(item if isinstance(item, int) else 1 for item in items) % 1000


def odd(x: int) -> bool:
    return x % 2 == 1


def fragile(x: int) -> int:
    if x % 5 == 0:
        raise ValueError(f"{x} is a multiple of five")
    return x


ADD, EITHER, SPREAD = dag.builtin(add), dag.builtin(either), dag.builtin(spread)
TOTAL, ODD, FRAGILE = dag.builtin(total), dag.builtin(odd), dag.builtin(fragile)
REGISTRY: Mapping[str, Function] = {
    each.ref: each for each in (ADD, EITHER, SPREAD, TOTAL, ODD, FRAGILE)
}


def call(function: Function, arguments: dict[str, Any]) -> Any:
    """What an interpreter computes a function with."""
    if function.call is None:
        raise ValueError(f"{function.name} has no callable")
    return function.call(**arguments)


def resolve(ref: str, digest: str) -> Function:
    return REGISTRY[ref]


#: ``items`` are not all integers.
Kind: TypeAlias = Literal["integer", "list", "items", "boolean"]


@dataclass(frozen=True)
class _Source:
    """Something that a later stage may take."""

    kind: Kind
    reference: Reference


@st.composite
def graphs(draw: st.DrawFn, depth: int = 2, fragile: bool = True) -> Graph:
    """A workflow of an integer ``x``; nested up to ``depth`` levels below.

    Its outputs are ``x``, an integer, ``done``, a boolean, and what else nothing takes.
    """
    sources = [_Source("integer", Reference("inputs", ("x",)))]
    stages: list[Stage] = []
    for number in range(draw(st.integers(1, 5))):
        stage = draw(_stages(f"s{number}", sources, depth, fragile))
        stages.append(stage)
        sources.append(_source(stage))
    value = draw(st.sampled_from([each for each in sources if each.kind == "integer"]))
    stages.append(Stage("last", EITHER, {"x": value.reference}, Policy()))
    outputs: dict[str, Binding] = {
        "x": Reference("last"),
        "done": Expression(f"last > {draw(st.integers(-1, 40))}"),
    }
    used = {"last"} | {root for stage in stages for root in stage.roots}
    outputs |= {each.id: Reference(each.id) for each in stages if each.id not in used}
    found = dag.build("w", inputs=[Parameter("x", INTEGER)], stages=stages, outputs=outputs)
    return replace(found, name=f"w{found.version[:12]}")


def _source(stage: Stage) -> _Source:
    reference = Reference(stage.id)
    if stage.each is not None:
        plain = stage.each.on_error != "collect" and stage.function.returns == INTEGER
        return _Source("list" if plain else "items", reference)
    if stage.function.graph is not None:
        return _Source("integer", Reference(stage.id, ("x",)))
    kinds: dict[str, Kind] = {"spread": "list", "odd": "boolean"}
    return _Source(kinds.get(stage.function.ref, "integer"), reference)


@st.composite
def _stages(draw: st.DrawFn, id: str, sources: list[_Source], depth: int, fragile: bool) -> Stage:
    integers = [each.reference for each in sources if each.kind == "integer"]
    lists = [each.reference for each in sources if each.kind == "list"]
    items = [*lists, *(each.reference for each in sources if each.kind == "items")]
    booleans = [each.reference for each in sources if each.kind == "boolean"]
    fan: Each | None = None
    if draw(st.booleans()):
        options: list[Binding] = [*lists, *integers, Constant(draw(st.integers(0, 3)))]
        over = draw(st.sampled_from(options))
        counts = over not in lists
        if counts and isinstance(over, Reference):
            over = Expression(f"{str(over)[2:-1]} == null ? 1 : {str(over)[2:-1]} % 3")
        fan = Each(
            over,
            counts=counts,
            name="item" if counts else draw(st.sampled_from(["item", "part"])),
            on_error=draw(st.sampled_from(["fail", "skip", "collect"])),
            at_once=draw(st.integers(1, 3)),
        )
    names = [Reference(name) for name in sorted(fan.names if fan is not None else ())]
    operands = st.sampled_from([*integers, *names]).flatmap(_integer)
    function = draw(_functions(depth, fragile))
    repeat: Repeat | None = None
    bindings: dict[str, Binding]
    if function is TOTAL:
        bindings = {"items": container([draw(operands), draw(operands)])}
        if draw(st.booleans()) and items:
            bindings = {"items": draw(st.sampled_from(items))}
    elif function in (ADD, EITHER):
        bindings = {"x": draw(operands), "y": draw(operands)}
    else:
        bindings = {"x": draw(operands)}
    if function in (ADD, FRAGILE) and draw(st.booleans()):
        until = Expression(f"result > {draw(st.integers(0, 30))} || iteration > 2")
        repeat = Repeat(until, draw(st.integers(1, 4)), carry="x")
    if function.graph is not None and draw(st.booleans()):
        repeat = Repeat(Reference("result", ("done",)), draw(st.integers(1, 3)))
    conditions: list[Binding | None] = [None, None, *booleans, *map(_small, integers)]
    when = draw(st.sampled_from(conditions))
    return Stage(id, function, bindings, Policy(), when=when, each=fan, repeat=repeat)


def _integer(reference: Reference) -> st.SearchStrategy[Binding]:
    plain = str(reference)[2:-1]
    computed = Expression(f"{plain} == null ? 0 : ({plain} + 3) % 50")
    return st.sampled_from([reference, reference, computed, Constant(7)])


def _small(reference: Reference) -> Expression:
    plain = str(reference)[2:-1]
    return Expression(f"{plain} != null && {plain} % 2 == 0")


@st.composite
def _functions(draw: st.DrawFn, depth: int, fragile: bool) -> Function:
    if depth > 0 and draw(st.integers(0, 3)) == 0:
        return as_function(draw(graphs(depth=depth - 1, fragile=fragile)))
    return draw(st.sampled_from([each for each in REGISTRY.values() if fragile or each != FRAGILE]))
