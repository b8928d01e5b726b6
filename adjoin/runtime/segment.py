"""The stages of a run that one worker executes, and the values they pass on.

No Dask and no sockets here: the agent hands in what to send with, how to reach models and
collections, and how to pull values; tests hand in their own.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import math
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor
from typing import Any, Protocol

import numpy as np

from adjoin import errors
from adjoin.dag import Graph, Stage
from adjoin.errors import AdjoinError, DeadlineExceeded
from adjoin.runtime.protocol import Done, Failed, Feed, Happened, Message, PullFailed, Ref, Value
from adjoin.transport import codec
from adjoin.transport.codec import Encoded
from adjoin.types import (
    Body,
    CollectionClient,
    ModelClient,
    ModelLoading,
    ModelReady,
    StageStarted,
    Usage,
    Used,
)


class World(Protocol):
    """What a segment needs of the process it runs in."""

    name: str
    address: str
    threads: Executor

    def model(self, name: str, graph: Graph, observe: Callable[[Body], None]) -> ModelClient: ...

    def collection(self, name: str) -> CollectionClient: ...

    async def pull(self, ref: Ref) -> Encoded: ...


class Limits(Protocol):
    """The settings that bound a segment."""

    @property
    def stage_timeout_s(self) -> float: ...

    @property
    def inline_bytes(self) -> int: ...


class Context:
    """A :class:`adjoin.types.StageContext` for one attempt of one stage."""

    def __init__(self, segment: SegmentRun, stage: str, attempt: int) -> None:
        self.run = segment.run
        self.stage = stage
        self.attempt = attempt
        self.idempotency_key = f"{segment.run}.{stage}"
        self.usage = Usage()
        self._segment = segment
        self._timeout: asyncio.Timeout | None = None
        self._left = math.inf

    @property
    def deadline(self) -> float | None:
        when = self._timeout.when() if self._timeout is not None else None
        return None if when is None else when - asyncio.get_running_loop().time()

    def limit(self, timeout: asyncio.Timeout) -> None:
        self._timeout = timeout

    def model(self, name: str) -> ModelClient:
        return self._segment.world.model(name, self._segment.graph, self._observe)

    def collection(self, name: str) -> CollectionClient:
        return self._segment.world.collection(name)

    def emit(self, body: Body) -> None:
        self._segment.send(Happened(stage=self.stage, attempt=self.attempt, body=body))

    def _observe(self, body: Body) -> None:
        """Count usage; stop the stage's clock while a replica starts: that has its own limit."""
        if isinstance(body, Used):
            self.usage = self.usage + body.usage
        elif isinstance(body, ModelLoading):
            self._stop_clock()
        elif isinstance(body, ModelReady):
            self._start_clock()
        self.emit(body)

    def _stop_clock(self) -> None:
        if self._timeout is not None and (when := self._timeout.when()) is not None:
            self._left = when - asyncio.get_running_loop().time()
            self._timeout.reschedule(None)

    def _start_clock(self) -> None:
        if self._timeout is not None and self._timeout.when() is None:
            self._timeout.reschedule(asyncio.get_running_loop().time() + self._left)


class SegmentRun:
    """Executes stages as their inputs come, until it is closed.

    Args:
        send: takes messages for the driver, in order; must not block.
        attempts: the attempt number of each stage to run.
        exports: stages whose results are needed outside of this segment.
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
    ) -> None:
        self.run = run
        self.graph = graph
        self.world = world
        self.send = send
        self._limits = limits
        self._exports = exports
        self._waiting = dict(attempts)
        self._scope: dict[str, Any] = {"inputs": inputs}
        self._held: dict[str, Encoded] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Start every stage whose inputs are there."""
        for name in [name for name in self._waiting if self._ready(name)]:
            self._spawn(self._execute(self.graph.stage(name), self._waiting.pop(name)))

    def feed(self, message: Feed) -> None:
        """Take the result of a stage that ran elsewhere."""
        self._spawn(self._receive(message.stage, message.value))

    def retry(self, stage: str, attempt: int) -> None:
        self._waiting[stage] = attempt
        self.start()

    def held(self, ref: str) -> Encoded | None:
        """The value behind a reference that this segment handed out."""
        return self._held.get(ref)

    async def close(self) -> None:
        """Cancel what runs, wait until it has let go, and drop all values."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._waiting.clear()
        self._scope.clear()
        self._held.clear()

    def _ready(self, name: str) -> bool:
        return self.graph.dependencies(name) <= self._scope.keys()

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _receive(self, stage: str, value: Value) -> None:
        try:
            encoded = await self.world.pull(value) if isinstance(value, Ref) else value
            annotation = return_annotation(self.graph.stage(stage))
            self._scope[stage] = codec.restore(codec.decode(encoded), annotation)
        except AdjoinError:
            self.send(PullFailed(stage=stage, ref=value.id if isinstance(value, Ref) else ""))
            return
        self.start()

    async def _execute(self, stage: Stage, attempt: int) -> None:
        context = Context(self, stage.id, attempt)
        self.send(
            Happened(stage=stage.id, attempt=attempt, body=StageStarted(worker=self.world.name))
        )
        began = time.perf_counter()
        try:
            result = await self._call(stage, context)
            value = self._export(result) if stage.id in self._exports else None
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001  # whatever the user's code raised is reported
            wire = errors.to_wire(error)
            self.send(Failed(stage=stage.id, attempt=attempt, error=wire))
            return
        self._scope[stage.id] = result
        usage = context.usage + Usage(seconds=time.perf_counter() - began)
        self.send(Done(stage=stage.id, attempt=attempt, usage=usage, value=value))
        self.start()

    async def _call(self, stage: Stage, context: Context) -> Any:
        call = stage.function.call
        if call is None:
            raise errors.NotFound(f"function {stage.function.ref!r} is not known to this worker")
        arguments = stage.arguments(self._scope)
        positional = (context,) if stage.function.wants_context else ()
        seconds = stage.policy.timeout or self._limits.stage_timeout_s
        try:
            async with asyncio.timeout(seconds) as timeout:
                context.limit(timeout)
                if inspect.iscoroutinefunction(call):
                    result = await call(*positional, **arguments)
                else:
                    run = contextvars.copy_context().run
                    result = await asyncio.get_running_loop().run_in_executor(
                        self.world.threads, lambda: run(call, *positional, **arguments)
                    )
        except TimeoutError:
            if not timeout.expired():
                raise
            raise DeadlineExceeded(
                f"it took longer than {seconds:g} s", hint="raise its timeout or give it less to do"
            ) from None
        return _sealed(result)

    def _export(self, result: Any) -> Value:
        encoded = codec.encode(result)
        if encoded.nbytes <= self._limits.inline_bytes:
            return Encoded(encoded.header, tuple(bytes(part) for part in encoded.buffers))
        ref = Ref(id=secrets.token_urlsafe(16), owner=self.world.address, nbytes=encoded.nbytes)
        self._held[ref.id] = encoded
        return ref


def return_annotation(stage: Stage) -> Any:
    """The annotation of a stage's result, to restore types of the user; None for built-ins."""
    if stage.function.is_builtin or stage.function.call is None:
        return None
    try:
        return inspect.get_annotations(stage.function.call, eval_str=True).get("return")
    except (NameError, TypeError):
        return None


def _sealed(value: Any) -> Any:
    """Arrays that several stages will share must not be changed by one of them."""
    if isinstance(value, np.ndarray):
        value.flags.writeable = False
    return value
