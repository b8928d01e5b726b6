"""The host: the one small process on a machine that owns its templates and replicas.

It outlives the workers that use it, and ends a while after the last agent has left it. It never
loads a model or converts a file itself, so that its loop always answers.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from adjoin.errors import AdjoinError, TransportError, to_wire, wrap
from adjoin.runtime import process
from adjoin.runtime.loads import SCRATCH, Load, Loads
from adjoin.runtime.paths import agents_directory, sweep_agents
from adjoin.runtime.wire import (
    AgentMessage,
    AskStatus,
    Attached,
    HostConfig,
    Loading,
    Ping,
    Pong,
    Prepare,
    Shutdown,
    Start,
    Started,
    StartFailed,
    Status,
)
from adjoin.transport.frames import Frames, check_peer, listen

SOCKET = "host.sock"
LOCK = "host.lock"
LOG = "logs/host.log"
#: How long a new host waits for an old one that is ending, in seconds.
_SUCCESSION = 30.0


class Host:
    """Serves the agents of one machine."""

    def __init__(self, directory: Path, config: HostConfig) -> None:
        self._directory = directory
        self._config = config
        self._loads = Loads(directory, config)
        self._agents: set[Frames[AgentMessage]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ending = asyncio.Event()
        self._linger: asyncio.TimerHandle | None = None
        self._began = time.monotonic()

    async def serve(self, sock: socket.socket) -> None:
        """Until the last agent has been gone for a while, or one asks for the end."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._ending.set)
        server = await asyncio.start_unix_server(self._connected, sock=sock)
        self._wait_for_agents()
        await self._ending.wait()
        # From here on nobody can attach: who tries starts a new host, which waits for our lock.
        (self._directory / SOCKET).unlink(missing_ok=True)
        server.close()
        for task in self._tasks:
            task.cancel()
        await self._loads.close()
        await asyncio.gather(*(agent.close() for agent in list(self._agents)))

    def _wait_for_agents(self) -> None:
        loop = asyncio.get_running_loop()
        self._linger = loop.call_later(self._config.linger, self._ending.set)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        agent: Frames[AgentMessage] = Frames(reader, writer, AgentMessage)
        try:
            check_peer(writer.get_extra_info("socket"))
            self._agents.add(agent)
            if self._linger is not None:
                self._linger.cancel()
            agent.write(Attached(pid=os.getpid()))
            async for message in agent:
                self._take(agent, message)
        except TransportError as error:
            print(f"a connection was closed: {error}", flush=True)  # noqa: T201 - this is the log
        finally:
            self._agents.discard(agent)
            if not self._agents and not self._ending.is_set():
                self._wait_for_agents()
            await agent.close()

    def _take(self, agent: Frames[AgentMessage], message: AgentMessage) -> None:
        match message:
            case Start():
                self._spawn(self._start(agent, message))
            case Prepare(wanted=wanted):
                for one in wanted:
                    self._loads.get(one)
            case AskStatus(call=call, figures=figures):
                self._spawn(self._status(agent, call, figures))
            case Ping():
                agent.write(Pong())
            case Shutdown():
                self._ending.set()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _start(self, agent: Frames[AgentMessage], start: Start) -> None:
        def tell(phase: str) -> None:
            agent.write(Loading(call=start.call, phase=phase))

        await self._loads.notice(start.gone)
        load = self._loads.get(start.wanted)
        try:
            with load.heard_by(tell):
                await load.wait()
            agent.write(_started(start.call, load))
        except AdjoinError as error:
            agent.write(StartFailed(call=start.call, error=to_wire(error)))
        except Exception as error:  # a defect of ours must reach the caller, not hang it
            agent.write(StartFailed(call=start.call, error=to_wire(wrap(error))))
            raise

    async def _status(self, agent: Frames[AgentMessage], call: int, figures: bool) -> None:
        status: dict[str, Any] = {
            "pid": os.getpid(),
            "directory": str(self._directory),
            "agents": len(self._agents),
            "uptime": time.monotonic() - self._began,
            "rss": process.resident_bytes(os.getpid()),
        }
        status |= await self._loads.describe(figures=figures)
        agent.write(Status(call=call, status=status))


def _started(call: int, load: Load) -> Started:
    replica = load.replica
    return Started(
        call=call,
        replica=replica.id,
        socket=replica.socket.name,
        engine=replica.spec.engine,
        pid=replica.pid,
        capabilities=replica.ready.capabilities,
        dimension=replica.ready.dimension,
        log=replica.log,
    )


def _own(directory: Path) -> int | None:
    """Take the directory's lock for life; None when another host keeps it."""
    lock = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    signal.signal(signal.SIGALRM, _give_up)
    signal.setitimer(signal.ITIMER_REAL, _SUCCESSION)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
    except TimeoutError:
        os.close(lock)
        return None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return lock


def _give_up(*_: object) -> None:
    raise TimeoutError


def main(directory: Path, config: HostConfig, ready: int) -> int:
    """Own the directory, say so on the descriptor ``ready``, and serve."""
    process.ignore_interrupts()
    if _own(directory) is None:
        print("another host keeps this directory", flush=True)  # noqa: T201 - this is the log
        return 1
    _sweep(directory)
    (directory / SCRATCH).mkdir(mode=0o700)
    sock = listen(directory / SOCKET)

    async def serve() -> None:
        host = Host(directory, config)
        os.write(ready, b"1")
        os.close(ready)
        await host.serve(sock)

    with suppress(asyncio.CancelledError):
        asyncio.run(serve())
    _sweep(directory)
    return 0


def _sweep(directory: Path) -> None:
    """Remove what killed replicas and agents left behind."""
    sweep_agents(agents_directory(directory))
    for socket_file in directory.glob("replica-*.sock"):
        socket_file.unlink(missing_ok=True)
    shutil.rmtree(directory / SCRATCH, ignore_errors=True)


if __name__ == "__main__":
    raise SystemExit(
        main(Path(sys.argv[1]), msgspec.json.decode(sys.argv[2], type=HostConfig), int(sys.argv[3]))
    )
