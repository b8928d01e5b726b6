"""The driver's end of a segment's conversation."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from adjoin import errors
from adjoin.errors import TransportError
from adjoin.runtime import moves as m
from adjoin.runtime import protocol as p
from adjoin.runtime.conversation import decode
from adjoin.runtime.shipping import definition
from adjoin.transport.trunk import Line

if TYPE_CHECKING:
    from adjoin.runtime.driver import Run

_CLOSE_S = 5.0


class SegmentLink:
    """Opens a segment at its agent, feeds it, and tells the run what the agent says."""

    def __init__(self, run: Run, command: m.OpenSegment) -> None:
        self._run = run
        self._command = command
        self._early: list[p.Message] = []  # said before there was a line
        self._closing = False
        self._asked: set[tuple[str, int]] = set()  # attempts that have not ended yet
        self._over = False
        self._line = run.driver.cluster.line(command.worker, self._open_message())
        self._opened = run.clock()
        self._task = asyncio.ensure_future(self._converse())

    @property
    def done(self) -> bool:
        """Whether the agent holds nothing of the segment any more, or is gone."""
        return self._over or self._task.done()

    def send(self, message: p.Message) -> None:
        if isinstance(message, p.Retry):
            self._asked.add((message.stage, message.attempt))
        if self.done and self._asked:
            self._run.tell(m.SegmentLost(self._command.segment))
        if self._line is None:
            self._early.append(message)
            return
        with contextlib.suppress(TransportError):  # the listener sees that, too
            self._line.send(p.pack(message))

    def close(self) -> None:
        if not (self._closing or self._over):
            self._closing = True
            self.send(p.Close())

    async def ended(self) -> None:
        """Wait until the agent has freed everything; leave it if it does not."""
        if self.done:
            return
        self.close()
        _, late = await asyncio.wait([self._task], timeout=_CLOSE_S)
        for task in late:
            task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _converse(self) -> None:
        try:
            line = self._line or await self._open()
        except TransportError:
            self._over = True
            self._run.tell(m.SegmentLost(self._command.segment, reached=False))
            return
        try:
            await self._listen(line)
        except (TransportError, asyncio.CancelledError) as broken:
            self._over = True
            if isinstance(broken, TransportError):
                self._run.driver.cluster.doubt(self._command.worker)
            self._run.tell(m.SegmentLost(self._command.segment))
        finally:
            line.end()

    async def _open(self) -> Line:
        """The first segment of a worker waits for the connection."""
        cluster = self._run.driver.cluster
        line = await cluster.open_segment(self._command.worker, self._open_message())
        self._opened = self._run.clock()
        for message in self._early:
            line.send(p.pack(message))
        self._line = line
        return line

    def _open_message(self) -> p.Open:
        run, command = self._run, self._command
        return p.Open(
            run=run.id,
            graph=run.graph.version,
            attempts=dict(command.attempts),
            exports=list(command.exports),
            inputs=run.encoded,
            readers={stage: list(readers) for stage, readers in command.readers.items()},
            streaming=run.streaming,
            account=run.account,
            budgets=run.purse.left(),
        )

    async def _listen(self, line: Line) -> None:
        """Until the segment has ended. What comes together is told together: a run whose last
        results come with the end of their segment has nothing left to close."""
        while True:
            facts: list[m.Fact] = []
            for message in await line.receive():
                match decode(message, p.FromAgent):
                    case p.NeedGraph():
                        line.send(p.pack(definition(self._run.graph)))
                    case p.Closed():
                        facts.append(m.SegmentEnded(self._command.segment))
                        self._over = True
                    case said if (fact := self._fact(said)) is not None:
                        facts.append(fact)
            if self._over and self._asked:  # it had ended before it heard of them
                facts.append(m.SegmentLost(self._command.segment))
            self._run.tell(*facts)
            if self._over:
                return

    def _fact(self, said: p.Message) -> m.Fact | None:
        index = self._command.segment
        match said:
            case p.Happened(stage=stage, attempt=attempt, body=body) as h:
                return m.Seen(index, stage, attempt, body, h.place, h.tries, self._opened + h.at)
            case p.Pulled():
                self._run.measures.pulled(said, self._command.worker)
            case p.Streaming(stage=stage, attempt=attempt, ref=flow):
                return m.Flows(index, stage, attempt, flow)
            case p.Done(stage=stage, attempt=attempt) as d:
                self._asked.discard((stage, attempt))
                self._run.measures.done(d, self._command.worker)
                at = self._opened + d.at
                return m.Finished(index, stage, attempt, d.usage, d.value, d.skipped, at)
            case p.Failed(stage=stage, attempt=attempt, error=error):
                self._asked.discard((stage, attempt))
                return m.Broke(index, stage, attempt, errors.from_wire(error))
            case p.PullFailed(stage=stage, ref=ref):
                return m.ValueLost(stage, ref)
        return None
