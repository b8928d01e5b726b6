"""Does what makes runs fast change what they answer? The naive plan, and what differs from it.

With the naive plan one worker runs one run at a time, a replica has one sequence at a time, and
nothing that was computed for one request is used for another.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec

from adjoin.dag import Graph, Literal, Stage, as_function
from adjoin.evaluation.results import Record
from adjoin.types import Passage

#: Settings of the naive plan; its runs are one after another.
NAIVE: Mapping[str, Any] = MappingProxyType(
    {"workers": 1, "replica_sequences": 1, "prefix_caching": False}
)
_SHOWN = 60


def greedy(graph: Graph) -> tuple[Graph, list[str]]:
    """The workflow with temperature 0 in all its generations, and which stages that changed."""
    changed: list[str] = []
    stages = []
    for stage in graph.stages:
        cold, names = _greedy_stage(stage)
        stages.append(cold)
        changed += names
    return dataclasses.replace(graph, stages=tuple(stages)), changed


def _greedy_stage(stage: Stage) -> tuple[Stage, list[str]]:
    if (inner := stage.function.graph) is not None:
        cold, names = greedy(inner)
        if not names:
            return stage, []
        function = as_function(cold, stage.function.name)
        below = [f"{stage.id}/{name}" for name in names]
        return dataclasses.replace(stage, function=function), below
    bound = stage.bindings.get("temperature")
    if stage.function.ref != "generate" or bound is None or bound == Literal(0):
        return stage, []
    bindings = {**stage.bindings, "temperature": Literal(0.0)}
    return dataclasses.replace(stage, bindings=bindings), [stage.id]


class Difference(NamedTuple):
    """Where two runs of one question differ; both sides as short texts around the first place."""

    line: int
    what: str
    naive: str
    optimised: str


def differences(naive: Sequence[Record], optimised: Sequence[Record]) -> list[Difference]:
    """Of both plans, in the order of the questions; one for each output that is not the same.

    Texts, numbers and data are the same when they are equal, passages when they are the same ones
    in the same order. A run that failed with one plan only is a difference; what failed with both
    has nothing to compare.
    """
    return [
        difference
        for one, other in zip(naive, optimised, strict=True)
        for difference in _compared(one, other)
    ]


def _compared(naive: Record, optimised: Record) -> list[Difference]:
    if naive.output is None and optimised.output is None:
        return []
    if naive.output is None or optimised.output is None:
        sides = (_outcome(naive), _outcome(optimised))
        return [Difference(naive.line, "the run", *sides)]
    names = dict.fromkeys([*naive.output, *optimised.output])
    pairs = [(name, naive.output.get(name), optimised.output.get(name)) for name in names]
    return [
        Difference(naive.line, f"output {name!r}", *_around(_text(one), _text(other)))
        for name, one, other in pairs
        if _text(one) != _text(other)
    ]


def _outcome(record: Record) -> str:
    if record.error is None:
        return "succeeded"
    return f"failed: {str(record.error.get('message', ''))[:_SHOWN]}"


def _text(value: Any) -> str:
    """What is compared: of passages which they are, not how near they are to the last bit."""
    if isinstance(value, str):
        return value
    try:
        passages = msgspec.convert(value, list[Passage])
    except msgspec.ValidationError:
        return json.dumps(value, ensure_ascii=False, sort_keys=True)
    return json.dumps([passage.id for passage in passages])


def _around(one: str, other: str) -> tuple[str, str]:
    """Both from a little before they part."""
    pairs = enumerate(itertools.zip_longest(one, other))
    at = next(at for at, (left, right) in pairs if left != right)
    start = max(0, at - _SHOWN // 2)
    lead = "…" if start else ""
    return f"{lead}{one[start : start + _SHOWN]}", f"{lead}{other[start : start + _SHOWN]}"
