"""What one run did, folded from its events: the per-stage table, the answer, the sources."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from adjoin import errors
from adjoin.errors import AdjoinError
from adjoin.types import (
    Event,
    Passage,
    RunCancelled,
    RunCompleted,
    RunFailed,
    RunPlanned,
    RunStarted,
    StageCompleted,
    StageFailed,
    StageSkipped,
    StageStarted,
    Usage,
    Used,
)

if TYPE_CHECKING:
    from adjoin.dag import Graph

#: The columns of the table; all but the first four are counts of tokens or seconds.
COLUMNS = (
    "stage", "function", "model", "where", "predicted", "seconds",
    "prompt", "cached", "generated", "embedded", "cold start",
)  # fmt: skip
NUMBERS = COLUMNS[4:]
#: Numbers in a place: of an element, ``[3]``, and of an iteration, ``#2``.
_NUMBER = re.compile(r"([\[#])\d+")
_STAGE = re.compile(r"[^\[#/]*")


@dataclass
class StageReport:
    """One stage; ``seconds`` from the start of its last attempt to its end, ``predicted`` when it
    was planned."""

    stage: str
    function: str
    model: str = ""
    where: str = ""
    state: str = "waiting"
    attempt: int = 0
    seconds: float = 0.0
    usage: Usage = field(default_factory=Usage)
    started: float = 0.0
    predicted: float | None = None

    def to_dict(self) -> dict[str, Any]:
        usage = self.usage
        return {
            "stage": self.stage,
            "function": self.function,
            "model": self.model or None,
            "where": self.where,
            "state": self.state,
            "attempt": self.attempt,
            "predicted": None if self.predicted is None else round(self.predicted, 6),
            "seconds": round(self.seconds, 6),
            "prompt": usage.prompt,
            "cached": usage.cached,
            "generated": usage.generated,
            "embedded": usage.embedded,
            "cold_start_seconds": round(usage.cold_start_seconds, 6),
        }

    def cells(self) -> tuple[str, ...]:
        """The stage as a row of :data:`COLUMNS`; what is zero stays empty."""
        where = self.where if self.state == "done" else f"{self.where} ({self.state})".strip()
        name = self.stage if self.attempt <= 1 else f"{self.stage} (attempt {self.attempt})"
        predicted = "" if self.predicted is None else f"{self.predicted:.3f}"
        times = (predicted, f"{self.seconds:.3f}")
        return (name, self.function, self.model, where, *times, *_counts(self.usage))


@dataclass
class CallsReport:
    """The calls below a stage that differ only in numbers: ``solve[*]``, ``tree#*/draft[*]``.

    ``seconds`` in which at least one of them ran.
    """

    place: str
    function: str = ""
    model: str = ""
    where: str = ""
    count: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    usage: Usage = field(default_factory=Usage)
    started: float = 0.0
    running: set[str] = field(default_factory=set)

    def to_dict(self) -> dict[str, Any]:
        return {
            "calls": self.place,
            "function": self.function,
            "model": self.model or None,
            "count": self.count,
            "failed": self.failed,
            "skipped": self.skipped,
            "where": self.where,
            "seconds": round(self.seconds, 6),
            "usage": self.usage,
        }

    def cells(self, around: Sequence[str] = ()) -> tuple[str, ...]:
        """A row, below those of the calls around it; what these say of the place is left out."""
        marks = [f"x{self.count}"]
        marks += [f"{self.failed} failed"] if self.failed else []
        marks += [f"{self.skipped} skipped"] if self.skipped else []
        shown = self.place
        if around:
            within = f"{around[-1]}/"
            inside = shown.startswith(within)  # else further marks: solve[*]#* in solve[*]
            shown = shown.removeprefix(within) if inside else shown.rpartition("/")[2]
        name = f"{'  ' * (len(around) + 1)}{shown} {', '.join(marks)}"
        seconds = f"{self.seconds:.3f}"
        return (name, self.function, self.model, self.where, "", seconds, *_counts(self.usage))

    def add(self, event: Event) -> None:
        match event.body:
            case StageStarted(worker=worker):
                self.where = worker
                self.count += event.attempt == 1
                self.started = self.started if self.running else event.at
                self.running.add(event.stage)
            case StageCompleted(usage=usage):
                self.usage += usage
                self._ended(event)
            case StageFailed(retry=retry):
                self.failed += not retry
                self._ended(event)
            case StageSkipped():
                self.skipped += 1

    def _ended(self, event: Event) -> None:
        if event.stage in self.running:
            self.running.remove(event.stage)
            self.seconds += 0.0 if self.running else event.at - self.started


class RunReport:
    """Feed it every event of a run, in order."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.run = ""
        self.outputs: dict[str, Any] = {}
        self.usage = Usage()
        self.seconds = 0.0
        self.predicted = 0.0
        self.error: AdjoinError | None = None
        self.calls: dict[str, CallsReport] = {}
        self.stages = {
            stage.id: StageReport(stage.id, stage.function.name, stage.model or "")
            for stage in graph.stages
        }

    def add(self, event: Event) -> None:
        self.run = event.run
        self.seconds = max(self.seconds, event.at)
        if event.stage in self.stages:
            self._add_stage(self.stages[event.stage], event)
            return
        if event.stage:
            place = _NUMBER.sub(r"\1*", event.stage)
            if place not in self.calls:
                self.calls[place] = CallsReport(place, *_called(self.graph, place))
            self.calls[place].add(event)
            return
        match event.body:
            case RunStarted():
                pass
            case RunPlanned(placement=placement, predicted=predicted, seconds=seconds):
                self.predicted = self.predicted or seconds
                for stage, worker in placement.items():
                    self.stages[stage].where = worker
                    self.stages[stage].predicted = predicted.get(stage)
            case RunCompleted(outputs=outputs, usage=usage, seconds=seconds):
                self.outputs, self.usage, self.seconds = outputs, usage, seconds
            case RunFailed(error=error):
                self.error = errors.from_wire(error)
            case RunCancelled(reason=reason):
                self.error = errors.Cancelled(reason or "cancelled")

    def _add_stage(self, stage: StageReport, event: Event) -> None:
        stage.attempt = max(stage.attempt, event.attempt)
        match event.body:
            case StageStarted(worker=worker):
                stage.where, stage.state = worker, "running"
                stage.started, stage.usage = event.at, Usage()
            case Used(usage=usage):
                stage.usage += usage
            case StageCompleted(worker=worker, usage=usage):
                stage.where, stage.state, stage.usage = worker, "done", usage
                stage.seconds = event.at - stage.started
            case StageSkipped():
                stage.state = "skipped"
            case StageFailed():
                stage.state = "failed"
                stage.seconds = event.at - stage.started

    def rows(self) -> list[tuple[str, ...]]:
        """The table: a row for each stage, rows for the calls below it, and the sum of stages."""
        rows: list[tuple[str, ...]] = []
        for stage in self.stages.values():
            rows.append(stage.cells())
            rows += [calls.cells(around) for around, calls in self.calls_of(stage.stage)]
        predicted = f"{self.predicted:.3f}" if self.predicted else ""
        total = ("total", "", "", "", predicted, f"{self.seconds:.3f}", *_counts(self.usage))
        return [*rows, total]

    def calls_of(self, stage: str) -> list[tuple[list[str], CallsReport]]:
        """The calls below a stage, after those that they are part of, whose places are given."""
        order = {place: at for at, place in enumerate(self.calls)}
        around = {place: _around(place, order) for place in order if _root(place) == stage}
        places = sorted(around, key=lambda place: [order[each] for each in (*around[place], place)])
        return [(around[place], self.calls[place]) for place in places]

    def to_dict(self) -> dict[str, Any]:
        return {
            "run": self.run,
            "workflow": self.graph.name,
            "version": self.graph.version,
            "outputs": self.outputs,
            "predicted": round(self.predicted, 6),
            "seconds": round(self.seconds, 6),
            "usage": self.usage,
            "stages": [stage.to_dict() for stage in self.stages.values()],
            "calls": [calls.to_dict() for calls in self.calls.values()],
        }


def _root(place: str) -> str:
    return _STAGE.match(place)[0]  # type: ignore[index]


def _around(place: str, known: Iterable[str]) -> list[str]:
    """The places that this one is part of, from the outermost."""
    parts = [each for each in known if place.startswith((f"{each}/", f"{each}#", f"{each}["))]
    return sorted(parts, key=len)


def _called(graph: Graph, place: str) -> tuple[str, str]:
    """The function and the model of a stage within a nested workflow, by its place."""
    *outer, last = map(_root, place.split("/"))
    within: Graph | None = graph
    for stage in outer:
        within = within.stage(stage).function.graph if within else None
    if within is None or not outer:
        return "", ""  # the row of the stage itself says it
    found = within.stage(last)
    return found.function.name, found.model or ""


def texts_and_passages(
    outputs: Mapping[str, Any],
) -> tuple[dict[str, Any], list[Passage]]:
    """Outputs to print as they are, and the passages among them, each once."""
    rest: dict[str, Any] = {}
    found: dict[str, Passage] = {}
    for name, value in outputs.items():
        if isinstance(value, list | tuple) and value and isinstance(value[0], Passage):
            found |= {passage.id: passage for passage in value}
        else:
            rest[name] = value
    return rest, list(found.values())


def embedding_of(graph: Graph, collection: str) -> str | None:
    """The embedding model whose vectors the workflow searches ``collection`` with."""
    for stage in graph.stages:
        if stage.collection != collection:
            continue
        waiting, seen = [stage.id], {stage.id}
        while waiting:
            current = graph.stage(waiting.pop(0))
            if current.function.ref == "embed" and current.model:
                spec = graph.models.get(current.model)
                return spec.source if spec is not None else current.model
            fresh = sorted(graph.dependencies(current.id) - seen)
            waiting += fresh
            seen |= set(fresh)
    return None


def _counts(usage: Usage) -> tuple[str, ...]:
    numbers = (usage.prompt, usage.cached, usage.generated, usage.embedded)
    cold = f"{usage.cold_start_seconds:.1f}" if usage.cold_start_seconds else ""
    return (*(f"{number:,}" if number else "" for number in numbers), cold)
