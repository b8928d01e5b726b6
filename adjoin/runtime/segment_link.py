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
        self._line: Line | None = None
        self._task = asyncio.ensure_future(self._converse())

    def send(self, message: p.Message) -> None:
        if isinstance(message, p.Retry):
            self._asked.add((message.stage, message.attempt))
        if self._task.done() and self._asked:
            self._run.tell(m.SegmentLost(self._command.segment))
        if self._line is None:
            self._early.append(message)
            return
        with contextlib.suppress(TransportError):  # the listener sees that, too
            self._line.send(p.pack(message))

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self.send(p.Close())

    async def ended(self) -> None:
        """Wait for the agent to free everything; cut the connection if it does not."""
        if self._task.done():
            return
        self.close()
        _, late = await asyncio.wait([self._task], timeout=_CLOSE_S)
        for task in late:
            task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _converse(self) -> None:
        try:
            line = await self._open()
        except TransportError:
            self._run.tell(m.SegmentLost(self._command.segment, reached=False))
            return
        self._line = line
        self._opened = self._run.clock()
        try:
            for message in self._early:
                line.send(p.pack(message))
            await self._listen(line)
        except (TransportError, asyncio.CancelledError) as broken:
            if isinstance(broken, TransportError):
                self._run.driver.cluster.doubt(self._command.worker)
            self._run.tell(m.SegmentLost(self._command.segment))
        else:
            self._run.tell(m.SegmentEnded(self._command.segment))
            if self._asked:  # it had ended before it heard of them
                self._run.tell(m.SegmentLost(self._command.segment))
        finally:
            line.end()

    async def _open(self) -> Line:
        run, command = self._run, self._command
        message = p.Open(
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
        return await run.driver.cluster.open_segment(command.worker, message)

    async def _listen(self, line: Line) -> None:
        index = self._command.segment
        tell = self._run.tell
        while True:
            for message in await line.receive():
                match decode(message, p.FromAgent):
                    case p.NeedGraph():
                        line.send(p.pack(definition(self._run.graph)))
                    case p.Happened() as h:
                        at = self._opened + h.at
                        tell(m.Seen(index, h.stage, h.attempt, h.body, h.place, h.tries, at))
                    case p.Pulled() as pulled:
                        self._run.measures.pulled(pulled, self._command.worker)
                    case p.Streaming(stage=stage, attempt=attempt, ref=flow):
                        tell(m.Flows(index, stage, attempt, flow))
                    case p.Done() as d:
                        self._asked.discard((d.stage, d.attempt))
                        self._run.measures.done(d, self._command.worker)
                        at = self._opened + d.at
                        tell(m.Finished(index, d.stage, d.attempt, d.usage, d.value, d.skipped, at))
                    case p.Failed(stage=stage, attempt=attempt, error=error):
                        self._asked.discard((stage, attempt))
                        tell(m.Broke(index, stage, attempt, errors.from_wire(error)))
                    case p.PullFailed(stage=stage, ref=ref):
                        tell(m.ValueLost(stage, ref))
                    case p.Closed():
                        return
