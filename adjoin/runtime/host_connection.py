"""One connection of an agent to the host of its machine, which is watched on it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import time
from collections.abc import Callable
from itertools import count
from typing import Any

from adjoin.errors import EngineError
from adjoin.runtime.policies.liveness import Deadlines, Verdict
from adjoin.runtime.pulse import Pulse, beats
from adjoin.runtime.wire import Attached, HostMessage, Loading, Ping, Pong
from adjoin.transport.frames import Frames, peer_pid

_log = logging.getLogger("adjoin.agent")


class HostConnection:
    """When the host dies, so does this.

    A host that is stopped, or does not answer until its deadline, is killed: its replicas go with
    it, whoever waits for one of them hears that now, and the next call starts another host. Each
    agent of the machine watches it by itself, so that it does not matter which of them live.
    """

    def __init__(self, frames: Frames[HostMessage], pid: int, deadlines: Deadlines) -> None:
        self.pid = pid
        self.frames = frames
        self.open = True
        self._calls: dict[int, asyncio.Queue[HostMessage | None]] = {}
        self._numbers = count()
        self._deadlines = deadlines
        self._pulse = Pulse(time.monotonic(), pid)
        self._attached: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._reader = asyncio.create_task(self._read())
        self._watcher = asyncio.create_task(self._watch())

    @classmethod
    async def over(cls, sock: socket.socket, deadlines: Deadlines) -> HostConnection:
        pid = peer_pid(sock)
        return cls(await Frames.over(sock, HostMessage), pid, deadlines)

    async def attached(self) -> bool:
        """Whether the host has said that we are; False once it has hung up."""
        return await asyncio.shield(self._attached)

    async def ask(self, make: Callable[[int], Any], heard: Callable[[str], None]) -> HostMessage:
        """Send ``make(number)`` and wait for the answer; ``heard`` is told of each phase before it.

        Raises:
            EngineError: the host died.
        """
        number = next(self._numbers)
        answers = self._calls[number] = asyncio.Queue()
        try:
            if not self.open:
                raise self._died()
            self.frames.write(make(number))
            while True:
                match await answers.get():
                    case None:
                        raise self._died()
                    case Loading(phase=phase):
                        heard(phase)
                    case answer:
                        return answer
        finally:
            del self._calls[number]

    async def ended(self) -> None:
        """Wait for the end of the host."""
        await asyncio.gather(self._reader, return_exceptions=True)

    async def close(self) -> None:
        """Hang up."""
        self._reader.cancel()
        await self.ended()

    async def _read(self) -> None:
        try:
            async for message in self.frames:
                self._pulse.heard = time.monotonic()
                match message:
                    case Attached():
                        if not self._attached.done():
                            self._attached.set_result(True)
                    case Pong():
                        pass
                    case answer if (call := self._calls.get(answer.call)) is not None:
                        call.put_nowait(answer)
        finally:
            self.open = False
            self._watcher.cancel()
            if not self._attached.done():
                self._attached.set_result(False)
            for call in self._calls.values():
                call.put_nowait(None)
            await self.frames.close()

    async def _watch(self) -> None:
        with contextlib.suppress(OSError):  # it has gone, or is in another namespace of processes
            pidfd = os.pidfd_open(self.pid)
            try:
                await self._until_dead()
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            finally:
                os.close(pidfd)

    async def _until_dead(self) -> None:
        pulse = self._pulse
        async for now, late in beats(self._deadlines.beat_s / 2):
            pulse.forgive(late, now)
            if pulse.judged(now, self._deadlines) is Verdict.DEAD:
                silent = now - pulse.heard
                _log.warning(
                    "the host (process %d) was silent for %.1f s: killed", self.pid, silent
                )
                return
            self.frames.write(Ping())

    def _died(self) -> EngineError:
        return EngineError(f"the host of this machine's models (process {self.pid}) died")
