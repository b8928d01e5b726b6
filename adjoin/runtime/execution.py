"""How one stage runs: its calls, fan-outs, loops and nested workflows. No Dask and no sockets here.

A *place* names each call: ``solve[3]`` is element 3 of the stage ``solve``, ``tree#2/draft`` the
stage ``draft`` of the workflow that ``tree`` runs in its second iteration.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import msgspec
import numpy as np

from adjoin import errors
from adjoin.dag import Graph, Stage
from adjoin.errors import AdjoinError, DeadlineExceeded, EngineError, StageError
from adjoin.runtime.piecewise import Piecewise, is_piecewise
from adjoin.runtime.policies.budget import Tab
from adjoin.runtime.policies.retry import delay_before, may_retry
from adjoin.runtime.retries import Retries
from adjoin.runtime.watchdog import watched
from adjoin.transport.stream import Stream
from adjoin.types import (
    Body,
    CollectionClient,
    ModelClient,
    ModelLoading,
    ModelReady,
    Passage,
    StageCompleted,
    StageFailed,
    StageSkipped,
    StageStarted,
    Tokens,
    Usage,
    Used,
)

#: Types without arrays in them.
_NO_ARRAYS = frozenset((str, int, float, bool, bytes, type(None), Passage))

#: Takes a place, an attempt and what happened there.
Report = Callable[[str, int, Body], None]


class Surroundings(Protocol):
    """What calls need of the process they run in."""

    name: str
    threads: Executor
    retries: Retries

    def model(
        self, name: str, graph: Graph, observe: Callable[[Body], None], tab: Tab
    ) -> ModelClient: ...

    def collection(self, name: str) -> CollectionClient: ...


@dataclass(frozen=True)
class Task:
    """What the calls of one run on one worker have in common.

    Attributes:
        graph: the whole workflow; models are resolved by its names.
        timeout: seconds for a call whose stage sets none.
        streaming: a reader sees tokens as they come, so a call that sent some is not retried.
        tab: of the stage's attempt.
    """

    run: str
    graph: Graph
    surroundings: Surroundings
    timeout: float
    streaming: bool
    report: Report
    tab: Tab = field(default_factory=Tab)


class Meter:
    """Sums what all calls below one stage used.

    Attributes:
        waited: seconds that it waited for the stages whose streams it reads, or that read its own.
        tokens_seen: whether any of them emitted tokens.
    """

    def __init__(self) -> None:
        self.usage = Usage()
        self.waited = 0.0
        self.tokens_seen = False


class Context:
    """A :class:`adjoin.types.StageContext` for one call."""

    def __init__(
        self, task: Task, place: str, attempt: int, meter: Meter, stream: Stream | None = None
    ) -> None:
        self.run = task.run
        self.stage = place
        self.attempt = attempt
        self.idempotency_key = f"{task.run}.{place}"
        self.usage = Usage()
        self.tokens_seen = False
        self._task = task
        self._meter = meter
        self._text = stream  # of a function that streams text
        self._said = ""
        self._timeout: asyncio.Timeout | None = None
        self._left = math.inf
        self._pauses = 0
        self._is_loading = False

    @property
    def deadline(self) -> float | None:
        when = self._timeout.when() if self._timeout is not None else None
        return None if when is None else when - asyncio.get_running_loop().time()

    def limit(self, timeout: asyncio.Timeout) -> None:
        self._timeout = timeout

    def model(self, name: str) -> ModelClient:
        tab = self._task.tab
        account = msgspec.structs.replace(tab.account, place=self.stage, tries=self.attempt)
        own = replace(tab, account=account)
        return self._task.surroundings.model(name, self._task.graph, self._observe, own)

    def collection(self, name: str) -> CollectionClient:
        return self._task.surroundings.collection(name)

    def emit(self, body: Body) -> None:
        if isinstance(body, Tokens):
            self.tokens_seen = self._meter.tokens_seen = True
            if self._text is not None:
                self._say(self._text, body)
        self._task.report(self.stage, self.attempt, body)

    def _observe(self, body: Body) -> None:
        """Count usage; stop the call's clock while a replica starts: that has its own limit."""
        if isinstance(body, Used):
            self.usage = self.usage + body.usage
            self._meter.usage = self._meter.usage + body.usage
        elif isinstance(body, ModelLoading) and not self._is_loading:
            self._is_loading = True
            self._stop_clock()
        elif isinstance(body, ModelReady) and self._is_loading:
            self._is_loading = False
            self._start_clock()
        self.emit(body)

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """The call waits for another stage: neither its clock nor its own time runs."""
        began = time.perf_counter()
        self._stop_clock()
        try:
            yield
        finally:
            self._start_clock()
            self._meter.waited += time.perf_counter() - began

    def check_said(self, text: str) -> None:
        """Raise :class:`EngineError` where readers were given another text than the result."""
        if self._text is not None and self._said != text:
            raise EngineError("the tokens that were streamed do not make up the text")

    def _say(self, stream: Stream, body: Tokens) -> None:
        text = "".join(each.text for each in body.tokens if not each.reasoning)
        if text:
            self._said += text
            stream.add(text)

    def _stop_clock(self) -> None:
        self._pauses += 1
        if self._timeout is not None and (when := self._timeout.when()) is not None:
            self._left = when - asyncio.get_running_loop().time()
            self._reschedule(self._timeout, None)

    def _start_clock(self) -> None:
        self._pauses -= 1
        if self._timeout is not None and not self._pauses:
            self._reschedule(self._timeout, asyncio.get_running_loop().time() + self._left)

    @staticmethod
    def _reschedule(timeout: asyncio.Timeout, when: float | None) -> None:
        with contextlib.suppress(RuntimeError):  # the call is over, and its thread does not know
            timeout.reschedule(when)


async def run_stage(
    task: Task,
    stage: Stage,
    scope: Mapping[str, Any],
    attempt: int,
    meter: Meter,
    stream: Stream | None = None,
) -> Any:
    """The value of a stage of the workflow itself; the driver decides about another attempt.

    Args:
        scope: with a :class:`~adjoin.transport.stream.Source` for what the stage reads piece by
            piece and is still being made.
        stream: takes the value piece by piece; see :class:`~adjoin.runtime.piecewise.Piecewise`.

    Raises:
        AdjoinError: what its single call raised.
        StageError: a call below it failed for good.
    """
    if stage.each is None and stage.repeat is None:
        text = stream if stage.function.streams == "text" else None
        context = Context(task, stage.id, attempt, meter, text)
        result = await _call(task, stage, stage.arguments(scope), context, meter, stream)
        context.check_said(result)
        return result
    return await _fan_out(task, stage, scope, stage.id, meter)


async def _run_graph(
    task: Task, graph: Graph, inputs: Mapping[str, Any], place: str, meter: Meter
) -> Any:
    """The result of a nested workflow; each stage starts when its own inputs are there."""
    scope: dict[str, Any] = {"inputs": graph.check_inputs(inputs)}
    ready = {stage.id: asyncio.Event() for stage in graph.stages}
    skipped: set[str] = set()

    async def run(stage: Stage) -> None:
        for before in graph.dependencies(stage.id):
            await ready[before].wait()
        where = f"{place}/{stage.id}"
        try:
            runs = not stage.skipped_by(frozenset(skipped)) and stage.should_run(scope)
        except AdjoinError as error:
            raise StageError.of(task.run, where, 1, error) from error
        if runs:
            scope[stage.id] = await _fan_out(task, stage, scope, where, meter)
        else:
            task.report(where, 1, StageSkipped())
            scope[stage.id] = None
            skipped.add(stage.id)
        ready[stage.id].set()

    await _all(run(stage) for stage in graph.stages)
    return graph.resolve_outputs(scope)


async def _fan_out(
    task: Task, stage: Stage, scope: Mapping[str, Any], place: str, meter: Meter
) -> Any:
    """All elements of ``each``, some at once; a stage without it is its own only element."""
    try:
        elements = stage.elements(scope)
    except AdjoinError as error:
        raise StageError.of(task.run, place, 1, error) from error
    if elements is None or stage.each is None:
        return await _repeat(task, stage, scope, place, meter)
    gate = asyncio.Semaphore(stage.each.at_once)
    outcomes: list[Any] = [None] * len(elements)
    fails = stage.each.on_error == "fail"

    async def run(index: int) -> None:
        async with gate:
            names = {**scope, **elements[index]}
            try:
                outcomes[index] = await _repeat(task, stage, names, f"{place}[{index}]", meter)
            except AdjoinError as error:
                if fails:
                    raise
                outcomes[index] = error

    await _all(run(index) for index in range(len(elements)))
    return stage.gather(outcomes)


async def _repeat(
    task: Task, stage: Stage, scope: Mapping[str, Any], place: str, meter: Meter
) -> Any:
    """All iterations of ``repeat``; a stage without it has one."""
    iteration = 1
    try:
        arguments = stage.arguments(scope)
        while True:
            where = place if stage.repeat is None else f"{place}#{iteration}"
            result = await _attempts(task, stage, arguments, where, meter)
            if stage.finished(scope, result, iteration):
                return result
            arguments = stage.next_arguments(arguments, result)
            iteration += 1
    except StageError:
        raise
    except AdjoinError as error:
        raise StageError.of(task.run, place, 1, error) from error


async def _attempts(
    task: Task, stage: Stage, arguments: dict[str, Any], place: str, meter: Meter
) -> Any:
    """One call, tried as often as policy and the workflow's budget on this worker allow; the driver
    knows nothing of it."""
    attempt = 1
    retries, version = task.surroundings.retries, task.graph.version
    retries.begin(version)
    while True:
        context = Context(task, place, attempt, meter)
        context.emit(StageStarted(worker=task.surroundings.name))
        began = time.perf_counter()
        try:
            result = await _call(task, stage, arguments, context, meter)
        except AdjoinError as error:
            seen = task.streaming and context.tokens_seen
            retry = may_retry(error, attempt, stage.policy.attempts, tokens_seen=seen)
            retry = retry and retries.spend(version)
            context.emit(StageFailed(error=errors.to_wire(error), retry=retry))
            if isinstance(error, StageError):
                raise
            if not retry:
                raise StageError.of(task.run, place, attempt, error) from error
        else:
            seconds = time.perf_counter() - began
            usage = msgspec.structs.replace(context.usage, seconds=seconds)
            context.emit(StageCompleted(worker=task.surroundings.name, usage=usage))
            return result
        attempt += 1
        await asyncio.sleep(delay_before(attempt))


async def _call(
    task: Task,
    stage: Stage,
    arguments: dict[str, Any],
    context: Context,
    meter: Meter,
    stream: Stream | None = None,
) -> Any:
    """Call the function once, or run the workflow that it is, within the stage's timeout."""
    nested = stage.function.graph
    # A nested workflow has the timeouts of its own stages.
    default = task.timeout if nested is None else None
    seconds = stage.policy.timeout or default
    try:
        async with asyncio.timeout(seconds) as timeout:
            if nested is not None:
                return await _run_graph(task, nested, arguments, context.stage, meter)
            context.limit(timeout)
            return sealed(await _invoke(task, stage, arguments, context, stream))
    except TimeoutError as error:
        if not timeout.expired():
            raise errors.wrap(error) from error
        raise DeadlineExceeded(
            f"it took longer than {seconds:g} s", hint="raise its timeout or give it less to do"
        ) from None
    except AdjoinError:
        raise
    except Exception as error:  # whatever the user's code raised
        raise errors.wrap(error) from error


async def _invoke(
    task: Task, stage: Stage, arguments: dict[str, Any], context: Context, stream: Stream | None
) -> Any:
    call = stage.function.call
    if call is None:
        raise errors.NotFound(f"function {stage.function.ref!r} is not known to this worker")
    positional = (context,) if stage.function.wants_context else ()
    if is_piecewise(stage.function):
        work = Piecewise(stage.function, stream, context.pause, sealed)
        with watched(call, context.emit):
            return await work.call(positional, arguments, task.surroundings.threads)
    if stage.function.is_coroutine:
        with watched(call, context.emit):
            return await call(*positional, **arguments)
    run = contextvars.copy_context().run
    return await asyncio.get_running_loop().run_in_executor(
        task.surroundings.threads, lambda: run(call, *positional, **arguments)
    )


async def _all(work: Any) -> None:
    """Run coroutines together; the first error cancels the others and is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            for each in work:
                group.create_task(each).add_done_callback(let_go)
    except BaseExceptionGroup as failed:
        # Not ``except*``: Python 3.11.2 wraps what is raised in it into another group.
        first: BaseException = failed
        while isinstance(first, BaseExceptionGroup):
            first = (first.subgroup(AdjoinError) or first).exceptions[0]
        raise first from first.__cause__  # not from the group, which hides the cause


def let_go(task: asyncio.Task[Any]) -> None:
    """Take the error out of a task that was cancelled.

    Its traceback has the frames of a stage's call, of which one timed the task: a cycle, which
    would keep the values in them, and so shared memory, until the garbage is collected.
    """
    if task.cancelled():
        with contextlib.suppress(asyncio.CancelledError):
            task.exception()


def sealed(value: Any) -> Any:
    """Arrays that several stages will share must not be changed by one of them."""
    kind = type(value)
    if isinstance(value, np.ndarray):
        value.flags.writeable = False
    elif kind is dict:
        for item in value.values():
            if type(item) not in _NO_ARRAYS:
                sealed(item)
    elif kind is list or kind is tuple:
        # a list of texts or numbers is one to its end
        if value and type(value[0]) not in _NO_ARRAYS:
            for item in value:
                sealed(item)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            sealed(getattr(value, field.name, None))
    return value
