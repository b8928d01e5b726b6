"""The stages of a run that one worker executes, and the values they pass on.

No Dask and no sockets here: the agent hands in what to send with, how to reach models and
collections, and how to pull values; tests hand in their own.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from adjoin import errors
from adjoin.dag import Graph, Stage
from adjoin.errors import AdjoinError, EngineError
from adjoin.runtime.execution import Meter, Surroundings, Task, let_go, run_stage
from adjoin.runtime.policies.budget import Tab
from adjoin.runtime.protocol import (
    Closed,
    Done,
    Failed,
    Feed,
    Happened,
    Leave,
    Message,
    Pulled,
    PullFailed,
    Ref,
    Streaming,
    StreamRef,
    Take,
    Taken,
    Value,
)
from adjoin.runtime.results import restore
from adjoin.runtime.sizes import nbytes_of
from adjoin.runtime.streams import Streams
from adjoin.transport import codec
from adjoin.transport.channel import Published
from adjoin.transport.codec import Encoded
from adjoin.transport.stream import Stream, StreamLost
from adjoin.types import Body, StageStarted

#: The result of a stage whose only reader has had all of it.
_PASSED_ON = object()

_log = logging.getLogger(__name__)


class World(Surroundings, Protocol):
    """What a segment needs of the process it runs in."""

    address: str

    async def pull(self, ref: Ref, run: str) -> Encoded: ...

    def kept(self, ref: Ref, run: str) -> Any: ...

    async def take(self, owner: str, request: Take) -> Taken: ...

    async def leave(self, owner: str, request: Leave) -> None: ...


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
        readers: stages, here and elsewhere, that will read one's result while it is made.
        tab: whom it is counted for, and what it may use.
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
        readers: Mapping[str, Sequence[str]] | None = None,
        streaming: bool = False,
        began: float | None = None,
        tab: Tab | None = None,
    ) -> None:
        self.run = run
        self.graph = graph
        self.world = world
        self._send = send
        self._tab = tab or Tab()
        self._began = began if began is not None else time.perf_counter()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._limits = limits
        self._exports = exports
        self._streaming = streaming
        self._skipped: set[str] = set()
        self._waiting = dict(attempts)
        self._own = frozenset(attempts)
        self._readers = dict(readers or {})
        self._streams = Streams(run, graph, world, limits.inline_bytes)
        self._running: dict[str, asyncio.Task[Any]] = {}
        self._scope: dict[str, Any] = {"inputs": inputs}
        self._published = Published()
        #: Values that cannot leave this process, for other segments of the run.
        self.kept: dict[str, Any] = {}
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

    def retry(self, stage: str, attempt: int, readers: Sequence[str] = ()) -> None:
        """Run a stage again, whose last attempt has failed or is to be stopped."""
        if not self._ended:
            if (task := self._running.get(stage)) is not None:
                task.cancel()
            self._readers[stage] = readers
            self._unfinished.add(stage)
            self._waiting[stage] = attempt
            self.start()

    def held(self, ref: str) -> Encoded | None:
        """The value behind a reference that this segment handed out."""
        found = self._published.find(ref)
        return found if found is not None else self._streams.held(ref)

    def lends(self, ref: str) -> bool:
        """Whether this segment makes the stream behind a reference."""
        return self._streams.lends(ref)

    async def take(self, request: Take) -> Taken:
        """Pieces of a stream for a reader in another segment.

        Raises:
            TransportError: the stream broke, or has dropped what is asked for.
        """
        taken = await self._streams.answer(request)
        self._end_if_done()
        return taken

    async def left(self, request: Leave) -> None:
        """A reader in another segment needs no more of a stream."""
        await self._streams.left(request)
        self._end_if_done()

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
        self.kept.clear()
        self._published.withdraw_all()
        self._streams.close()

    def _tell(self, message: Message) -> None:
        """Send, also from a stage's thread; after the end nothing, since the connection is then
        another run's and a thread that was cancelled may still talk."""
        if threading.get_ident() != self._thread:
            self._loop.call_soon_threadsafe(self._tell, message)
        elif not self._ended:
            self._send(message)

    def _take_ready(self) -> list[tuple[Stage, int]]:
        ready = [name for name in self._waiting if self._can_start(name)]
        return [(self.graph.stage(name), self._waiting.pop(name)) for name in ready]

    def _can_start(self, name: str) -> bool:
        dependencies = self.graph.dependencies(name)
        return dependencies <= self._scope.keys() or all(
            before in self._scope or (self.graph.reads(name, before) and self._streams.has(before))
            for before in dependencies
        )

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(let_go)

    async def _receive(self, feed: Feed) -> None:
        value = feed.value
        if isinstance(value, StreamRef):
            await self._receive_stream(feed.stage, value)
            return
        try:
            if isinstance(value, Ref) and value.kept:
                decoded = self.world.kept(value, self.run)
            else:
                encoded = await self._pull(feed.stage, value) if isinstance(value, Ref) else value
                decoded = restore(self.graph.stage(feed.stage), codec.decode(encoded))
        except AdjoinError:
            ref = value.id if isinstance(value, Ref) else ""
            self._tell(PullFailed(stage=feed.stage, ref=ref))
            return
        if feed.skipped:
            self._skipped.add(feed.stage)
        self._scope[feed.stage] = decoded
        self.start()

    async def _receive_stream(self, stage: str, ref: StreamRef) -> None:
        self._streams.feed(stage, ref)
        for reader in self.graph.readers[stage] & self._own - self._unfinished:
            await self._streams.leave(reader)
        self.start()

    async def _pull(self, stage: str, ref: Ref) -> Encoded:
        began = time.perf_counter()
        encoded = await self.world.pull(ref, self.run)
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
        holds = self.kept or not (self._published.empty and self._streams.idle)
        if not (self._unfinished or holds or self._ended):
            self._scope.clear()
            self._tell(Closed())
            self._ended = True

    async def _run(self, stage: Stage, attempt: int) -> bool:
        """Run one stage and tell how it ended; returns whether it ended well."""
        began = time.perf_counter()
        meter = Meter()
        if (task := asyncio.current_task()) is not None:
            self._running[stage.id] = task
        try:
            runs = not (self._skipped and stage.skipped_by(frozenset(self._skipped)))
            runs = runs and stage.should_run(self._scope)
            result, nbytes = await self._evaluate(stage, attempt, meter) if runs else (None, 0)
            leaves = stage.id in self._exports or (not runs and stage.id in self._readers)
            value = self._export(stage, result) if leaves else None
        except StreamLost as lost:
            self._begin_again(stage, attempt, lost, meter)
            return False
        except AdjoinError as error:
            self._fail(stage, attempt, error)
            return False
        except Exception as error:  # noqa: BLE001  # a bug of ours: else its run would never end
            _log.exception("run %s, stage %r", self.run, stage.id)
            self._fail(stage, attempt, errors.wrap(error))
            return False
        finally:
            if self._running.get(stage.id) is task:  # not of the attempt that comes after this
                del self._running[stage.id]
        if result is not _PASSED_ON:
            self._scope[stage.id] = result
        if not runs:
            self._skipped.add(stage.id)
        # Of the stage as a whole: its model calls are within it, and may overlap.
        seconds = time.perf_counter() - began - meter.waited
        self._tell(
            Done(
                stage=stage.id,
                attempt=attempt,
                usage=msgspec.structs.replace(meter.usage, seconds=max(0.0, seconds)),
                value=value,
                skipped=not runs,
                nbytes=nbytes,
                at=time.perf_counter() - self._began,
            )
        )
        self._unfinished.discard(stage.id)
        if self.graph.readers:
            await self._streams.leave(stage.id)
        return True

    async def _evaluate(self, stage: Stage, attempt: int, meter: Meter) -> tuple[Any, int]:
        """The result of a stage that runs, and about its bytes; its readers see it being made."""
        task = self._task(stage.id, attempt)
        task.report(stage.id, attempt, StageStarted(worker=self.world.name))
        stream = self._begin_stream(stage.id, attempt)
        if stream is None:
            result = await run_stage(task, stage, self._seen_by(stage), attempt, meter)
            return result, nbytes_of(result)
        try:
            result = await run_stage(task, stage, self._seen_by(stage), attempt, meter, stream)
        except BaseException:
            stream.fail("its stage failed or was stopped")
            raise
        stream.end()
        return _PASSED_ON if stream.passing else result, stream.nbytes

    def _begin_stream(self, stage: str, attempt: int) -> Stream | None:
        """The stream of a stage that others read, which can start now."""
        if not (readers := self._readers.get(stage)):
            return None
        stream = self._streams.begin(stage, set(readers) - self._own)
        ref = StreamRef(id=stream.id, owner=self.world.address)
        self._tell(Streaming(stage=stage, attempt=attempt, ref=ref))
        self._loop.call_soon(self.start)
        return stream

    def _seen_by(self, stage: Stage) -> Mapping[str, Any]:
        """The scope of a stage, with what is still being made."""
        if not self.graph.readers:
            return self._scope
        streams = {
            before: source
            for before in self.graph.dependencies(stage.id)
            if before not in self._scope and (source := self._streams.source(before, stage.id))
        }
        return {**self._scope, **streams} if streams else self._scope

    def _begin_again(self, stage: Stage, attempt: int, lost: StreamLost, meter: Meter) -> None:
        """A stage whose input broke off waits for that to come once more, as the same attempt."""
        if self._streaming and meter.tokens_seen:
            hint = "run it again: what it has said was shown already"
            self._fail(stage, attempt, EngineError(lost.message, hint=hint))
            return
        self._waiting[stage.id] = attempt
        if before := self._streams.forget(lost.id):
            self._tell(PullFailed(stage=before, ref=lost.id))
        self.start()

    def _fail(self, stage: Stage, attempt: int, error: AdjoinError) -> None:
        self._tell(Failed(stage=stage.id, attempt=attempt, error=errors.to_wire(error)))

    def _task(self, stage: str, attempt: int) -> Task:
        def report(place: str, tries: int, body: Body) -> None:
            at = time.perf_counter() - self._began
            self._tell(
                Happened(stage=stage, attempt=attempt, place=place, tries=tries, body=body, at=at)
            )

        account = msgspec.structs.replace(
            self._tab.account, run=self.run, stage=stage, attempt=attempt
        )
        return Task(
            run=self.run,
            graph=self.graph,
            surroundings=self.world,
            timeout=self._limits.stage_timeout_s,
            streaming=self._streaming,
            report=report,
            tab=Tab(account, self._tab.purse, self._tab.model),
        )

    def _export(self, stage: Stage, result: Any) -> Value:
        if stage.id in self.graph.confined and result is not None:
            id = secrets.token_urlsafe(16)
            self.kept[id] = result
            return Ref(id=id, owner=self.world.address, nbytes=nbytes_of(result), kept=True)
        encoded = codec.encode(result)
        if encoded.nbytes <= self._limits.inline_bytes:
            return Encoded(encoded.header, tuple(bytes(part) for part in encoded.buffers))
        id = self._published.publish(encoded)
        return Ref(id=id, owner=self.world.address, nbytes=encoded.nbytes)
