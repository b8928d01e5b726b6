from __future__ import annotations

from typing import Any

import adjoin
from adjoin import functions as fn
from adjoin.dag import Graph, Literal
from adjoin.errors import EngineError, to_wire
from adjoin.evaluation.equivalence import differences, greedy
from adjoin.evaluation.results import Record


@adjoin.workflow
def inner(question: str, heat: float = 0.5):  # type: ignore[no-untyped-def]
    first = fn.generate(question, model="m", temperature=heat)
    return fn.generate(first, model="m")


@adjoin.workflow
def outer(question: str):  # type: ignore[no-untyped-def]
    return fn.generate(inner(question), model="m", temperature=0.8, n=3)


def temperatures(graph: Graph) -> list[Any]:
    found: list[Any] = []
    for stage in graph.stages:
        if stage.function.graph is not None:
            found += temperatures(stage.function.graph)
        else:
            found.append(stage.bindings.get("temperature", Literal(0.0)))
    return found


def test_every_generation_becomes_greedy_also_within_workflows() -> None:
    cold, changed = greedy(outer.graph)
    assert changed == ["inner/first", "generate"]
    assert temperatures(cold) == [Literal(0.0)] * 3
    assert cold.version != outer.graph.version
    assert Literal(0.8) in temperatures(outer.graph), "the workflow itself is as it was"
    # It is still a workflow, also for those who get it by wire.
    again = adjoin.dag.from_wire(
        cold.to_wire(),
        lambda ref, _: next(each for each in cold.functions if each.ref == ref),
    )
    assert again == cold


def test_what_is_greedy_stays_the_same() -> None:
    cold, _ = greedy(outer.graph)
    again, changed = greedy(cold)
    assert (again, changed) == (cold, [])


def record(line: int, output: dict[str, Any] | None) -> Record:
    error = None if output is not None else to_wire(EngineError("died"))
    return Record(
        workflow="w", version="v", side="a", line=line, key="k", inputs={}, output=output,
        error=error,
    )  # fmt: skip


def passage(id: str, score: float) -> dict[str, Any]:
    return {"id": id, "text": "t", "source": "s", "score": score, "metadata": {}}


def compared(one: dict[str, Any] | None, other: dict[str, Any] | None) -> list[tuple[str, ...]]:
    found = differences([record(4, one)], [record(4, other)])
    assert all(each.line == 4 for each in found)
    return [(each.what, each.naive, each.optimised) for each in found]


def test_what_is_the_same() -> None:
    assert compared({"a": "x", "n": [1, 2]}, {"n": [1, 2], "a": "x"}) == []
    near, far = [passage("p", 0.5), passage("q", 0.4)], [passage("p", 0.50001), passage("q", 0.4)]
    assert compared({"s": near}, {"s": far}) == []
    assert compared(None, None) == []


def test_what_differs() -> None:
    assert compared({"a": "x"}, {"a": "x "}) == [("output 'a'", "x", "x ")]
    assert compared({"a": "x"}, {"a": "x", "b": 1}) == [("output 'b'", "null", "1")]
    assert compared({"a": 1.0}, {"a": 1.0000000001}) == [("output 'a'", "1.0", "1.0000000001")]
    one, other = [passage("p", 0.5), passage("q", 0.4)], [passage("q", 0.5), passage("p", 0.4)]
    assert compared({"s": one}, {"s": other}) == [("output 's'", '["p", "q"]', '["q", "p"]')]
    assert compared(None, {"a": "x"}) == [("the run", "failed: died", "succeeded")]


def test_long_texts_are_shown_where_they_part() -> None:
    same = "word " * 100
    ((_, one, other),) = compared({"a": f"{same}left"}, {"a": f"{same}right"})
    assert one.endswith("word left")
    assert other.endswith("word right")
    assert max(len(one), len(other)) <= 61
