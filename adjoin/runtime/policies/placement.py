"""Which worker runs which stage.

Stages that need a collection run where it is; every other stage runs beside its neighbours; model
calls need no placement, because a replica belongs to the host and any of its workers reaches it.
Stages of one worker form segments: one connection and one message each, however many stages.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec

from adjoin.dag import Graph


class Worker(msgspec.Struct, frozen=True):
    """A worker as the planner sees it. ``collections`` are those it has open."""

    name: str
    address: str
    host: str
    threads: int = 1
    pid: int = 0
    collections: frozenset[str] = frozenset()


class Topology(msgspec.Struct, frozen=True):
    """A snapshot of the cluster; ``epoch`` grows with every change."""

    epoch: int
    workers: tuple[Worker, ...]

    def worker(self, name: str) -> Worker | None:
        return next((worker for worker in self.workers if worker.name == name), None)


class Segment(msgspec.Struct, frozen=True):
    """Stages that one worker runs over one connection, in topological order."""

    worker: str
    stages: tuple[str, ...]


class Edge(msgspec.Struct, frozen=True):
    """How a value passes: ``local`` by reference, ``remote`` over Dask's comm."""

    source: str
    target: str
    transport: str


class Plan(msgspec.Struct, frozen=True):
    """Where the stages of a graph run.

    Attributes:
        version: the graph's.
        epoch: the topology's.
        reasons: for each stage, why it runs where it runs.
    """

    version: str
    epoch: int
    segments: tuple[Segment, ...]
    edges: tuple[Edge, ...]
    reasons: Mapping[str, str]

    @property
    def placement(self) -> dict[str, str]:
        return {stage: segment.worker for segment in self.segments for stage in segment.stages}


def owner_of(collection: str, workers: Sequence[Worker]) -> Worker:
    """The worker that holds a collection, or should.

    One that has it open comes first; otherwise the highest random weight decides (rendezvous
    hashing, Thaler and Ravishankar 1998), so that losing a worker moves only what it held.
    """
    holders = [worker for worker in workers if collection in worker.collections]
    return max(holders or workers, key=lambda worker: (_weight(collection, worker), worker.name))


def place(graph: Graph, topology: Topology, pending: Collection[str] | None = None) -> Plan:
    """Place the stages of a graph, or only the ``pending`` ones of it.

    ``topology`` must have at least one worker. Runs in O(stages + edges).
    """
    stages = [stage.id for stage in graph.stages if pending is None or stage.id in pending]
    where, reasons = _pinned(graph, stages, topology.workers)
    _spread(graph, stages, where, reasons)
    if len(where) < len(stages):
        _loose(graph, stages, topology.workers, where, reasons)
    return Plan(
        version=graph.version,
        epoch=topology.epoch,
        segments=tuple(_segments(graph, stages, where)),
        edges=tuple(_edges(graph, where)),
        reasons=reasons,
    )


def _pinned(
    graph: Graph, stages: Iterable[str], workers: Sequence[Worker]
) -> tuple[dict[str, str], dict[str, str]]:
    where: dict[str, str] = {}
    reasons: dict[str, str] = {}
    for stage in stages:
        # A nested workflow runs in one place; what it finds elsewhere it asks for.
        for collection in sorted(graph.stage(stage).collections)[:1]:
            where[stage] = owner_of(collection, workers).name
            reasons[stage] = f"collection {collection!r} is there"
    return where, reasons


def _spread(
    graph: Graph, stages: Sequence[str], where: dict[str, str], reasons: dict[str, str]
) -> None:
    """Give each stage the worker of its nearest placed neighbour (breadth first, so hops count)."""
    among = set(stages)
    queue = deque(stage for stage in stages if stage in where)
    while queue:
        stage = queue.popleft()
        for neighbour in sorted(graph.dependencies(stage) | graph.consumers(stage)):
            if neighbour in among and neighbour not in where:
                where[neighbour] = where[stage]
                reasons[neighbour] = f"next to {stage!r}"
                queue.append(neighbour)


def _loose(
    graph: Graph,
    stages: Sequence[str],
    workers: Sequence[Worker],
    where: dict[str, str],
    reasons: dict[str, str],
) -> None:
    """Place what is connected to no state: all of it together, by the graph's hash."""
    worker = max(workers, key=lambda worker: (_weight(graph.version, worker), worker.name))
    for stage in stages:
        if stage not in where:
            where[stage] = worker.name
            reasons[stage] = "needs no state"


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


def _edges(graph: Graph, where: Mapping[str, str]) -> Iterable[Edge]:
    for target in where:
        for source in sorted(graph.dependencies(target)):
            if source in where:
                together = where[source] == where[target]
                yield Edge(source, target, "local" if together else "remote")


def _weight(key: str, worker: Worker) -> bytes:
    return hashlib.blake2b(f"{key}\0{worker.name}".encode(), digest_size=8).digest()
