"""The agent: what makes a Dask worker run segments, hold collections and reach its host.

It adds handlers to the worker's comm server, so that Dask's scheduler is not on the path of a
request. Workers get it from the client that starts or joins a cluster, or with
``dask worker … --preload adjoin.runtime.agent``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any, ClassVar

import msgspec
import numpy as np
from distributed import Worker, WorkerPlugin
from distributed.comm import Comm
from distributed.core import Status

from adjoin.dag import Graph, ModelSpec
from adjoin.errors import AdjoinError, EngineError, InputError, TransportError
from adjoin.runtime import protocol as p
from adjoin.runtime.clients import LinkedModel, ShelvedCollection
from adjoin.runtime.conversation import (
    Outbox,
    answered,
    can_linger,
    decode,
    receive_pieces,
    receive_value,
)
from adjoin.runtime.devices import devices
from adjoin.runtime.draft import Draft
from adjoin.runtime.held import find_held, find_kept, find_lender
from adjoin.runtime.host_link import HostLink
from adjoin.runtime.paths import (
    agents_directory,
    naming,
    runtime_directory,
    sweep_all_agents,
)
from adjoin.runtime.policies.budget import Purse, Tab
from adjoin.runtime.probe import probe, sample
from adjoin.runtime.pull import RemoteChannel, answer_pull
from adjoin.runtime.rejoin import rejoin
from adjoin.runtime.retries import Retries
from adjoin.runtime.segment import SegmentRun
from adjoin.runtime.shelf import Shelf
from adjoin.runtime.shipping import read_graph, spec_of
from adjoin.runtime.usage_sweep import Keeper, directory_of
from adjoin.runtime.watchdog import Watchdog
from adjoin.settings import Settings
from adjoin.transport import codec
from adjoin.transport.channel import LocalChannel, Unreachable, ValueChannel
from adjoin.transport.codec import Encoded
from adjoin.transport.lending import Lender, socket_path
from adjoin.transport.memory import allocating
from adjoin.transport.remote import Channel
from adjoin.transport.shm import SharedMemoryChannel
from adjoin.transport.trunk import Line, Trunk
from adjoin.transport.ucx import is_ucx, prepare
from adjoin.types import (
    Body,
    CollectionClient,
    ModelClient,
    ModelLoading,
    Passage,
    Used,
    Vector,
)

_log = logging.getLogger(__name__)
_KEPT_GRAPHS = 256


class Agent:
    """Lives in a worker's process, on its event loop."""

    def __init__(self, worker: Worker, settings: Settings, cluster: str) -> None:
        self.name = str(worker.name)
        self.address = worker.address
        self.settings = settings
        self.threads: Executor = ThreadPoolExecutor(settings.threads_per_worker, "adjoin-stage")
        self.retries = Retries()
        self._cluster = cluster
        self._link: HostLink | None = None
        self._linking = asyncio.Lock()
        self._shut = False
        self._usage: Keeper | None = None
        self._dask = worker
        self._devices = devices()
        self._models: set[str] = set()
        self._graphs: OrderedDict[str, Graph] = OrderedDict()
        self._segments: set[SegmentRun] = set()
        self._watchers: set[Callable[[p.Message], None]] = set()
        root = settings.home / "collections"
        self.shelf = Shelf(root, self.threads, self._notify)
        self._copying = ThreadPoolExecutor(1, "adjoin-copy")
        self._watchdog = Watchdog(settings.loop_block_warning_s)
        self.lender = Lender(settings.shared_bytes, self._held, self._copying)
        directory = agents_directory(runtime_directory(cluster))
        self._socket = socket_path(directory, self.address)
        #: In the order in which they are tried.
        self._channels: tuple[ValueChannel, ...] = (
            LocalChannel(self.address, self._held),
            SharedMemoryChannel(directory),
            RemoteChannel(worker.rpc),
        )

    def install(self, worker: Worker) -> None:
        sweep_all_agents()
        try:
            with naming(self._socket.parent):
                self.lender.start(self._socket)
        except OSError as error:  # values go over Dask's comm
            _log.warning("no shared memory: %s cannot be listened on: %s", self._socket, error)
        if self.settings.loop_block_warning_s:
            self._watchdog.start()
        worker.handlers["adjoin_trunk"] = self.on_trunk
        worker.handlers["adjoin_draft"] = self.on_draft
        worker.handlers["adjoin_call"] = self.on_call
        worker.handlers["adjoin_watch"] = self.on_watch

    async def close(self) -> None:
        self._watchdog.close()
        for segment in list(self._segments):
            await segment.close()
        if self._link is not None:
            await self._link.detach()
        for channel in self._channels:
            await channel.close()
        await self.lender.close()
        self._copying.shutdown(wait=False, cancel_futures=True)
        self.threads.shutdown(wait=False, cancel_futures=True)

    # -- the world of a segment --

    def model(
        self, name: str, graph: Graph, observe: Callable[[Body], None], tab: Tab
    ) -> ModelClient:
        return LinkedModel(self, name, spec_of(name, graph), observe, tab)

    async def hosted(
        self, name: str, spec: ModelSpec, observe: Callable[[Body], None], tab: Tab | None = None
    ) -> ModelClient:
        """A model of the host; whoever watches this agent hears when it is loaded."""

        def watch(body: Body) -> None:
            self._notice(spec.source, body)
            observe(body)

        return (await self.link()).model(name, spec, observe=watch, tab=tab)

    def collection(self, name: str) -> CollectionClient:
        return ShelvedCollection(self, name)

    async def pull(self, ref: p.Ref, run: str) -> Encoded:
        """The value behind a reference of this run, from this agent or another one."""
        for channel in self._channels:
            try:
                return await channel.fetch(ref.seen_by(run), ref.owner)
            except Unreachable as error:
                _log.debug("%s not by %s: %s", ref.id, channel.name, error)
        raise TransportError("no channel reaches the owner of a value", where=ref.owner)

    def kept(self, ref: p.Ref, run: str) -> Any:
        return find_kept(self._segments, ref, run)

    async def take(self, owner: str, request: p.Take) -> p.Taken:
        """Pieces of a stream of a segment here or in another agent."""
        if owner == self.address:
            return await find_lender(self._segments, request).take(request)
        channel = await Channel.open(self._dask.rpc, owner, "adjoin_call", p.pack(request))
        return await receive_pieces(channel)

    async def leave(self, owner: str, request: p.Leave) -> None:
        """Tell the segment of a stream that a reader needs no more of it."""
        if owner == self.address:
            await find_lender(self._segments, request).left(request)
        else:
            channel = await Channel.open(self._dask.rpc, owner, "adjoin_call", p.pack(request))
            await receive_value(channel)

    async def link(self) -> HostLink:
        """The connection to this machine's host, started when there is none."""
        async with self._linking:
            if self._shut:
                raise EngineError("the host of this machine's models was shut down")
            if self._link is None:
                directory = runtime_directory(self._cluster)
                self._link = await HostLink.attach(directory, self.settings)
            return self._link

    async def _shut_host(self) -> None:
        """What still runs here, such as a draft whose program left, does not start it again."""
        async with self._linking:
            self._shut = True
            if self._link is not None:
                await self._link.shutdown()

    # -- conversations --

    async def on_trunk(self, comm: Comm, **_: Any) -> Any:
        """Segments of a driver, beside each other, until it leaves."""
        await Trunk(comm, accept=self._on_line).carry()
        return Status.dont_reply

    async def _on_line(self, line: Line) -> None:
        try:
            await self._run_segment(line)
        except TransportError as error:  # the driver has left it, or what it says makes no sense
            _log.debug("a segment's conversation ended: %s", error)
        except Exception:  # noqa: BLE001  # a bug of ours: the driver sees the line end
            _log.exception("a segment broke")
        finally:
            line.end()

    async def _run_segment(self, line: Line) -> None:
        """Run the segment that the first message opens, until the driver leaves it."""
        began = time.perf_counter()
        first, *early = await line.receive()
        opened = decode(first, p.Open | p.Prepare)
        if isinstance(opened, p.Prepare):  # a hint: whoever needs the models reports what fails
            with contextlib.suppress(AdjoinError):
                await (await self.link()).prepare(opened.models)
            return
        graph = await self._graph(line, opened.graph, early)

        def send(message: p.Message) -> None:
            with contextlib.suppress(TransportError):  # nobody is there any more
                last = isinstance(message, p.Closed)
                line.send(p.pack(message), linger=can_linger(message), now=last)

        segment = SegmentRun(
            run=opened.run,
            graph=graph,
            attempts=opened.attempts,
            exports=frozenset(opened.exports),
            readers=opened.readers,
            inputs=codec.decode(opened.inputs),
            world=self,
            limits=self.settings,
            send=send,
            streaming=opened.streaming,
            began=began,
            tab=Tab(opened.account, Purse(opened.budgets)),
        )
        del opened, first  # its inputs may be large
        self._segments.add(segment)
        try:
            with allocating(self.lender.pool):  # for all tasks that start in here
                segment.start()
                await _obey(line, segment, early)
        finally:
            self._segments.discard(segment)
            await segment.close()

    async def _graph(self, line: Line, version: str, early: list[bytes]) -> Graph:
        """The graph, asked for when it is new; what the driver says meanwhile goes to ``early``."""
        if version not in self._graphs:
            line.send(p.pack(p.NeedGraph()))
            graph = None
            while graph is None:
                for message in await line.receive():
                    if graph is None and isinstance(
                        said := decode(message, p.FromDriver), p.Define
                    ):
                        graph = read_graph(said)
                    else:
                        early.append(message)
            self._graphs[version] = graph
            while len(self._graphs) > _KEPT_GRAPHS:
                self._graphs.popitem(last=False)
        self._graphs.move_to_end(version)
        return self._graphs[version]

    async def on_draft(self, comm: Comm, messages: Sequence[bytes], **_: Any) -> Any:
        channel = Channel(comm)
        draft = Draft(self)
        try:
            message = messages[0]
            while not isinstance(request := decode(message, p.OfDraft), p.Close):
                await channel.send([p.pack(await answered(draft.take(request)))])
                (message, *_rest), _buffers = await channel.receive()
        except TransportError:
            comm.abort()
        return Status.dont_reply

    async def on_call(self, comm: Comm, messages: Sequence[bytes], **_: Any) -> Any:
        channel = Channel(comm)
        request = decode(messages[0], p.Call)
        if isinstance(request, p.Pull):
            await answer_pull(channel, request, self._held)
        elif isinstance(request, p.Take):
            await channel.send([p.pack(await answered(self._lend(request)))])
        else:
            await channel.send([p.pack(await answered(self._twice(request)))])
        return Status.dont_reply

    async def on_watch(self, comm: Comm, messages: Sequence[bytes], **_: Any) -> Any:
        channel = Channel(comm)
        every = decode(messages[0], p.Watch).beat_s
        async with Outbox(channel) as send:
            send(self._about())
            self._watchers.add(send)
            beats = asyncio.ensure_future(_beat(send, every)) if every else None
            try:
                await channel.receive()
            except TransportError:  # the watcher has gone
                comm.abort()
            finally:
                self._watchers.discard(send)
                if beats is not None:
                    beats.cancel()
        return Status.dont_reply

    # -- calls --

    async def _twice(self, request: p.Message) -> p.Reply:
        """A host or replica that died since it was last used is noticed by using it."""
        try:
            return await self._call(request)
        except EngineError:
            return await self._call(request)

    async def _call(self, request: p.Message) -> p.Reply:
        match request:
            case p.Leave():
                await find_lender(self._segments, request).left(request)
            case p.Search():
                return _reply(await self._search(request))
            case p.Probe():
                return _reply(await probe(self._channels, request))
            case p.Describe(collection=name):
                found = await self.shelf.describe(name)
                return _reply([msgspec.structs.asdict(info) for info in found])
            case p.Drop(collection=name):
                await self.shelf.drop(name)
            case p.HostStatus(figures=figures):
                return _reply(await (await self.link()).status(figures=figures))
            case p.FetchUsage(acknowledged=acknowledged):
                if self._usage is None:
                    root = directory_of(self.settings.home.absolute())
                    self._usage = Keeper(root, self.settings.usage_log_bytes)
                # From the files, which are there whether or not a host is.
                pieces = await asyncio.to_thread(self._usage.fetch, acknowledged)
                return _reply(msgspec.msgpack.encode(pieces))
            case p.ShutDownHost():
                await self._shut_host()
        return _reply(None)

    async def _search(self, request: p.Search) -> list[Passage]:
        if request.vector is not None:
            vector: Vector = codec.decode(request.vector)
        else:
            if not request.text.strip():
                raise InputError("an empty text cannot be searched for")
            embedding = (await self.shelf.collection(request.collection)).embedding
            model = await self.hosted(embedding, spec_of(embedding), _unobserved)
            vector = (await model.embed([request.text]))[0]
        return await self.search(request.collection, vector, request.k)

    async def search(self, name: str, vector: Vector, k: int) -> list[Passage]:
        if k > self.settings.max_results:
            raise InputError(
                f"k is {k}, the most is {self.settings.max_results}", hint="ask for fewer passages"
            )
        return await self.shelf.search(name, np.asarray(vector, dtype=np.float32), k)

    def _held(self, name: str) -> Encoded:
        probed = sample(name)
        return find_held(self._segments, name) if probed is None else probed

    async def _lend(self, request: p.Take) -> p.Taken:
        return await find_lender(self._segments, request).take(request)

    def _about(self) -> p.About:
        return p.About(
            name=self.name,
            host=socket.gethostname(),
            pid=os.getpid(),
            threads=self.settings.threads_per_worker,
            collections=self.shelf.sizes,
            memory=self._dask.memory_manager.memory_limit or 0,
            resources=dict(self._dask.state.total_resources),
            devices=self._devices,
            models=tuple(sorted(self._models)),
        )

    def _notice(self, source: str, body: Body) -> None:
        """Tell the watchers which models are loaded; one that is started again had gone."""
        if isinstance(body, ModelLoading) and source in self._models:
            self._models.discard(source)
        elif isinstance(body, Used) and source not in self._models:
            self._models.add(source)
        else:
            return
        self._notify()

    def _notify(self) -> None:
        for send in self._watchers:
            send(self._about())


class AgentPlugin(WorkerPlugin):  # type: ignore[misc]  # distributed is not typed
    """Puts an agent into a worker. Dask ships it to workers that come later, too.

    Args:
        settings: as JSON.
        cluster: what agents of one cluster have in common, beyond the life of its scheduler.
        rejoins: the worker is ours, and outlives its scheduler.
    """

    name = "adjoin"
    idempotent: ClassVar[bool] = True

    def __init__(self, settings: str, cluster: str, *, rejoins: bool = False) -> None:
        self._settings = settings
        self._cluster = cluster
        self._rejoins = rejoins

    def setup(self, worker: Worker) -> None:
        """Install the agent, unless the worker has one: a scheduler that was started again hears
        of the plugin again, and so does that of an embedded cluster which somebody joins."""
        if self.name in worker.extensions:
            return
        if is_ucx(worker.address):
            prepare()
        settings = Settings.model_validate_json(self._settings)
        agent = Agent(worker, settings, self._cluster)
        agent.install(worker)
        # Dask removes a plugin before it adds it again, but closes extensions only with the worker.
        worker.extensions[self.name] = agent
        if self._rejoins:
            rejoin(worker)


async def _obey(line: Line, segment: SegmentRun, messages: Sequence[bytes]) -> None:
    """Carry out what the driver has said and says."""
    await asyncio.sleep(0)  # its first stages begin, before we look for more of what was said
    while True:
        for message in messages:
            match decode(message, p.FromDriver):
                case p.Feed() as feed:
                    segment.feed(feed)
                case p.Retry(stage=stage, attempt=attempt, readers=readers):
                    segment.retry(stage, attempt, readers)
                case p.Close():
                    await segment.end()
        messages = await line.receive()


def _reply(value: Any) -> p.Reply:
    return p.Reply(value=codec.encode(value))


async def _beat(send: Callable[[p.Message], None], every: float) -> None:
    while True:
        await asyncio.sleep(every)
        send(p.Alive())


def _unobserved(body: Body) -> None:
    """Loading progress of a search from outside a run has no reader."""


def dask_setup(worker: Worker) -> None:
    """Entry point of ``dask worker --preload adjoin.runtime.agent``."""
    settings = Settings.load()
    cluster = str(worker.scheduler.address)
    plugin = AgentPlugin(settings.model_dump_json(), cluster, rejoins=True)
    worker._pending_plugins = (*worker._pending_plugins, plugin)
