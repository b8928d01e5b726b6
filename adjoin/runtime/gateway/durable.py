"""A durable run as the service knows it: its readers are shown what the journal has."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from adjoin.dag import Graph
from adjoin.errors import AdjoinError, Overloaded
from adjoin.runtime.database.journal import Accepted, Known, Shown
from adjoin.runtime.driver import Run
from adjoin.runtime.gateway.deployments import Deployment
from adjoin.runtime.gateway.gate import Gate
from adjoin.runtime.gateway.journal import RunJournal, RunsJournal
from adjoin.runtime.gateway.records import CLOSING, RunRecord, state_of
from adjoin.runtime.policies.admission import Limits
from adjoin.runtime.policies.billing import Billed, Settlement
from adjoin.runtime.run import closing_body
from adjoin.types import Event, RunCompleted, Usage, Used

_log = logging.getLogger("adjoin.gateway")


#: Turns of the loop in which what follows at once comes along into the same write.
_TURNS = 4


class _Shown:
    """The events that are in the journal; what readers read."""

    def __init__(self, events: Sequence[Event]) -> None:
        self.events = list(events)
        self.ended = False
        self._news = asyncio.Event()

    async def changed(self, position: int) -> None:
        while position >= len(self.events) and not self.ended:
            self._news.clear()
            await self._news.wait()

    def add(self, news: Sequence[Event]) -> None:
        self.events += news
        self._news.set()

    def end(self) -> None:
        self.ended = True
        self._news.set()


class DurableRecord(RunRecord):
    """One durable run.

    Every event is in the journal before a reader is sent it, and its end before anybody is told
    that it has ended. Whoever asked for it may leave. When the service ends before it does, it is
    *suspended*: nothing more is written, and the next service goes on with it.
    """

    durable = True

    def __init__(
        self, deployment: Deployment, accepted: Accepted, runs: RunsJournal, journal: RunJournal
    ) -> None:
        super().__init__(deployment, accepted.id)
        self.accepted = accepted
        self.created = accepted.created
        self.trace = accepted.trace
        self.journal = journal
        self.suspended = False
        self._runs = runs
        self._seen = _Shown(journal.history)
        self._closing: asyncio.Task[None] | None = None
        self.source = self._seen

    @property
    def left_s(self) -> float:
        """Seconds until its deadline; its time counts from its acceptance."""
        return self.accepted.deadline - time.time()

    def began(self, run: Run) -> None:
        self.started = time.time()
        self.run = run
        self.state = "running"
        self._begun.set()
        self._closing = asyncio.ensure_future(self._follow(run))
        if self.suspended:
            run.cancel("the service is ending")
        elif self._cancelled:
            run.cancel(self._cancelled)

    @property
    def version(self) -> str:
        return self.accepted.version

    def when_freed(self, run: Run, call: Callable[[], None]) -> None:
        async def ended() -> None:
            assert self._closing is not None
            await asyncio.gather(self._closing, run.finished(), return_exceptions=True)
            call()

        task = asyncio.ensure_future(ended())
        _tasks.add(task)
        task.add_done_callback(_tasks.discard)

    @property
    def cancelled(self) -> str:
        """Why it is to be cancelled; nothing when it is not."""
        return self._cancelled

    def cancel(self, reason: str) -> None:
        self._cancelled = self._cancelled or reason  # also of one that does not wait yet
        super().cancel(reason)

    def left(self, reason: str) -> None:
        """It goes on: the same request finds it by its key, and anybody by its id."""

    def suspend(self) -> None:
        """The service ends: stop, and leave the run as the journal has it. What waits to be written
        because the disk is full does not keep the service."""
        self.suspended = True
        if self._closing is not None:
            self._closing.cancel()
        self.cancel("the service is ending")
        self._seen.end()
        self._begun.set()

    async def refuse(self, error: AdjoinError) -> None:
        """It ends before it started, or began again."""
        position = len(self._seen.events)
        body = closing_body(error)
        last = Event(run=self.id, seq=position, at=time.time() - self.created, body=body)
        self._closing = asyncio.ensure_future(self._end([last], {}))
        await asyncio.wait([self._closing])
        if not self._closing.cancelled():  # else it is suspended
            self._closing.result()
            self._finish(self._seen.events)

    async def outcome(self) -> RunCompleted:
        await self._begun.wait()
        while not self.suspended and not _closed(self._seen.events):
            await self._seen.changed(len(self._seen.events))
        if self.suspended and not _closed(self._seen.events):
            raise Overloaded(
                "the service is ending; the run goes on when it has started again",
                where=f"run {self.id}",
                hint="send the same request with the same Idempotency-Key, or look at the run",
                retry_after=5.0,
                run=self.id,
            )
        body = self._seen.events[-1].body  # as it is: what was kept went through JSON
        if isinstance(body, RunCompleted):
            return body
        raise self._error(body)

    async def _follow(self, run: Run) -> None:
        try:
            await self._show_all(run)
        except Exception:  # noqa: BLE001 - a bug of ours leaves the run as the journal has it
            _log.exception("run %s is left to the next service", self.id)
            self.suspend()

    async def _show_all(self, run: Run) -> None:
        position = len(self._seen.events)
        while True:
            await run.changed(position)
            for _ in range(_TURNS):
                await asyncio.sleep(0)
            news = [] if self.suspended else list(run.events[position:])
            position += len(news)
            if not news:
                return
            if _closed(news):
                self.billed = run.billed
                await self._end(news, run.billed)
                self._finish(self._seen.events)
                return
            await self._runs.show(self.id, news)
            self._seen.add(news)

    async def _end(self, news: Sequence[Event], billed: Mapping[str, Billed]) -> None:
        last = news[-1].body
        settlement = Settlement(
            run=self.id,
            billed=billed,
            tenant=self.tenant,
            workflow=self.workflow,
            version=self.version,
            state=state_of(last),
            at=time.time(),
        )
        await self._runs.end(settlement, news, _usage([*self._seen.events, *news]))
        self._seen.add(news)
        self._seen.end()


@dataclass(frozen=True)
class _Named:
    """What is known of the deployment of a run that ended under another service."""

    tenant: str
    name: str
    revision: int
    version: str
    graph: Any = field(default=None)


class EndedRecord(RunRecord):
    """A durable run that has ended, as the journal has it."""

    durable = True

    def __init__(
        self, known: Known, shown: Sequence[Shown], outputs: Mapping[str, Any] | None = None
    ) -> None:
        accepted = known.accepted
        named: Any = _Named(accepted.tenant, accepted.workflow, accepted.revision, accepted.version)
        super().__init__(named, accepted.id)
        self.accepted = accepted
        self._outputs = outputs
        self.created = self.started = accepted.created
        self.kept = [(each.kind, each.data) for each in shown]
        self.state = known.state  # type: ignore[assignment]
        self.usage, self.seconds = known.usage, known.seconds
        self._begun.set()

    @property
    def version(self) -> str:
        return self.accepted.version

    def left(self, reason: str) -> None:
        """It has ended."""

    async def outcome(self) -> RunCompleted:
        found = await super().outcome()
        if self._outputs is None:
            return found
        return msgspec.structs.replace(found, outputs=dict(self._outputs))

    async def live(self, every: float) -> AsyncGenerator[list[Event]]:
        ended = await self.outcome()
        events = [msgspec.json.decode(data, type=Event) for _, data in self.kept]
        yield [*events[:-1], msgspec.structs.replace(events[-1], body=ended)]


def detached(accepted: Accepted, graph: Graph, runnable: Graph, limits: Limits) -> Deployment:
    """The deployment of a run whose version is not deployed any more."""
    return Deployment(
        tenant=accepted.tenant,
        graph=graph,
        runnable=runnable,
        gate=Gate(limits),
        revision=accepted.revision,
        draining=True,
    )


def _closed(events: Sequence[Event]) -> bool:
    return bool(events) and isinstance(events[-1].body, CLOSING)


def _usage(events: Sequence[Event]) -> Usage:
    if isinstance(last := events[-1].body, RunCompleted):
        return last.usage
    used = (event.body.usage for event in events if isinstance(event.body, Used))
    return sum(used, start=Usage())


_tasks: set[asyncio.Task[None]] = set()
