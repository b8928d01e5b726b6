"""An agent's side of the host: attach, start models, see what is there."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adjoin.errors import EngineError, TransportError, from_wire
from adjoin.runtime.host_connection import HostConnection
from adjoin.runtime.host_spawn import connect_or_spawn, host_config
from adjoin.runtime.policies.budget import Tab
from adjoin.runtime.policies.liveness import Deadlines
from adjoin.runtime.remote_model import RemoteModel
from adjoin.runtime.replica_link import ReplicaLink
from adjoin.runtime.wire import (
    AskStatus,
    HostConfig,
    Prepare,
    Shutdown,
    Start,
    Started,
    StartFailed,
    Status,
    Wanted,
)
from adjoin.settings import Settings
from adjoin.types import Body, ModelClient, ModelLoading, ModelReady

if TYPE_CHECKING:
    from adjoin.dag import ModelSpec

_ATTACH_TIMEOUT = 60.0
_CONNECT_ATTEMPTS = 3


class HostLink:
    """An agent's link to the host of its machine, which it starts when there is none.

    It mends itself: when the host has died, the next call starts a new one.
    """

    def __init__(self, directory: Path, config: HostConfig, deadlines: Deadlines) -> None:
        self._directory = directory
        self._config = config
        self._deadlines = deadlines
        self._connection: HostConnection | None = None
        self._attaching = asyncio.Lock()
        self._replicas: dict[bytes, ReplicaLink] = {}
        self._connecting = asyncio.Lock()
        self._ended = False

    @classmethod
    async def attach(cls, directory: Path, settings: Settings) -> HostLink:
        """Connect to the host that keeps ``directory``, starting it when there is none.

        Raises:
            EngineError: no host could be started; the message names its log.
        """
        deadlines = Deadlines(beat_s=settings.heartbeat_s, silence_s=settings.silence_s)
        link = cls(directory.absolute(), host_config(settings), deadlines)
        await link._host()
        return link

    def model(
        self,
        name: str,
        spec: ModelSpec,
        *,
        observe: Callable[[Body], None],
        tab: Tab | None = None,
    ) -> ModelClient:
        """A client for a model. ``observe`` receives ModelLoading, ModelReady and Used.

        Nothing is started before the first call.
        """
        wanted = _wanted(name, spec)
        own = replace(tab or Tab(), model=spec.source)
        return RemoteModel(name, lambda: self._replica(wanted, observe), observe, own)

    async def prepare(self, specs: Mapping[str, ModelSpec]) -> None:
        """Have these models, by name, loaded ahead. Does not wait; the call meets a failure."""
        connection = await self._host()
        connection.frames.write(Prepare(wanted=[_wanted(n, spec) for n, spec in specs.items()]))

    async def status(self, *, figures: bool = False) -> dict[str, Any]:
        """Host, templates and replicas, as plain data; sizes in bytes, times in seconds. With
        ``figures``, those of each replica's engine as :class:`~adjoin.runtime.wire.Stats` has them.
        """
        connection = await self._host()
        answer = await connection.ask(lambda call: AskStatus(call=call, figures=figures), _ignore)
        return answer.status if isinstance(answer, Status) else {}

    async def shutdown(self) -> None:
        """End the host and all its replicas, for every agent; returns when no process is left.

        What still runs here then fails, instead of starting a host again for its next attempt.
        """
        self._ended = True
        connection = self._connection
        if connection is not None and connection.open:
            connection.frames.write(Shutdown())
            await connection.ended()
            await _gone(connection.pid)
        await self.detach()

    async def detach(self) -> None:
        """Hang up: calls in flight are aborted. The host ends some time after its last agent."""
        links = list(self._replicas.values())
        self._replicas.clear()
        await asyncio.gather(*(link.close() for link in links))
        if self._connection is not None:
            await self._connection.close()
            self._connection = None

    async def _host(self) -> HostConnection:
        async with self._attaching:
            if self._ended:
                raise EngineError("the host of this machine's models was shut down")
            if self._connection is None or not self._connection.open:
                self._connection = await self._attach()
            return self._connection

    async def _attach(self) -> HostConnection:
        """A connection that the host has acknowledged; one that is just ending does not, nor one
        that is frozen, which is killed."""
        deadline = time.monotonic() + _ATTACH_TIMEOUT
        while True:
            sock = await asyncio.to_thread(connect_or_spawn, self._directory, self._config)
            connection = await HostConnection.over(sock, self._deadlines)
            try:
                if await connection.attached():
                    return connection
            except asyncio.CancelledError:  # else it would keep the host for nobody
                await connection.close()
                raise
            await connection.close()
            if time.monotonic() > deadline:
                raise EngineError("no host answers", where=str(self._directory))

    async def _replica(
        self, wanted: Wanted, observe: Callable[[Body], None]
    ) -> tuple[ReplicaLink, float]:
        known = self._replicas.get(wanted.key)
        if known is not None and known.open:
            return known, 0.0
        began = time.perf_counter()
        cold = False

        def heard(phase: str) -> None:
            nonlocal cold
            cold = True
            observe(ModelLoading(model=wanted.name, phase=phase))

        link = await self._find(wanted, heard, known.started.replica if known else "")
        if not cold:
            return link, 0.0
        waited = time.perf_counter() - began
        observe(ModelReady(model=wanted.name, seconds=waited))
        return link, waited

    async def _find(self, wanted: Wanted, heard: Callable[[str], None], gone: str) -> ReplicaLink:
        """A replica that accepts a connection; when one died since its start, another."""
        for _ in range(_CONNECT_ATTEMPTS):
            started = await self._start(wanted, heard, gone)
            try:
                return await self._connect(wanted, started)
            except EngineError as error:
                gone, failed = started.replica, error
        raise failed

    async def _start(self, wanted: Wanted, heard: Callable[[str], None], gone: str) -> Started:
        connection = await self._host()
        answer = await connection.ask(
            lambda call: Start(call=call, wanted=wanted, gone=gone), heard
        )
        if isinstance(answer, StartFailed):
            raise from_wire(answer.error)
        if not isinstance(answer, Started):
            raise TransportError(f"the host answered {type(answer).__name__}")
        return answer

    async def _connect(self, wanted: Wanted, started: Started) -> ReplicaLink:
        """One connection to a replica, however many calls waited for it."""
        async with self._connecting:
            known = self._replicas.get(wanted.key)
            if known is not None and known.open and known.started.replica == started.replica:
                return known
            link = await ReplicaLink.to(self._directory, started, wanted.name)
            self._replicas[wanted.key] = link
            return link


def _wanted(name: str, spec: ModelSpec) -> Wanted:
    source = spec.source
    if source.startswith(("./", "../", "~")):
        # The host runs elsewhere: what is relative is so to the caller's directory.
        source = str(Path(source).expanduser().absolute())
    return Wanted(name=name, source=source, engine=spec.engine, args=dict(spec.args))


def _ignore(_: str) -> None:
    pass


async def _gone(pid: int) -> None:
    """Wait until a process has ended, whoever its parent is."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(pidfd, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)
