"""The cluster as the planner sees it: frozen snapshots of workers, made from what agents tell."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence

import msgspec


class Device(msgspec.Struct, frozen=True):
    """A CUDA device that a worker computes with; ``memory`` in bytes, 0 when it is not known."""

    id: str
    memory: int = 0


class Worker(msgspec.Struct, frozen=True):
    """A worker as the planner sees it.

    Attributes:
        host: the machine; workers of one host share its memory, its models and its files.
        memory: bytes that it may use; 0 when it is not known.
        resources: Dask's abstract resources, by name.
        collections: those it has open.
        sizes: bytes of the open collections, on the disk.
        models: sources of the models that its host has loaded for it.
        suspect: it has been silent for longer than it should.
    """

    name: str
    address: str
    host: str
    threads: int = 1
    pid: int = 0
    collections: frozenset[str] = frozenset()
    memory: int = 0
    resources: Mapping[str, float] = {}
    devices: tuple[Device, ...] = ()
    sizes: Mapping[str, int] = {}
    models: frozenset[str] = frozenset()
    suspect: bool = False


class Topology(msgspec.Struct, frozen=True, dict=True):
    """A snapshot of the cluster; ``epoch`` grows with every change."""

    epoch: int
    workers: tuple[Worker, ...]

    def worker(self, name: str) -> Worker | None:
        return next((worker for worker in self.workers if worker.name == name), None)

    @functools.cached_property
    def loaded(self) -> Mapping[str, frozenset[str]]:
        """The models that each host has loaded; a replica serves all workers of its host."""
        found: dict[str, frozenset[str]] = {}
        for worker in self.workers:
            found[worker.host] = found.get(worker.host, frozenset()) | worker.models
        return found

    @functools.cached_property
    def _holders(self) -> Mapping[str, list[Worker]]:
        found: dict[str, list[Worker]] = {}
        for worker in self.workers:
            for collection in worker.collections:
                found.setdefault(collection, []).append(worker)
        return found

    def holders(self, collection: str) -> Sequence[Worker]:
        """The workers that have a collection open."""
        return self._holders.get(collection, ())

    def size_of(self, collection: str) -> int | None:
        """Bytes of a collection on the disk; None while nobody has it open."""
        return max(
            (worker.sizes.get(collection, 0) for worker in self.holders(collection)), default=None
        )


def owner_of(collection: str, workers: Sequence[Worker]) -> Worker:
    """The worker that holds a collection, or should.

    One that has it open comes first; otherwise the highest random weight decides (rendezvous
    hashing, Thaler and Ravishankar 1998), so that losing a worker moves only what it held.
    """
    holders = [worker for worker in workers if collection in worker.collections]
    return max(holders or workers, key=lambda worker: (weight(collection, worker), worker.name))


def weight(key: str, worker: Worker) -> bytes:
    """A stable pseudo-random number for the pair."""
    return hashlib.blake2b(f"{key}\0{worker.name}".encode(), digest_size=8).digest()
