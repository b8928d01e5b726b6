"""The driver's end of a segment's connection."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable
from typing import TYPE_CHECKING

from adjoin import errors
from adjoin.errors import TransportError
from adjoin.runtime import moves as m
from adjoin.runtime import protocol as p
from adjoin.runtime.conversation import decode
from adjoin.runtime.shipping import definition
from adjoin.transport.eager import started
from adjoin.transport.remote import Channel

if TYPE_CHECKING:
    from adjoin.runtime.driver import Run

_CLOSE_S = 5.0


class SegmentLink:
    """Opens a segment at its agent, feeds it, and tells the run what the agent says."""

    def __init__(self, run: Run, command: m.OpenSegment) -> None:
        self._run = run
        self._command = command
        self._out: asyncio.Queue[p.Message] = asyncio.Queue()
        self._closing = False
        self._asked: set[tuple[str, int]] = set()  # attempts that have not ended yet
        self._sending = False
        self._channel: Channel | None = None
        self._sender: asyncio.Task[None] | None = None
        self._over = False
        idle = run.driver.cluster.idle_channel(command.worker)
        sent = None if idle is None else started(idle.send([p.pack(self._open_message())]))
        self._task = asyncio.ensure_future(self._converse(idle, sent))

    @property
    def done(self) -> bool:
        """Whether the agent holds nothing of the segment any more, or is gone."""
        return self._over or self._task.done()

    def send(self, message: p.Message) -> None:
        if isinstance(message, p.Retry):
            self._asked.add((message.stage, message.attempt))
        if self.done and self._asked:
            self._run.tell(m.SegmentLost(self._command.segment))
        self._out.put_nowait(message)
        self._start_sender()

    def close(self) -> None:
        if not (self._closing or self._over):
            self._closing = True
            self.send(p.Close())

    async def ended(self) -> None:
        """Wait until the agent has freed everything; cut the connection if it does not."""
        if self.done:
            return
        self.close()
        _, late = await asyncio.wait([self._task], timeout=_CLOSE_S)
        for task in late:
            task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _converse(self, idle: Channel | None, sent: Awaitable[None] | None) -> None:
        try:
            channel = await self._open(idle, sent)
        except TransportError:
            self._over = True
            self._run.tell(m.SegmentLost(self._command.segment, reached=False))
            return
        self._channel = channel
        self._opened = self._run.clock()
        self._start_sender()
        try:
            await self._listen(channel)
        except (TransportError, asyncio.CancelledError) as broken:
            channel.abort()
            self._over = True
            if isinstance(broken, TransportError):
                self._run.driver.cluster.doubt(self._command.worker)
            self._run.tell(m.SegmentLost(self._command.segment))
        finally:
            if self._sender is not None:
                self._sender.cancel()

    def _start_sender(self) -> None:
        """Most segments are never told anything after their start."""
        if self._sender is None and self._channel is not None and not self._out.empty():
            self._sender = asyncio.ensure_future(self._send_all(self._channel))

    def _leave(self, channel: Channel) -> None:
        """The connection serves the next segment, unless half a message may be on it."""
        self._over = True
        if self._sender is not None:
            self._sender.cancel()
        if self._sending:
            channel.abort()
        else:
            self._run.driver.cluster.keep(channel)

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

    async def _open(self, idle: Channel | None, sent: Awaitable[None] | None) -> Channel:
        if idle is None or sent is None:
            cluster = self._run.driver.cluster
            return await cluster.open_segment(self._command.worker, self._open_message())
        await sent
        return idle

    async def _send_all(self, channel: Channel) -> None:
        with contextlib.suppress(TransportError):  # the listener sees that, too
            while True:
                message = await self._out.get()
                self._sending = True
                await channel.send([p.pack(message)])
                self._sending = False

    async def _listen(self, channel: Channel) -> None:
        """Until the segment has ended. What comes together is told together: a run whose last
        results come with the end of their segment has nothing left to close."""
        while True:
            messages, _ = await channel.receive()
            facts: list[m.Fact] = []
            for message in messages:
                match decode(message, p.FromAgent):
                    case p.NeedGraph():
                        await channel.send([p.pack(definition(self._run.graph))])
                    case p.Closed():
                        facts.append(m.SegmentEnded(self._command.segment))
                        self._leave(channel)
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
