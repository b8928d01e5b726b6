"""A cluster of one process: the real driver and the real executor, with queues between them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any, TypeAlias

import msgspec
from random_graphs import resolve

from adjoin.dag import Function, Graph, from_wire
from adjoin.runtime import protocol as p
from adjoin.runtime.held import find_held, find_kept, find_lender
from adjoin.runtime.policies.placement import Topology, Worker
from adjoin.runtime.retries import Retries
from adjoin.runtime.segment import SegmentRun
from adjoin.settings import Settings
from adjoin.transport import codec
from adjoin.transport.codec import Encoded

Resolve: TypeAlias = Callable[[str, str], Function]


class InProcessCluster:
    """What a :class:`~adjoin.runtime.driver.Driver` needs of a cluster."""

    def __init__(self, workers: int = 2, resolve: Resolve = resolve) -> None:
        self.resolve = resolve
        names = [f"worker-{n}" for n in range(workers)]
        self.topology = Topology(1, tuple(Worker(name, name, "host") for name in names))
        self.segments: set[SegmentRun] = set()

    async def ready(self) -> Topology:
        return self.topology

    def line(self, worker: str, message: p.Message) -> None:
        """There is no connection before a segment is opened."""

    async def open_segment(self, worker: str, message: p.Message) -> Any:
        assert isinstance(message, p.Open)
        return _Conversation(self, worker, message)

    def doubt(self, worker: str) -> None:
        """None dies here."""

    async def take(self, owner: str, request: p.Take) -> p.Taken:
        return await find_lender(self.segments, request).take(request)

    async def leave(self, owner: str, request: p.Leave) -> None:
        await find_lender(self.segments, request).left(request)

    async def pull(self, ref: p.Ref, run: str) -> Encoded:
        return find_held(self.segments, ref.seen_by(run))


class _World:
    """A worker, as a segment sees it."""

    def __init__(self, cluster: InProcessCluster, name: str) -> None:
        self.name = self.address = name
        self.threads: Executor = ThreadPoolExecutor(2)
        self.retries = Retries()
        self.pull = cluster.pull
        self.take = cluster.take
        self.leave = cluster.leave
        self._segments = cluster.segments

    def model(self, *_: Any) -> Any:
        raise AssertionError("no models here")

    collection = model

    def kept(self, ref: p.Ref, run: str) -> Any:
        return find_kept(self._segments, ref, run)


class _Conversation:
    """Both ends of a segment's conversation; the driver holds it as its line."""

    def __init__(self, cluster: InProcessCluster, worker: str, opened: p.Open) -> None:
        self._cluster = cluster
        self._opened = opened
        self._to_driver: asyncio.Queue[bytes] = asyncio.Queue()
        self._world = _World(cluster, worker)
        self._segment: SegmentRun | None = None
        self._early: list[bytes] = []  # said before there was a graph
        self._to_driver.put_nowait(p.pack(p.NeedGraph()))

    def send(self, message: bytes) -> None:
        decoded = msgspec.msgpack.decode(message, type=p.FromDriver)
        if self._segment is None and not isinstance(decoded, p.Define | p.Close):
            self._early.append(message)
            return
        match decoded:
            case p.Define():
                self._begin(from_wire(decoded.graph, self._cluster.resolve))
                for each in self._early:
                    self.send(each)
            case p.Feed():
                self._open_segment.feed(decoded)
            case p.Retry(stage=stage, attempt=attempt, readers=readers):
                self._open_segment.retry(stage, attempt, readers)
            case p.Close():
                self._ending = asyncio.ensure_future(self._end())

    async def receive(self) -> list[bytes]:
        return [await self._to_driver.get()]

    def end(self) -> None:
        self._world.threads.shutdown(wait=False)

    @property
    def _open_segment(self) -> SegmentRun:
        assert self._segment is not None
        return self._segment

    def _begin(self, graph: Graph) -> None:
        self._segment = SegmentRun(
            run=self._opened.run,
            graph=graph,
            attempts=self._opened.attempts,
            exports=frozenset(self._opened.exports),
            readers=self._opened.readers,
            inputs=codec.decode(self._opened.inputs),
            world=self._world,
            limits=Settings(inline_bytes=64),
            send=lambda message: self._to_driver.put_nowait(p.pack(message)),
        )
        self._cluster.segments.add(self._segment)
        self._segment.start()

    async def _end(self) -> None:
        if self._segment is None:
            self._to_driver.put_nowait(p.pack(p.Closed()))
            return
        await self._segment.end()
        self._cluster.segments.discard(self._segment)
