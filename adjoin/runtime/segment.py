"""The stages of a run that one worker executes, and the values they pass on.

No Dask and no sockets here: the agent hands in what to send with, how to reach models and
collections, and how to pull values; tests hand in their own.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import msgspec

from adjoin import errors
from adjoin.dag import Graph, Stage
from adjoin.errors import AdjoinError
from adjoin.runtime import results
from adjoin.runtime.execution import Meter, Surroundings, Task, run_stage
from adjoin.runtime.protocol import (
    Closed,
    Done,
    Failed,
    Feed,
    Happened,
    Message,
    Pulled,
    PullFailed,
    Ref,
    Value,
)
from adjoin.runtime.sizes import nbytes_of
from adjoin.transport import codec
from adjoin.transport.channel import Published
from adjoin.transport.codec import Encoded
from adjoin.types import Body, StageStarted


class World(Surroundings, Protocol):
    """What a segment needs of the process it runs in."""

    address: str

    async def pull(self, ref: Ref) -> Encoded: ...


class Limits(Protocol):
    """The settings that bound a segment."""

    @property
    def stage_timeout_s(self) -> float: ...

    @property
    def inline_bytes(self) -> int: ...


class SegmentRun:
    """Executes stages as their inputs come, until it is closed.

    Args:
        send: takes messages for the driver, in order; must not block.
        attempts: the attempt number of each stage to run.
        exports: stages whose results are needed outside of this segment.
        began: when it was opened, by ``time.perf_counter``; now when None.
    """

    def __init__(
        self,
        *,
        run: str,
        graph: Graph,
        attempts: Mapping[str, int],
        exports: frozenset[str],
        inputs: Any,
        world: World,
        limits: Limits,
        send: Callable[[Message], None],
        streaming: bool = False,
        began: float | None = None,
    ) -> None:
        self.run = run
        self.graph = graph
        self.world = world
        self._send = send
        self._began = began if began is not None else time.perf_counter()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._limits = limits
        self._exports = exports
        self._streaming = streaming
        self._skipped: set[str] = set()
        self._waiting = dict(attempts)
        self._scope: dict[str, Any] = {"inputs": inputs}
        self._published = Published()
        self._unfinished = set(attempts)
        self._ended = False
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Start every stage whose inputs are there."""
        for stage, attempt in self._take_ready():
            self._spawn(self._execute(stage, attempt))

    def feed(self, message: Feed) -> None:
        """Take the result of a stage that ran elsewhere."""
        if not self._ended:
            self._spawn(self._receive(message))

    def retry(self, stage: str, attempt: int) -> None:
        if not self._ended:
            self._waiting[stage] = attempt
            self.start()

    def held(self, ref: str) -> Encoded | None:
        """The value behind a reference that this segment handed out."""
        return self._published.find(ref)

    async def end(self) -> None:
        """Close because the driver says so. It may have crossed with the segment's own end."""
        if not self._ended:
            await self.close()
            self._tell(Closed())
            self._ended = True

    async def close(self) -> None:
        """Cancel what runs, wait until it has let go, and drop all values."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._waiting.clear()
        self._scope.clear()
        self._published.withdraw_all()

    def _tell(self, message: Message) -> None:
        """Send, also from a stage's thread; after the end nothing, since the connection is then
        another run's and a thread that was cancelled may still talk."""
        if threading.get_ident() != self._thread:
            self._loop.call_soon_threadsafe(self._tell, message)
        elif not self._ended:
            self._send(message)

    def _take_ready(self) -> list[tuple[Stage, int]]:
        known = self._scope.keys()
        ready = [name for name in self._waiting if self.graph.dependencies(name) <= known]
        return [(self.graph.stage(name), self._waiting.pop(name)) for name in ready]

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _receive(self, feed: Feed) -> None:
        value = feed.value
        try:
            encoded = await self._pull(feed.stage, value) if isinstance(value, Ref) else value
            decoded = results.restore(self.graph.stage(feed.stage), codec.decode(encoded))
        except AdjoinError:
            ref = value.id if isinstance(value, Ref) else ""
            self._tell(PullFailed(stage=feed.stage, ref=ref))
            return
        if feed.skipped:
            self._skipped.add(feed.stage)
        self._scope[feed.stage] = decoded
        self.start()

    async def _pull(self, stage: str, ref: Ref) -> Encoded:
        began = time.perf_counter()
        encoded = await self.world.pull(ref)
        seconds = time.perf_counter() - began
        self._tell(Pulled(stage=stage, nbytes=ref.nbytes, seconds=seconds))
        return encoded

    async def _execute(self, stage: Stage, attempt: int) -> None:
        """Run a stage and what it makes ready: of that the first here, the others beside it."""
        while await self._run(stage, attempt):
            if not (ready := self._take_ready()):
                self._end_if_done()
                return
            for other in ready[1:]:
                self._spawn(self._execute(*other))
            stage, attempt = ready[0]

    def _end_if_done(self) -> None:
        """Nobody has to close a segment of which nothing is wanted any more."""
        if not self._unfinished and self._published.empty and not self._ended:
            self._scope.clear()
            self._tell(Closed())
            self._ended = True

    async def _run(self, stage: Stage, attempt: int) -> bool:
        """Run one stage and tell how it ended; returns whether it ended well."""
        began = time.perf_counter()
        meter = Meter()
        try:
            runs = not stage.skipped_by(frozenset(self._skipped)) and stage.should_run(self._scope)
            if runs:
                task = self._task(stage.id, attempt)
                task.report(stage.id, attempt, StageStarted(worker=self.world.name))
                result = await run_stage(task, stage, self._scope, attempt, meter)
                if self.graph.may_part(stage.id):
                    results.check(stage, result)
            else:
                result = None
            value = self._export(result) if stage.id in self._exports else None
        except AdjoinError as error:
            wire = errors.to_wire(error)
            self._tell(Failed(stage=stage.id, attempt=attempt, error=wire))
            return False
        self._scope[stage.id] = result
        if not runs:
            self._skipped.add(stage.id)
        # Of the stage as a whole: its model calls are within it, and may overlap.
        usage = msgspec.structs.replace(meter.usage, seconds=time.perf_counter() - began)
        self._tell(
            Done(
                stage=stage.id,
                attempt=attempt,
                usage=usage,
                value=value,
                skipped=not runs,
                nbytes=nbytes_of(result),
                at=time.perf_counter() - self._began,
            )
        )
        self._unfinished.discard(stage.id)
        return True

    def _task(self, stage: str, attempt: int) -> Task:
        def report(place: str, tries: int, body: Body) -> None:
            at = time.perf_counter() - self._began
            self._tell(
                Happened(stage=stage, attempt=attempt, place=place, tries=tries, body=body, at=at)
            )

        return Task(
            run=self.run,
            graph=self.graph,
            surroundings=self.world,
            timeout=self._limits.stage_timeout_s,
            streaming=self._streaming,
            report=report,
        )

    def _export(self, result: Any) -> Value:
        encoded = codec.encode(result)
        if encoded.nbytes <= self._limits.inline_bytes:
            return Encoded(encoded.header, tuple(bytes(part) for part in encoded.buffers))
        id = self._published.publish(encoded)
        return Ref(id=id, owner=self.world.address, nbytes=encoded.nbytes)
