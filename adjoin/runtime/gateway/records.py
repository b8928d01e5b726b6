"""A run as the service knows it: before it starts, while it runs, and for a while afterwards."""

from __future__ import annotations

import asyncio
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Mapping,
    Sequence,
)
from typing import Any, Literal, Protocol, TypeAlias

import msgspec

from adjoin.errors import AdjoinError, Cancelled, DeadlineExceeded, from_wire
from adjoin.runtime.driver import Run
from adjoin.runtime.gateway.bodies import encode
from adjoin.runtime.gateway.deployments import Deployment
from adjoin.runtime.gateway.problems import problem_of
from adjoin.runtime.policies.billing import Billed
from adjoin.runtime.run import closing_body
from adjoin.types import Body, Event, RunCancelled, RunCompleted, RunFailed, Usage, Used

State: TypeAlias = Literal["queued", "running", "succeeded", "failed", "cancelled", "expired"]
CLOSING = (RunCompleted, RunFailed, RunCancelled)


class Source(Protocol):
    """Where readers of a run that goes on have its events from."""

    @property
    def events(self) -> Sequence[Event]: ...

    async def changed(self, position: int) -> None:
        """Wait until there is an event at ``position``, or no more will come."""
        ...


class RunRecord:
    """One run of a deployed workflow.

    Its events are the run's own while it goes on. When it has ended they are kept as JSON, so that
    values which lie in shared memory are let go.
    """

    def __init__(self, deployment: Deployment, id: str) -> None:
        self.id = id
        self.deployment = deployment
        self.created = self.started = time.time()
        #: The trace that its request was part of: headers of W3C Trace Context.
        self.trace: Mapping[str, str] = {}
        self.run: Run | None = None
        #: What readers see while it goes on.
        self.source: Source | None = None
        #: Of an ended run: each event as JSON, with the kind of it.
        self.kept: list[tuple[str, bytes]] = []
        self.state: State = "queued"
        self.usage = Usage()
        self.seconds = 0.0
        #: Of an ended run: what is billed of it, by stage.
        self.billed: Mapping[str, Billed] = {}
        #: Ends the wait for the run's turn.
        self.waiting: asyncio.Task[None] | None = None
        #: Called once, when it has ended; what it held may be freed later.
        self.on_end: Callable[[RunRecord], None] | None = None
        self._cancelled = ""
        self._begun = asyncio.Event()

    #: Whether it outlives the service and whoever asked for it.
    durable = False

    @property
    def tenant(self) -> str:
        return self.deployment.tenant

    @property
    def workflow(self) -> str:
        return self.deployment.name

    @property
    def version(self) -> str:
        return self.deployment.graph.version

    @property
    def ended(self) -> bool:
        return self.state not in ("queued", "running")

    @property
    def nbytes(self) -> int:
        return sum(len(data) for _, data in self.kept)

    @property
    def waited(self) -> float:
        """Seconds in the queue."""
        return self.started - self.created

    def began(self, run: Run) -> None:
        self.started = time.time()
        self.run = self.source = run
        self.state = "running"
        self._begun.set()
        run.done.add_done_callback(lambda _: self._ended_with(run))
        if self._cancelled:
            run.cancel(self._cancelled)

    def refused(self, error: AdjoinError) -> None:
        """It ended before it started."""
        body = closing_body(error)
        self._finish([Event(run=self.id, seq=0, at=time.time() - self.created, body=body)])

    def cancel(self, reason: str) -> None:
        """End it, wherever it is."""
        if self.run is not None:
            self.run.cancel(reason)
        elif self.waiting is not None:
            self._cancelled = reason
            self.waiting.cancel()

    def when_freed(self, run: Run, call: Callable[[], None]) -> None:
        """Have this called when its run has ended and freed what it held."""
        run.when_ended(call)

    def left(self, reason: str) -> None:
        """Whoever asked for it has left."""
        self.cancel(reason)

    async def outcome(self) -> RunCompleted:
        """What it returned.

        Raises:
            AdjoinError: what it failed with.
        """
        await self._begun.wait()
        if (source := self.source) is None:
            body = self._last()
        else:
            while not source.events or not isinstance(source.events[-1].body, CLOSING):
                await source.changed(len(source.events))
            body = source.events[-1].body  # as it is: what was kept went through JSON
        if isinstance(body, RunCompleted):
            return body
        raise self._error(body)

    async def live(self, every: float) -> AsyncGenerator[list[Event]]:
        """The run's events as they are, each time all that there are, until it has returned; none
        whenever nothing has happened for ``every`` seconds.

        Raises:
            AdjoinError: what it failed with.
        """
        while not self._begun.is_set():
            if not await _within(every, self._begun.wait()):
                yield []
        if (source := self.source) is None:
            await self.outcome()
            yield [msgspec.json.decode(data, type=Event) for _, data in self.kept]
            return
        position = 0
        while True:
            if not await _within(every, source.changed(position)):
                yield []
                continue
            news = list(source.events[position:])
            position += len(news)
            last = news[-1].body
            if isinstance(last, RunFailed | RunCancelled):
                raise self._error(last)
            yield news
            if isinstance(last, RunCompleted):
                return

    def _last(self) -> Body:
        return msgspec.json.decode(self.kept[-1][1], type=Event).body

    def _error(self, body: Body) -> AdjoinError:
        error: AdjoinError = Cancelled(getattr(body, "reason", ""))
        if isinstance(body, RunFailed):
            error = from_wire(body.error)
        error.details.setdefault("run", self.id)
        return error

    async def events(self, position: int, every: float) -> AsyncIterator[tuple[int, str, bytes]]:
        """Number, kind and JSON of events from ``position`` on; with an empty kind whenever nothing
        has happened for ``every`` seconds."""
        while True:
            for number, kind, data in self._from(position):
                position = number + 1
                yield number, kind, data
            if self.ended and position >= len(self.kept):
                return
            try:
                async with asyncio.timeout(every):
                    await self._news(position)
            except TimeoutError:
                yield position, "", b""

    def summary(self) -> dict[str, Any]:
        """What a client may see of it in a list."""
        found: dict[str, Any] = {
            "id": self.id,
            "workflow": self.workflow,
            "version": self.version,
            "revision": self.deployment.revision,
            "state": self.state,
            "created": self.created,
        }
        if self.ended:
            found |= {"seconds": self.seconds, "usage": self.usage}
        return found

    def to_dict(self) -> dict[str, Any]:
        """The summary, and of a run that has ended its outputs or its problem."""
        found = self.summary()
        if self.ended:
            last = self._last()
            if isinstance(last, RunCompleted):
                found["outputs"] = last.outputs
            else:
                found["problem"] = problem_of(self._error(last))
        return found

    def _from(self, position: int) -> list[tuple[int, str, bytes]]:
        if self.ended:
            return [(number, *self.kept[number]) for number in range(position, len(self.kept))]
        events = [] if self.source is None else self.source.events[position:]
        return [(event.seq, type(event.body).__name__, encode(event)) for event in events]

    async def _news(self, position: int) -> None:
        await self._begun.wait()
        if self.source is not None:
            await self.source.changed(position)
            await asyncio.sleep(0)  # whoever follows the run's end comes first

    def _ended_with(self, run: Run) -> None:
        self.billed = run.billed
        self._finish(run.events)

    def _finish(self, events: list[Event]) -> None:
        self.kept = [(type(event.body).__name__, encode(event)) for event in events]
        last = events[-1]
        self.seconds = last.at
        if isinstance(last.body, RunCompleted):
            self.usage, self.state = last.body.usage, "succeeded"
        else:
            used = (event.body.usage for event in events if isinstance(event.body, Used))
            self.usage = sum(used, start=Usage())
            self.state = state_of(last.body)
        self.run = self.source = None
        self._begun.set()
        if self.on_end is not None:
            self.on_end(self)


def state_of(body: Body) -> State:
    """How a run ended whose last event this is."""
    if isinstance(body, RunCompleted):
        return "succeeded"
    if isinstance(body, RunCancelled):
        return "cancelled"
    late = isinstance(body, RunFailed) and body.error.get("code") == DeadlineExceeded.code
    return "expired" if late else "failed"


async def _within(seconds: float, work: Awaitable[Any]) -> bool:
    """Whether it was done in time; it is cancelled otherwise."""
    try:
        async with asyncio.timeout(seconds):
            await work
    except TimeoutError:
        return False
    return True
