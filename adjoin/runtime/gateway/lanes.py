"""What runs of several workflows and tenants compete for: a model, or the workers."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import msgspec

from adjoin.dag import Graph, Stage
from adjoin.dag.graph import ModelSpec
from adjoin.runtime.policies.admission import Crowd, learned
from adjoin.runtime.policies.fair_share import Claim, FairQueue, Waiting
from adjoin.runtime.policies.topology import Topology
from adjoin.runtime.shipping import spec_of
from adjoin.settings import Settings

#: What engines take at once where nobody says: vLLM on CPUs and on a GPU, transformers when it
#: generates, and what embeds or scores.
_SEQUENCES = 16
_CUDA_SEQUENCES = 128
_PORTABLE_SEQUENCES = 4
_TEXTS = 256
#: Of a lane, the most that one run counts for: a wide one would have to wait until all have ended,
#: and would keep what comes after it waiting for so long.
_WIDEST = 4
_GENERATES = frozenset({"generate", "complete"})


@dataclass
class _Caller:
    start: Callable[[Waiting], None]
    has_room: Callable[[], bool]


class Lane:
    """Starts what waits for one thing, by fair shares, as long as there is room.

    Args:
        capacity: how many sequences there is room for at once; None for any number.
        tokens: whether a run costs its tokens; otherwise the seconds that it takes.
        clock: seconds, going forward.
    """

    def __init__(
        self,
        capacity: Callable[[], int] | None = None,
        *,
        tokens: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.tokens = tokens
        self._capacity = capacity
        self._clock = clock
        self._queue = FairQueue()
        self._numbers = itertools.count()
        self._callers: dict[int, _Caller] = {}
        self._running = 0
        self._seconds: float | None = None
        self._cost: float | None = None
        self._width: float | None = None

    def crowd(self, claim: Claim) -> Crowd | None:
        """What is before a run that comes now; None where it is never held back by others."""
        if self._capacity is None:
            return None
        capacity = max(1, self._capacity())
        if self._running + self._fitted(claim.width) <= capacity and not self._queue:
            return None
        mean = claim.cost if self._cost is None else self._cost
        width = self._width or 1.0
        runs = self._queue.ahead(claim) / max(mean, 1e-9)
        return Crowd(runs, slots=max(1.0, capacity / width), seconds=self._seconds)

    def arrive(
        self,
        group: int,
        claim: Claim,
        start: Callable[[Waiting], None],
        has_room: Callable[[], bool],
    ) -> Waiting:
        """Have a run wait; ``start`` is called when its turn comes, from :meth:`call_next`."""
        fitted = replace(claim, width=self._fitted(claim.width))
        run = Waiting(next(self._numbers), group, fitted, self._clock())
        self._queue.arrive(run)
        self._callers[run.number] = _Caller(start, has_room)
        return run

    def leave(self, run: Waiting) -> None:
        """One that waits does not want to any more."""
        self._queue.leave(run.number)
        del self._callers[run.number]

    def ended(self, run: Waiting, seconds: float | None, cost: float) -> None:
        """One that was started has ended, and took so much; see :meth:`Gate.leave`."""
        self._running -= run.claim.width
        self._queue.settle(run.claim, cost)
        if seconds is not None:
            self._seconds = learned(self._seconds, seconds)

    def call_next(self) -> None:
        """Start whatever can start now."""
        while run := self._queue.next(self._clock(), self._fits, self._free):
            claim = run.claim
            self._running += claim.width
            self._cost = learned(self._cost, claim.cost)
            self._width = learned(self._width, claim.width)
            self._callers.pop(run.number).start(run)

    def _fits(self, run: Waiting) -> bool:
        if self._capacity is None:
            return True
        return not self._running or self._running + run.claim.width <= self._capacity()

    def _free(self, run: Waiting) -> bool:
        return self._callers[run.number].has_room()

    def _fitted(self, width: int) -> int:
        if self._capacity is None:
            return width
        return min(width, max(1, self._capacity() // _WIDEST))


class Lanes:
    """The lane of each model, and the one of workflows without a model."""

    def __init__(self, settings: Settings, topology: Callable[[], Topology | None]) -> None:
        self._settings = settings
        self._topology = topology
        self._lanes: dict[bytes, Lane] = {}
        self._workers = Lane(lambda: settings.serve_runs)

    def of(self, graph: Graph) -> Lane:
        """Where runs of a workflow wait: for the model that generates last in it, or else the one
        that it asks last. Workflows of all tenants that ask the same model share its lane, since
        they share its replicas."""
        found = _main_model(graph)
        if found is None:
            return self._workers
        spec, generates = found
        key = msgspec.msgpack.encode([spec.source, spec.engine, sorted(spec.args.items())])
        if key not in self._lanes:
            self._lanes[key] = Lane(lambda: self._room(spec, generates), tokens=True)
        return self._lanes[key]

    def _room(self, spec: ModelSpec, generates: bool) -> int:
        """Sequences of a model at once: as many as its replicas take, one replica a host. What is
        more than that would wait inside them, where it comes in order of arrival."""
        if self._settings.model_runs:
            return self._settings.model_runs
        topology = self._topology()
        workers = () if topology is None else topology.workers
        hosts = max(1, len({worker.host for worker in workers}))
        cuda = any(worker.devices for worker in workers)
        return hosts * sequences(spec, self._settings.replica_sequences, generates, cuda=cuda)


def sequences(spec: ModelSpec, most: int, generates: bool, *, cuda: bool) -> int:
    """How many sequences a replica takes at once; ``most`` is the setting, 0 for none."""
    found = _said(spec.args)
    if found is None and not generates:
        found = _TEXTS
    elif found is None and spec.engine == "transformers":
        found = _PORTABLE_SEQUENCES
    elif found is None:
        found = _CUDA_SEQUENCES if cuda else _SEQUENCES
    return min(found, most) if most else found


def _said(args: Mapping[str, object]) -> int | None:
    said = args.get("max_num_seqs")
    return said if isinstance(said, int) and said > 0 else None


def _main_model(graph: Graph) -> tuple[ModelSpec, bool] | None:
    """The model that most of a run's tokens come from, and whether it generates."""
    found = list(_models(graph))
    generating = [each for each in found if each[1]]
    return next(reversed(generating or found), None)


def _models(graph: Graph) -> list[tuple[ModelSpec, bool]]:
    return [each for stage in graph.stages for each in _of_stage(graph, stage)]


def _of_stage(graph: Graph, stage: Stage) -> list[tuple[ModelSpec, bool]]:
    if stage.function.graph is not None:
        return _models(stage.function.graph)
    if stage.model is None:
        return []
    return [(spec_of(stage.model, graph), stage.function.ref in _GENERATES)]
