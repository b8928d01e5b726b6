"""Which worker runs which stage: the plan with the least predicted latency.

Stages that need a collection run where it is, because opening it elsewhere takes longer than
passing what goes in and out; neighbours share a worker, because a value costs nothing there. Both
follow from the costs, and stop where constraints or measurements say otherwise. Model calls reach
a replica from every worker of its host. Live load is no part of a plan.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec

from adjoin.dag import Graph
from adjoin.runtime.policies.costs import Costs, Terms, estimate
from adjoin.runtime.policies.problem import Problem
from adjoin.runtime.policies.search import search
from adjoin.runtime.policies.topology import Device, Topology, Worker, owner_of

__all__ = ["Device", "Edge", "Plan", "Segment", "Topology", "Worker", "owner_of", "place"]

_NO_COSTS = Costs()


class Segment(msgspec.Struct, frozen=True):
    """Stages that one worker runs over one connection, in topological order."""

    worker: str
    stages: tuple[str, ...]


class Edge(msgspec.Struct, frozen=True):
    """How a value passes: ``local`` by reference, ``shm`` between processes of a host,
    ``cuda_ipc`` between devices of a host, ``remote`` between hosts; predicted size and seconds."""

    source: str
    target: str
    transport: str
    nbytes: int = 0
    seconds: float = 0.0


class Plan(msgspec.Struct, frozen=True):
    """Where the stages of a graph run.

    Attributes:
        version: the graph's.
        epoch: the topology's.
        reasons: for each stage, why it runs where it runs.
        terms: for each stage, its predicted seconds.
        critical: the stages that decide how long a run takes, in order.
        seconds: predicted for a run of usual inputs, from its plan to its last stage.
        costs_epoch: of the costs that it was made with.
    """

    version: str
    epoch: int
    segments: tuple[Segment, ...]
    edges: tuple[Edge, ...]
    reasons: Mapping[str, str]
    terms: Mapping[str, Terms] = {}
    critical: tuple[str, ...] = ()
    seconds: float = 0.0
    costs_epoch: int = 0

    @property
    def placement(self) -> dict[str, str]:
        return {stage: segment.worker for segment in self.segments for stage in segment.stages}


def place(
    graph: Graph,
    topology: Topology,
    pending: Collection[str] | None = None,
    costs: Costs = _NO_COSTS,
) -> Plan:
    """Place the stages of a graph, or only the ``pending`` ones of it.

    ``topology`` must have at least one worker.

    Raises:
        PlanError: no worker is as a stage demands; names the stage and what it demands.
    """
    problem = Problem(graph, topology, costs, estimate(graph, costs), pending)
    return plan_of(problem, search(problem))


def weigh(
    graph: Graph,
    topology: Topology,
    placement: Mapping[str, str],
    costs: Costs = _NO_COSTS,
    inputs: Mapping[str, float] | None = None,
) -> Plan:
    """The plan that has the stages of ``placement`` there, with its costs.

    Args:
        inputs: sizes in bytes, by name; usual ones where none is given.
    """
    works = estimate(graph, costs, inputs)
    problem = Problem(graph, topology, costs, works, placement.keys())
    number = {worker.name: at for at, worker in enumerate(problem.workers)}
    return plan_of(problem, [number[placement[stage]] for stage in problem.stages])


def plan_of(problem: Problem, where: Sequence[int]) -> Plan:
    names = [problem.workers[worker].name for worker in where]
    placement = dict(zip(problem.stages, names, strict=True))
    done = problem.finishes(where)
    return Plan(
        version=problem.graph.version,
        epoch=problem.topology.epoch,
        segments=tuple(_segments(problem.graph, problem.stages, placement)),
        edges=tuple(_edges(problem, where)),
        reasons=_reasons(problem, where),
        terms=dict(zip(problem.stages, problem.terms(where), strict=True)),
        critical=tuple(problem.stages[stage] for stage in problem.critical(where)),
        seconds=max(done, default=0.0),
        costs_epoch=problem.costs.epoch,
    )


def _segments(graph: Graph, stages: Sequence[str], where: Mapping[str, str]) -> Iterable[Segment]:
    """Group by worker and by number of worker changes on the way there.

    Grouping by worker alone could make two segments wait for each other.
    """
    changes: dict[str, int] = {}
    groups: dict[tuple[int, str], list[str]] = {}
    for stage in stages:
        changes[stage] = max(
            (
                changes[before] + (where[before] != where[stage])
                for before in graph.dependencies(stage)
                if before in changes
            ),
            default=0,
        )
        groups.setdefault((changes[stage], where[stage]), []).append(stage)
    return [Segment(worker, tuple(group)) for (_, worker), group in sorted(groups.items())]


def _edges(problem: Problem, where: Sequence[int]) -> Iterable[Edge]:
    for target, there in enumerate(where):
        for source in problem.before[target]:
            yield Edge(
                problem.stages[source],
                problem.stages[target],
                problem.transport(where[source], there),
                round(problem.works[source].bytes_out),
                problem.moving(source, where[source], there),
            )


def _reasons(problem: Problem, where: Sequence[int]) -> dict[str, str]:
    """State and demands first; then, breadth first, the neighbour that it is beside."""
    found: dict[int, str] = {}
    for stage, worker in enumerate(where):
        if reason := _demand(problem, stage) or _state(problem, stage, worker):
            found[stage] = reason
    queue = deque(sorted(found))
    while queue:
        stage = queue.popleft()
        for neighbour in sorted({*problem.before[stage], *problem.after[stage]}):
            if neighbour not in found and where[neighbour] == where[stage]:
                found[neighbour] = f"next to {problem.stages[stage]!r}"
                queue.append(neighbour)
    for stage, worker in enumerate(where):
        if stage not in found:
            found[stage] = _rest(problem, stage, worker)
    return {problem.stages[stage]: found[stage] for stage in range(len(where))}


def _demand(problem: Problem, stage: int) -> str:
    policy = problem.graph.stage(problem.stages[stage]).policy
    if policy.colocate:
        return f"must be with {', '.join(map(repr, policy.colocate))}"
    if policy.resources:
        return f"needs {', '.join(f'{key} {n:g}' for key, n in policy.resources.items())}"
    return f"must not be with {', '.join(map(repr, policy.avoid))}" if policy.avoid else ""


def _state(problem: Problem, stage: int, worker: int) -> str:
    """What is there, and not everywhere."""
    place = problem.workers[worker]
    for name in problem.collections[stage]:
        if name in place.collections or worker == problem.owner(name):
            return f"collection {name!r} is there"
    hosts = problem.topology.loaded
    for model in problem.models[stage]:
        if model in hosts[place.host] and any(model not in there for there in hosts.values()):
            return f"model {model!r} is loaded there"
    return ""


def _rest(problem: Problem, stage: int, worker: int) -> str:
    models = problem.models[stage]
    if models and problem.cold(stage, worker) == 0:
        return f"model {models[0]!r} is loaded there"
    if problem.collections[stage]:
        return "cheaper than where its collection is"
    return "needs no state" if not models else "its model can be loaded there"
