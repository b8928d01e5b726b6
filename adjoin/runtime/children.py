"""The host's side of its children: templates that it started, replicas that they forked."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from adjoin.errors import AdjoinError, EngineError, from_wire
from adjoin.functions.engines.base import LoadSpec
from adjoin.runtime.process import resident_bytes
from adjoin.runtime.template import MAX_MESSAGE
from adjoin.runtime.wire import (
    AskStats,
    Exited,
    Fork,
    Forked,
    LoadFailed,
    Ready,
    ReplicaMessage,
    Stats,
    TemplateMessage,
    Warm,
    WarmFailed,
)
from adjoin.transport.frames import Frames

_STATS_TIMEOUT = 1.0
#: The same when the engines' figures are asked for: who asks waits for all of them together.
_FIGURES_TIMEOUT = 0.3
#: How long a killed process may take to be gone; longer means stuck in the kernel.
_DEATH_TIMEOUT = 30.0
#: How long an exit code may take to arrive after the death was seen.
_EXIT_CODE_TIMEOUT = 1.0


class Template:
    """A template process. :meth:`fork` while :attr:`alive`."""

    def __init__(
        self, engine: str, child: asyncio.subprocess.Process, control: socket.socket, log: Path
    ) -> None:
        self.engine = engine
        self.pid = child.pid
        self.log = log
        self.seconds = 0.0
        self.alive = True
        self._child = child
        self._control = control
        self._decoder = msgspec.msgpack.Decoder[TemplateMessage](TemplateMessage)
        loop = asyncio.get_running_loop()
        self._warm: asyncio.Future[float] = loop.create_future()
        self._forks: dict[str, asyncio.Future[int]] = {}
        self._exits: dict[str, asyncio.Future[int]] = {}
        loop.add_reader(control.fileno(), self._readable)

    @classmethod
    async def start(cls, engine: str, directory: Path, environment: dict[str, str]) -> Template:
        """Start the process and wait until it has imported its engine.

        Raises:
            ModelError: the engine is not installed or cannot be imported.
            EngineError: the process died.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        log = directory / "logs" / f"template-{engine}.log"
        with theirs, log.open("wb") as output:
            child = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "adjoin.runtime.template", engine, str(theirs.fileno())),
                pass_fds=(theirs.fileno(),),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                start_new_session=True,
            )
        template = cls(engine, child, ours, log)
        try:
            template.seconds = await template._warm
        except BaseException:
            await template.stop()
            raise
        return template

    async def fork(self, fork: Fork, link: socket.socket) -> tuple[int, asyncio.Future[int]]:
        """The new process's id, and the future of its exit code."""
        loop = asyncio.get_running_loop()
        forked = self._forks[fork.replica] = loop.create_future()
        exited = self._exits[fork.replica] = loop.create_future()
        socket.send_fds(self._control, [msgspec.msgpack.encode(fork)], [link.fileno()])
        return await forked, exited

    async def stop(self) -> None:
        self._closed()
        if self._child.returncode is None:
            self._child.kill()
        await self._child.wait()

    def describe(self) -> dict[str, Any]:
        return {
            "engine": self.engine,
            "pid": self.pid,
            "seconds": self.seconds,
            "rss": resident_bytes(self.pid),
            "log": str(self.log),
        }

    def _readable(self) -> None:
        try:
            data = self._control.recv(MAX_MESSAGE)
        except BlockingIOError:
            return
        except ConnectionError:
            data = b""
        if not data:
            self._closed()
            return
        match self._decoder.decode(data):
            case Warm(seconds=seconds):
                self._warm.set_result(seconds)
            case WarmFailed(error=error):
                self._warm.set_exception(from_wire(error))
            case Forked(replica=name, pid=pid):
                self._forks.pop(name).set_result(pid)
            case Exited(replica=name, code=code):
                self._exits.pop(name).set_result(code)

    def _closed(self) -> None:
        """The template has gone; the replicas it forked live on."""
        if not self.alive:
            return
        self.alive = False
        asyncio.get_running_loop().remove_reader(self._control.fileno())
        self._control.close()
        lost = EngineError(
            f"the template of engine {self.engine!r} died", hint=f"its log is {self.log}"
        )
        waiting: list[asyncio.Future[Any]] = [self._warm, *self._forks.values()]
        for future in waiting:
            if not future.done():
                future.set_exception(lost)
                future.exception()  # whoever waited may have left
        for exited in self._exits.values():
            exited.cancel()


class Replica:
    """A replica process, from its fork to its death.

    Its connection's end is the first sign of its death, and comes at once; :attr:`died` is set when
    the process is gone.
    """

    def __init__(self, fork: Fork) -> None:
        self.id = fork.replica
        self.spec: LoadSpec = fork.spec
        self.socket = Path(fork.socket)
        self.log = fork.log
        self.pid = 0
        self.state = "forking"
        self.ready = Ready(capabilities=[], context=0, dimension=0, seconds=0.0)
        self.died = asyncio.Event()
        self._fork = fork
        self._pidfd = -1
        self._link: Frames[ReplicaMessage]
        self._loaded: asyncio.Future[Ready] = asyncio.get_running_loop().create_future()
        self._stats: asyncio.Queue[Stats | None] = asyncio.Queue()
        self._asking = asyncio.Lock()
        self._life: asyncio.Task[None]

    @property
    def alive(self) -> bool:
        return self.state == "ready"

    async def start(self, template: Template) -> asyncio.Future[Ready]:
        """Fork the process; the future is of its load.

        Raises:
            EngineError: the template died.
        """
        ours, theirs = socket.socketpair()
        self._link = await Frames.over(ours, ReplicaMessage)
        try:
            with theirs:
                self.pid, exit_code = await template.fork(self._fork, theirs)
            with suppress(ProcessLookupError):  # it is over; its connection says why
                self._pidfd = os.pidfd_open(self.pid)
        except BaseException:
            await self._link.close()
            raise
        self.state = "loading"
        self._life = asyncio.create_task(self._live(exit_code))
        return self._loaded

    @property
    def loading(self) -> bool:
        return self.state == "loading"

    async def stats(self, *, figures: bool = False) -> Stats | None:
        """Its queue and totals, and its engine's figures when asked for; None when it does not
        answer."""
        if not (self.alive or self.loading):
            return None
        async with self._asking:
            while not self._stats.empty():  # answers that came too late
                self._stats.get_nowait()
            self._link.write(AskStats(figures=figures))
            patience = _FIGURES_TIMEOUT if figures else _STATS_TIMEOUT
            try:
                return await asyncio.wait_for(self._stats.get(), patience)
            except TimeoutError:
                return None

    def kill(self) -> None:
        """End it, with what it may have started. It holds nothing that must be saved."""
        if self._pidfd < 0:
            return
        with suppress(ProcessLookupError):
            if os.getpgid(self.pid) == self.pid:
                os.killpg(self.pid, signal.SIGKILL)
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    async def describe(self, *, figures: bool = False) -> dict[str, Any]:
        stats = await self.stats(figures=figures)
        told = {"figures": stats.figures} if stats and stats.figures else {}
        return told | {
            "id": self.id,
            "model": self.spec.model,
            "engine": self.spec.engine,
            "pid": self.pid,
            "state": self.state,
            "load_seconds": self.ready.seconds,
            "queued": stats.queued if stats else None,
            "running": stats.running if stats else None,
            "totals": stats.totals if stats else {},
            "rss": resident_bytes(self.pid),
            "log": self.log,
        }

    async def _live(self, exit_code: asyncio.Future[int]) -> None:
        try:
            async for message in self._link:
                self._take(message)
        finally:
            self.state = "dead"
            self._stats.put_nowait(None)
            self.kill()
            await self._link.close()
            await self._gone()
            if not self._loaded.done():
                self._loaded.set_exception(await self._died_loading(exit_code))
                self._loaded.exception()  # whoever waited may have left
            self.socket.unlink(missing_ok=True)
            self.died.set()

    def _take(self, message: ReplicaMessage) -> None:
        match message:
            case Ready():
                self.ready = message
                self.state = "ready"
                self._loaded.set_result(message)
            case LoadFailed(error=error):
                self._loaded.set_exception(from_wire(error))
            case Stats():
                self._stats.put_nowait(message)

    async def _gone(self) -> None:
        """Wait until the process has ended, whoever its parent is."""
        if self._pidfd < 0:
            return
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_reader(self._pidfd, ended.set)
        try:
            await asyncio.wait_for(ended.wait(), _DEATH_TIMEOUT)
        except TimeoutError:
            print(f"process {self.pid} does not die", flush=True)  # noqa: T201 - this is the log
        finally:
            loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    async def _died_loading(self, exit_code: asyncio.Future[int]) -> AdjoinError:
        how = ""
        with suppress(asyncio.CancelledError, TimeoutError):
            code = await asyncio.wait_for(exit_code, _EXIT_CODE_TIMEOUT)
            how = f" by {signal.Signals(-code).name}" if code < 0 else f" with exit code {code}"
        return EngineError(
            f"its process died{how} while it loaded",
            where=f"model {self.spec.model!r}",
            hint=f"its log is {self.log}",
        )
