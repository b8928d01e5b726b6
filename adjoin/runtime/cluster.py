"""The Dask cluster as the driver sees it: workers that come and go, and conversations with them."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from typing import Any
from urllib.parse import urlsplit

from distributed import Client, Security
from distributed.core import ConnectionPool

from adjoin.errors import InputError, NotFound, TransportError
from adjoin.runtime import protocol as p
from adjoin.runtime.agent import AgentPlugin
from adjoin.runtime.conversation import receive_value
from adjoin.runtime.membership import Membership
from adjoin.runtime.policies.topology import Topology
from adjoin.runtime.supervisor import Supervisor
from adjoin.settings import Settings
from adjoin.transport import codec
from adjoin.transport.remote import Channel
from adjoin.transport.trunk import Line, Trunk, plant
from adjoin.transport.ucx import is_ucx, prepare

_START_S = 60.0
_STOP_S = 10.0
_LEAVE_S = 2.0
#: Connections to all workers together.
_CONNECTIONS = 512
_LOOPBACK = ("127.", "[::1]", "::1", "localhost")


class Cluster:
    """Knows the workers that have an agent, and talks with them."""

    def __init__(
        self, address: str, id: str, settings: Settings, supervisor: Supervisor | None = None
    ) -> None:
        self.id = id
        self._address = address
        self._settings = settings
        self._supervisor = supervisor
        self._security = Security()
        #: By address of the worker: what its segments say goes over one connection.
        self._trunks: dict[str, asyncio.Task[Trunk]] = {}
        self._carrying: set[asyncio.Task[None]] = set()
        #: The scheduler that has been told of the agent.
        self._told = id
        self._members = Membership(self._addresses, self._watch, self._cut, settings, supervisor)

    @classmethod
    async def embedded(cls, settings: Settings) -> Cluster:
        """Start a scheduler and workers as processes of this machine.

        Raises:
            InputError: the protocol is not to be had here.
            TransportError: a process did not start.
        """
        if is_ucx(settings.protocol):
            prepare()
        supervisor = Supervisor(settings, uuid.uuid4().hex)
        await supervisor.start()
        cluster = cls(supervisor.address, supervisor.id, settings, supervisor)
        try:
            await cluster._connect()
            cluster._members.begin()
            async with asyncio.timeout(_START_S):
                await cluster._members.until(lambda t: len(t.workers) >= settings.workers)
        except BaseException:
            await cluster.close()
            raise
        return cluster

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
        # What the processes of one machine have in common, also when the scheduler is another one.
        joined = cls(address, address, settings)
        if not isinstance(cluster, str) and cluster.security is not None:
            joined._security = cluster.security
        try:
            async with asyncio.timeout(settings.connect_timeout_s):
                await joined._connect()
                await joined._addresses()
            joined._members.begin()
        except (OSError, TimeoutError, ValueError) as error:
            await joined.close()
            raise TransportError(
                f"no scheduler answers: {error}", where=address, hint="check the address"
            ) from None
        return joined

    @property
    def topology(self) -> Topology:
        """The workers as of now; replaced whenever they change."""
        return self._members.topology

    @property
    def owns_processes(self) -> bool:
        return self._supervisor is not None

    @property
    def address(self) -> str:
        """The scheduler's."""
        return self._supervisor.address if self._supervisor else self._address

    @property
    def pids(self) -> dict[str, int]:
        """The processes that this cluster started, by name."""
        return self._supervisor.pids if self._supervisor else {}

    async def close(self) -> None:
        """Leave the cluster; end it when it is embedded."""
        if self._supervisor is not None:
            await self._shut_hosts()
        await self._members.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(_LEAVE_S):
                await self._pool.close()
                await asyncio.gather(*self._carrying)
        if self._supervisor is not None:
            await self._supervisor.close()

    async def ready(self) -> Topology:
        """The topology once it has a worker.

        Raises:
            TransportError: there is none, and none came in time.
        """
        if self.topology.workers:
            return self.topology
        try:
            async with asyncio.timeout(self._settings.worker_wait_s):
                return await self._members.until(lambda topology: bool(topology.workers))
        except TimeoutError:
            trouble = self._supervisor.trouble if self._supervisor else {}
            raise TransportError(
                "; ".join(
                    [f"no worker came within {self._settings.worker_wait_s:g} s", *trouble.values()]
                ),
                where=self.address,
                hint="see whether the scheduler and its workers run",
            ) from None

    async def complete(self) -> Topology:
        """The topology once all workers that the scheduler knows have an agent, or time is up."""
        await self.ready()
        with contextlib.suppress(TimeoutError, OSError):
            async with asyncio.timeout(self._settings.worker_wait_s):
                known = await self._addresses()
                await self._members.until(lambda topology: len(topology.workers) >= len(known))
        return self.topology

    async def open(self, worker: str, operation: str, message: p.Message) -> Channel:
        """Start a conversation with a worker's agent."""
        found = self.topology.worker(worker)
        if found is None:
            raise TransportError("the worker is gone", where=worker)
        return await Channel.open(self._pool, found.address, operation, p.pack(message))

    def line(self, worker: str, message: p.Message) -> Line | None:
        """Start a segment at once, if there is a connection to its worker already."""
        found = self.topology.worker(worker)
        made = None if found is None else self._trunks.get(found.address)
        if made is None or not made.done() or made.exception() or made.result().broken:
            return None
        return made.result().open(p.pack(message))

    async def open_segment(self, worker: str, message: p.Message) -> Line:
        """Start a segment."""
        found = self.topology.worker(worker)
        if found is None:
            raise TransportError("the worker is gone", where=worker)
        return (await self._trunk(found.address)).open(p.pack(message))

    async def tell(self, worker: str, message: p.Message) -> None:
        """Say what needs no answer, on the connection of the segments."""
        (await self.open_segment(worker, message)).end()

    def doubt(self, worker: str) -> None:
        """A conversation with this worker broke."""
        self._members.doubt(worker)

    async def _trunk(self, address: str) -> Trunk:
        """The connection for the segments of a worker, made by whoever needs it first."""
        made = self._trunks.get(address)
        if made is None or (made.done() and (made.exception() or made.result().broken)):
            made = self._trunks[address] = asyncio.ensure_future(self._connect_trunk(address))
        return await asyncio.shield(made)

    async def _connect_trunk(self, address: str) -> Trunk:
        trunk = await plant(self._pool, address, "adjoin_trunk")
        carrying = asyncio.ensure_future(trunk.carry())
        self._carrying.add(carrying)
        carrying.add_done_callback(self._carrying.discard)
        return trunk

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

    async def _connect(self) -> None:
        connection = self._security.get_connection_args("client")
        self._pool = ConnectionPool(limit=_CONNECTIONS, connection_args=connection)
        await self._pool.start()

    async def _addresses(self) -> list[str]:
        """Of the scheduler's workers. One that was started again hears of the agent again."""
        identity = await self._pool(self.address).identity()
        if self._supervisor is None and self._told != identity["id"]:
            await self._install()
            self._told = identity["id"]
        return list(identity["workers"])

    async def _install(self) -> None:
        """Have the scheduler put an agent into its workers, those of now and those to come."""
        plugin = AgentPlugin(self._settings.model_dump_json(), self.id)
        async with Client(
            self.address,
            asynchronous=True,
            set_as_default=False,
            security=self._security,
            timeout=self._settings.connect_timeout_s,
        ) as client:
            await client.register_plugin(plugin)

    async def _watch(self, address: str, message: p.Message) -> Channel:
        return await Channel.open(self._pool, address, "adjoin_watch", p.pack(message))

    def _cut(self, address: str) -> None:
        """The worker is gone, or as good as: whoever waits for it hears that now."""
        self._trunks.pop(address, None)
        for comm in list(self._pool.occupied.get(address, ())):
            comm.abort()
        self._pool.remove(address)

    async def _shut_hosts(self) -> None:
        """Every worker passes it on; a host that nobody reaches leaves by itself."""

        async def tell(worker: str) -> None:
            with contextlib.suppress(TransportError, TimeoutError, NotFound):
                async with asyncio.timeout(_STOP_S):
                    await self.call(worker, p.ShutDownHost())

        await asyncio.gather(*(tell(worker.name) for worker in self.topology.workers))


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
