"""A plan made readable: tables, pictures, and what it would cost elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec

from adjoin.dag import Graph
from adjoin.dag.diagram import Arrow, Box, Diagram, diagram
from adjoin.dag.mermaid import draw as draw_mermaid
from adjoin.dag.names import suggest
from adjoin.dag.svg import draw as draw_svg
from adjoin.errors import NotFound
from adjoin.runtime.policies.constraints import Constraints
from adjoin.runtime.policies.costs import Costs, Terms
from adjoin.runtime.policies.placement import Edge, Plan, Topology, weigh

#: Fills of workers, one after the other; dark text is readable on each.
_FILLS = ("#dbeafe", "#dcfce7", "#fde8d0", "#ede9fe", "#fce7f3", "#cffafe", "#fef9c3", "#e5e7eb")
_STAGE = "stage_"
_TERMS = ("compute", "transfer", "state", "cold")


class Explanation:
    """Where each stage of a graph runs, what carries its inputs, what that costs, and why there."""

    def __init__(
        self, graph: Graph, plan: Plan, topology: Topology, costs: Costs | None = None
    ) -> None:
        self.graph = graph
        self.plan = plan
        self.topology = topology
        self.costs = costs or Costs()

    def why_not(self, worker: str, stage: str | None = None) -> Alternative:
        """What it would cost to have one stage, or all of them, on another worker.

        Raises:
            NotFound: there is no such worker or stage.
        """
        if self.topology.worker(worker) is None:
            names = [each.name for each in self.topology.workers]
            raise NotFound(f"there is no worker {worker!r}", hint=suggest(worker, names))
        moved = (
            [each.id for each in self.graph.stages]
            if stage is None
            else [self.graph.stage(stage).id]
        )
        placement = self.plan.placement | dict.fromkeys(moved, worker)
        other = weigh(self.graph, self.topology, placement, self.costs)
        # the plan's costs may have been learned further since it was made
        planned = weigh(self.graph, self.topology, self.plan.placement, self.costs)
        stages = [each.id for each in self.graph.stages]
        number = {each.name: at for at, each in enumerate(self.topology.workers)}
        rules = Constraints(self.graph, stages, self.topology.workers)
        allowed = rules.hold([number[placement[each]] for each in stages])
        return Alternative(worker, tuple(moved), planned, other, allowed)

    def to_dict(self) -> dict[str, Any]:
        """Plain data: stages with worker, segment, costs in seconds, inputs and reason."""
        segment_of = {
            stage: number
            for number, segment in enumerate(self.plan.segments)
            for stage in segment.stages
        }
        into: dict[str, list[Edge]] = {}
        for edge in self.plan.edges:
            into.setdefault(edge.target, []).append(edge)
        return {
            "workflow": self.graph.name,
            "version": self.graph.version,
            "epoch": self.plan.epoch,
            "seconds": self.plan.seconds,
            "critical": list(self.plan.critical),
            "workers": {worker.name: worker.address for worker in self.topology.workers},
            "stages": [
                {
                    "stage": stage.id,
                    "function": stage.function.name,
                    "worker": self.plan.placement[stage.id],
                    "segment": segment_of[stage.id],
                    "model": stage.model,
                    "collection": stage.collection,
                    "inputs": {edge.source: edge.transport for edge in into.get(stage.id, ())},
                    "streams": sorted(
                        e.source
                        for e in into.get(stage.id, ())
                        if self.graph.reads(stage.id, e.source)
                    ),
                    "edges": [
                        {"from": e.source, "bytes": e.nbytes, "seconds": e.seconds}
                        for e in into.get(stage.id, ())
                    ],
                    "seconds": msgspec.to_builtins(self._terms(stage.id)),
                    "critical": stage.id in self.plan.critical,
                    "why": self.plan.reasons[stage.id],
                }
                for stage in self.graph.stages
            ],
        }

    def to_mermaid(self) -> str:
        """The graph, stages coloured by worker, edges with transport, size and seconds."""
        return draw_mermaid(self._diagram())

    def to_svg(self) -> str:
        """The same as an SVG picture that stands alone."""
        return draw_svg(self._diagram(), f"Plan of {self.graph.name}")

    def _diagram(self) -> Diagram:
        plain = diagram(self.graph)
        edges = {(edge.source, edge.target): edge for edge in self.plan.edges}
        return Diagram(
            tuple(map(self._box, plain.boxes)),
            tuple(self._arrow(arrow, edges) for arrow in plain.arrows),
        )

    def _box(self, box: Box) -> Box:
        if not box.key.startswith(_STAGE):
            return box
        stage = box.key.removeprefix(_STAGE)
        worker = self.plan.placement[stage]
        names = sorted({segment.worker for segment in self.plan.segments})
        mark = " ●" if stage in self.plan.critical else ""
        cost = f"{worker} · {seconds_text(self._terms(stage).total)}{mark}"
        fill = _FILLS[names.index(worker) % len(_FILLS)]
        return replace(box, notes=(*box.notes, cost), fill=fill)

    def _arrow(self, arrow: Arrow, edges: dict[tuple[str, str], Edge]) -> Arrow:
        ends = (arrow.source.removeprefix(_STAGE), arrow.target.removeprefix(_STAGE))
        edge = edges.get(ends)
        if edge is None:
            return arrow
        label = edge.transport
        if self.graph.reads(ends[1], ends[0]):
            label += " stream"
        if edge.transport != "local":
            label += f" {edge.nbytes:,} B {seconds_text(edge.seconds)}"
        return replace(arrow, label=label)

    def _terms(self, stage: str) -> Terms:
        return self.plan.terms.get(stage, Terms())

    def __str__(self) -> str:
        """A table: stage, function, worker, segment, inputs, state, predicted seconds, why."""
        rows = [
            ("stage", "function", "worker", "segment", "inputs", "state", "predicted", "why"),
        ]
        for stage in self.to_dict()["stages"]:
            state = [
                *([f"model {stage['model']}"] if stage["model"] else []),
                *([f"collection {stage['collection']}"] if stage["collection"] else []),
            ]
            inputs = [
                f"{source} ({how}{', stream' if source in stage['streams'] else ''})"
                for source, how in stage["inputs"].items()
            ]
            rows.append(
                (
                    stage["stage"],
                    stage["function"],
                    stage["worker"],
                    str(stage["segment"]),
                    ", ".join(inputs) or "-",
                    ", ".join(state) or "-",
                    seconds_text(self._terms(stage["stage"]).total),
                    stage["why"],
                )
            )
        path = " → ".join(self.plan.critical)
        return f"{_aligned(rows)}\n\n{seconds_text(self.plan.seconds)} by {path}"


class Alternative(msgspec.Struct, frozen=True):
    """The plan with some stages on another worker, beside the plan as it is.

    Attributes:
        allowed: whether it keeps what the stages demand.
    """

    worker: str
    moved: tuple[str, ...]
    planned: Plan
    other: Plan
    allowed: bool

    @property
    def seconds(self) -> float:
        """By how much a run would take longer."""
        return self.other.seconds - self.planned.seconds

    def rows(self) -> list[tuple[str, ...]]:
        """For each term the sum over stages as planned, there, and the difference; then latency."""
        rows = []
        for term in _TERMS:
            was, now = (_sum(plan, term) for plan in (self.planned, self.other))
            rows.append((term, seconds_text(was), seconds_text(now), _signed(now - was)))
        was, now = self.planned.seconds, self.other.seconds
        return [*rows, ("latency", seconds_text(was), seconds_text(now), _signed(now - was))]

    def to_dict(self) -> dict[str, Any]:
        """Plain data, in seconds."""
        return {
            "worker": self.worker,
            "moved": list(self.moved),
            "allowed": self.allowed,
            "planned": {
                **{term: _sum(self.planned, term) for term in _TERMS},
                "latency": self.planned.seconds,
            },
            "there": {
                **{term: _sum(self.other, term) for term in _TERMS},
                "latency": self.other.seconds,
            },
            "difference": self.seconds,
        }

    def verdict(self) -> str:
        """One sentence."""
        what = "every stage" if len(self.moved) != 1 else f"stage {self.moved[0]!r}"
        if not self.allowed:
            return f"{what} on {self.worker} breaks what stages demand (resources, colocate, avoid)"
        if all(self.planned.placement[stage] == self.worker for stage in self.moved):
            return f"{what} is planned on {self.worker}"
        if abs(self.seconds) < 5e-7:
            more = len(self.other.segments) - len(self.planned.segments)
            why = f"{more} more segments" if more > 0 else "the plan's choice is by its hash"
            return f"{what} on {self.worker} takes as long; {why}"
        return f"{what} on {self.worker} takes {seconds_text(self.seconds)} longer"

    def __str__(self) -> str:
        return (
            f"{_aligned([('term', 'planned', 'there', 'more'), *self.rows()])}\n\n{self.verdict()}"
        )


def seconds_text(seconds: float) -> str:
    if seconds == 0:
        return "0"
    if abs(seconds) < 0.0995:
        return f"{seconds * 1e3:.2g} ms"
    return f"{seconds:.2f} s"


def _signed(seconds: float) -> str:
    return seconds_text(seconds) if seconds <= 0 else f"+{seconds_text(seconds)}"


def _sum(plan: Plan, term: str) -> float:
    return float(sum(getattr(terms, term) for terms in plan.terms.values()))


def _aligned(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
