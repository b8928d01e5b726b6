"""The Dask cluster as the driver sees it: workers that come and go, and conversations with them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import sys
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from distributed import Client
from distributed.core import ConnectionPool

from adjoin.errors import InputError, NotFound, TransportError
from adjoin.runtime import protocol as p
from adjoin.runtime.agent import AgentPlugin
from adjoin.runtime.conversation import decode, receive_value
from adjoin.runtime.paths import runtime_directory
from adjoin.runtime.policies.topology import Device, Topology, Worker
from adjoin.settings import Settings
from adjoin.transport import codec
from adjoin.transport.remote import Channel
from adjoin.transport.ucx import is_ucx, prepare

_POLL_S = 0.5
_START_S = 60.0
_STOP_S = 10.0
#: Connections that wait for their next segment, to all workers; Dask's pool has 512 in all.
_KEPT_IDLE = 128
_LOOPBACK = ("127.", "[::1]", "::1", "localhost")


class Cluster:
    """Knows the workers that have an agent; ``topology`` is replaced whenever that changes."""

    def __init__(self, client: Client, settings: Settings, id: str, members: list[_Member]) -> None:
        self.topology = Topology(epoch=0, workers=())
        #: By address of the worker, for those that are there.
        self._idle: dict[str, list[Channel]] = {}
        self.id = id
        self._client = client
        self._settings = settings
        self._members = members
        self._watches: dict[str, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()
        self._membership: asyncio.Task[None] | None = None
        self.owns_processes = bool(members)

    @classmethod
    async def embedded(cls, settings: Settings) -> Cluster:
        """Start a scheduler and workers as processes of this machine.

        Raises:
            InputError: the protocol is not to be had here.
            TransportError: a process did not start.
        """
        if is_ucx(settings.protocol):
            prepare()
        id = uuid.uuid4().hex
        logs = runtime_directory(id) / "logs"
        logs.mkdir(parents=True, mode=0o700)
        members: list[_Member] = []
        try:
            scheduler = await _Member.start("scheduler", logs, "scheduler", settings.protocol)
            members.append(scheduler)
            names = [f"worker-{number}" for number in range(settings.workers)]
            starts = [_Member.start(name, logs, "worker", scheduler.address) for name in names]
            started = await asyncio.gather(*starts, return_exceptions=True)
            members.extend(each for each in started if isinstance(each, _Member))
            for failed in started:
                if isinstance(failed, BaseException):
                    raise failed
            client = await Client(scheduler.address, asynchronous=True, set_as_default=False)
            return await cls(client, settings, id, members)._begin()
        except BaseException:
            await _stop(members)
            shutil.rmtree(logs.parent, ignore_errors=True)
            raise

    @classmethod
    async def join(cls, cluster: str | Client, settings: Settings) -> Cluster:
        """Use a running cluster, by its scheduler's address or by a client of it.

        Raises:
            InputError: the address is neither loopback nor TLS, and the network is not trusted.
            TransportError: no scheduler answers there.
        """
        address = address_of(cluster)
        _check_trust(address, settings)
        if is_ucx(address):
            prepare()
        security = None if isinstance(cluster, str) else cluster.security
        try:
            client = await Client(
                address,
                asynchronous=True,
                set_as_default=False,
                security=security,
                timeout=settings.connect_timeout_s,
            )
        except (OSError, TimeoutError, ValueError) as error:
            raise TransportError(
                f"no scheduler answers: {error}", where=address, hint="check the address"
            ) from None
        identity = await client.scheduler.identity()
        return await cls(client, settings, str(identity["id"]), [])._begin()

    @property
    def address(self) -> str:
        """The scheduler's."""
        return str(self._client.scheduler.address)

    @property
    def pids(self) -> dict[str, int]:
        """The processes that this cluster started, by name."""
        return {member.name: member.pid for member in self._members}

    async def close(self) -> None:
        """Leave the cluster; end it when it is embedded."""
        for address in list(self._idle):
            self._forget_idle(address)
        if self.owns_processes:
            await self._shut_hosts()
        tasks = [*self._watches.values(), *([self._membership] if self._membership else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with contextlib.suppress(OSError, TimeoutError):
            await self._client.close(timeout=2)
        await _stop(self._members)
        if self.owns_processes:
            shutil.rmtree(runtime_directory(self.id), ignore_errors=True)

    async def ready(self) -> Topology:
        """The topology once it has a worker.

        Raises:
            TransportError: there is none, and none came in time.
        """
        try:
            async with asyncio.timeout(self._settings.worker_wait_s):
                while not self.topology.workers:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise TransportError(
                f"no worker came within {self._settings.worker_wait_s:g} s",
                where=str(self._client.scheduler.address),
                hint="see whether the scheduler and its workers run",
            ) from None
        return self.topology

    async def complete(self) -> Topology:
        """The topology once all workers that the scheduler knows have an agent, or time is up."""
        await self.ready()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.worker_wait_s):
                known = (await self._client.scheduler.identity())["workers"]
                while len(self.topology.workers) < len(known):
                    self._changed.clear()
                    await self._changed.wait()
        return self.topology

    async def open(self, worker: str, operation: str, message: p.Message) -> Channel:
        """Start a conversation with a worker's agent."""
        found = self.topology.worker(worker)
        if found is None:
            raise TransportError("the worker is gone", where=worker)
        return await Channel.open(self._pool, found.address, operation, p.pack(message))

    async def open_segment(self, worker: str, message: p.Message) -> Channel:
        """Start a segment, on a connection where one has ended when there is such."""
        found = self.topology.worker(worker)
        idle = self._idle.get(found.address, []) if found is not None else []
        while idle:
            channel = idle.pop()
            if not channel.closed:
                await channel.send([p.pack(message)])
                return channel
        return await self.open(worker, "adjoin_segment", message)

    def keep(self, channel: Channel) -> None:
        """Keep a connection on which a segment has ended for the next one."""
        idle = self._idle.get(channel.address)
        if idle is not None and sum(map(len, self._idle.values())) < _KEPT_IDLE:
            idle.append(channel)
        else:
            channel.abort()

    def _forget_idle(self, address: str) -> None:
        for channel in self._idle.pop(address, ()):
            channel.abort()

    async def call(self, worker: str, request: p.Message) -> Any:
        """Ask a worker's agent; returns the decoded value or raises what it answered."""
        channel = await self.open(worker, "adjoin_call", request)
        return codec.decode(await receive_value(channel))

    async def pull(self, ref: p.Ref, run: str) -> codec.Encoded:
        channel = await Channel.open(
            self._pool, ref.owner, "adjoin_call", p.pack(p.Pull(ref=ref.seen_by(run)))
        )
        return await receive_value(channel)

    # -- membership --

    async def _begin(self) -> Cluster:
        plugin = AgentPlugin(self._settings.model_dump_json(), self.id)
        await self._client.register_plugin(plugin)
        self._membership = asyncio.ensure_future(self._follow_members())
        async with asyncio.timeout(_START_S):
            while len(self.topology.workers) < len(self._members) - 1:
                self._changed.clear()
                await self._changed.wait()
        return self

    async def _follow_members(self) -> None:
        """Dask's scheduler knows who is there; each agent then tells about itself."""
        while True:
            with contextlib.suppress(OSError, TimeoutError):
                identity = await self._client.scheduler.identity()
                for address in identity["workers"]:
                    if address not in self._watches:
                        self._watches[address] = asyncio.ensure_future(self._watch(address))
            await asyncio.sleep(_POLL_S)

    async def _watch(self, address: str) -> None:
        """Follow one agent until its connection ends, which is when its worker is gone.

        A worker that has no agent yet is tried again at the next look at the members.
        """
        try:
            channel = await Channel.open(self._pool, address, "adjoin_watch", p.pack(p.Watch()))
            try:
                while True:
                    messages, _ = await channel.receive()
                    about = decode(messages[-1], p.About)
                    self._replace(address, about)
            finally:
                channel.abort()
        except TransportError:
            pass
        finally:
            self._replace(address, None)
            self._watches.pop(address, None)

    def _replace(self, address: str, about: p.About | None) -> None:
        others = [worker for worker in self.topology.workers if worker.address != address]
        if about is None:
            self._forget_idle(address)
        else:
            self._idle.setdefault(address, [])
            others.append(
                Worker(
                    name=about.name,
                    address=address,
                    host=about.host,
                    threads=about.threads,
                    pid=about.pid,
                    collections=frozenset(about.collections),
                    memory=about.memory,
                    resources=about.resources,
                    devices=tuple(Device(each.id, each.memory) for each in about.devices),
                    sizes=about.collections,
                    models=frozenset(about.models),
                )
            )
        workers = tuple(sorted(others, key=lambda worker: worker.name))
        if workers != self.topology.workers:
            self.topology = Topology(epoch=self.topology.epoch + 1, workers=workers)
            self._changed.set()

    async def _shut_hosts(self) -> None:
        """Every worker passes it on; a host that nobody reaches leaves by itself."""

        async def tell(worker: str) -> None:
            with contextlib.suppress(TransportError, TimeoutError, NotFound):
                async with asyncio.timeout(_STOP_S):
                    await self.call(worker, p.ShutDownHost())

        await asyncio.gather(*(tell(worker.name) for worker in self.topology.workers))

    @property
    def _pool(self) -> ConnectionPool:
        return self._client.rpc


class _Member:
    """A process of an embedded cluster, which ends when we do (see :mod:`.member`)."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, address: str) -> None:
        self.name = name
        self.address = address
        self.pid = process.pid
        self._process = process

    @classmethod
    async def start(cls, name: str, logs: Path, role: str, *arguments: str) -> _Member:
        # Workers import what the user's program can import.
        search = os.pathsep.join(part or str(Path.cwd()) for part in sys.path)
        with (logs / f"{name}.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "adjoin.runtime.member", role, *arguments),
                *([name] if role == "worker" else []),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env=os.environ | {"PYTHONPATH": search},
                start_new_session=True,
            )
        try:
            async with asyncio.timeout(_START_S):
                line = await process.stdout.readline() if process.stdout else b""
            return cls(name, process, str(json.loads(line)["address"]))
        except BaseException as error:
            process.kill()
            await process.wait()
            if not isinstance(error, TimeoutError | ValueError):
                raise
            raise TransportError(
                f"the process {name!r} did not start", hint=f"its log says why: {log.name}"
            ) from None

    async def stop(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            async with asyncio.timeout(_STOP_S):
                await self._process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()


async def _stop(members: list[_Member]) -> None:
    """Workers first: they leave properly while the scheduler still answers."""
    await asyncio.gather(*(member.stop() for member in members[1:]))
    await asyncio.gather(*(member.stop() for member in members[:1]))


def address_of(cluster: str | Client) -> str:
    """Of its scheduler."""
    return cluster if isinstance(cluster, str) else str(cluster.scheduler.address)


def _check_trust(address: str, settings: Settings) -> None:
    """A Dask port unpickles what it receives: refuse one that others can reach."""
    parts = urlsplit(address if "://" in address else f"tcp://{address}")
    if not parts.hostname:
        raise InputError(f"{address!r} is not a scheduler's address", hint="write tcp://host:port")
    loopback = parts.hostname.startswith(_LOOPBACK)
    if loopback or parts.scheme in ("tls", "inproc") or settings.trusted_network:
        return
    raise InputError(
        "the cluster is neither on this machine nor behind TLS",
        where=address,
        hint="use a tls:// address, or set trusted_network if nobody else can reach that network",
    )
