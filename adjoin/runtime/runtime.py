"""What users hold: a :class:`Runtime` on a cluster, and handles on runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from adjoin.dag import Graph, Workflow
from adjoin.errors import AdjoinError, DeadlineExceeded, DefinitionError, InputError
from adjoin.runtime import protocol as p
from adjoin.runtime.cluster import Cluster, address_of
from adjoin.runtime.collection import CollectionHandle
from adjoin.runtime.driver import Driver, Run
from adjoin.runtime.explain import Explanation
from adjoin.runtime.loop import CallersLoop, Loop, LoopThread, ucx_loop
from adjoin.runtime.policies.links import Link
from adjoin.runtime.policies.placement import weigh
from adjoin.runtime.probe import measure_links
from adjoin.settings import PROTOCOLS, Settings
from adjoin.transport.ucx import is_ucx
from adjoin.types import Event
from adjoin.vector_state.collections import CollectionInfo

if TYPE_CHECKING:
    from distributed import Client

_T = TypeVar("_T")


class Runtime:
    """Runs workflows.

    Without arguments it starts a Dask cluster of its own: a scheduler and workers, as processes of
    this machine, which end with it. With a scheduler's address or a ``distributed.Client`` it joins
    that cluster.

    ``protocol`` is what the processes of its own cluster speak, ``"tcp"`` or ``"ucx"``, instead
    of what the settings say. A running cluster's is in its address.

    Every method has an asynchronous form with an ``a`` before its name, for any event loop; both
    are the same code. Inputs of a workflow are given by name.

    Raises:
        InputError: the settings or the address are refused.
        TransportError: the cluster did not start or does not answer.
    """

    def __init__(
        self,
        cluster: str | Client | None = None,
        *,
        settings: Settings | None = None,
        protocol: str | None = None,
    ) -> None:
        self.settings = settings or Settings.load()
        if protocol is not None:
            self.settings = _speaking(protocol, cluster, self.settings)
        over_ucx = is_ucx(self.settings.protocol if cluster is None else address_of(cluster))
        loop = ucx_loop() if over_ucx else LoopThread("adjoin-runtime")
        self._loop: Loop = loop
        self._closed = False
        try:
            self._driver: Driver = loop.call(self._connect(cluster))
        except BaseException:
            loop.stop()
            raise

    @classmethod
    async def here(
        cls, cluster: str | Client | None = None, *, settings: Settings | None = None
    ) -> Self:
        """A runtime on the running event loop, for servers: no thread and no hop between loops.

        Only the methods with an ``a`` before their name work; :meth:`aclose` ends it.
        """
        runtime = cls.__new__(cls)
        runtime.settings = settings or Settings.load()
        runtime._loop = CallersLoop()
        runtime._closed = False
        runtime._driver = await runtime._connect(cluster)
        return runtime

    @property
    def driver(self) -> Driver:
        """What starts runs, on the runtime's own loop."""
        return self._driver

    async def _connect(self, cluster: str | Client | None) -> Driver:
        if cluster is None:
            joined = await Cluster.embedded(self.settings)
        else:
            joined = await Cluster.join(cluster, self.settings)
        return Driver(joined, self.settings)

    # -- runs --

    def run(self, workflow: Workflow | Graph, /, **inputs: Any) -> Any:
        """Run a workflow and return what it returns.

        Raises:
            InputError: the inputs do not fit.
            StageError: a stage failed for good.
        """
        return self._loop.follow(lambda: self._start(workflow, inputs))

    async def arun(self, workflow: Workflow | Graph, /, **inputs: Any) -> Any:
        return await self._loop.bridge(self._run(workflow, inputs))

    def stream(self, workflow: Workflow | Graph, /, **inputs: Any) -> Generator[Event]:
        """Run a workflow and yield its events; the last one says how it ended.

        Closing the iterator, or an interrupt, cancels the run. A failed run does not raise here:
        its last event is a :class:`~adjoin.types.RunFailed`.
        """
        return self._loop.iterate(self._stream(workflow, inputs))

    def astream(self, workflow: Workflow | Graph, /, **inputs: Any) -> AsyncGenerator[Event]:
        return self._loop.bridge_iterate(self._stream(workflow, inputs))

    def submit(self, workflow: Workflow | Graph, /, **inputs: Any) -> RunHandle:
        """Start a workflow and return at once."""
        return self._loop.call(self._submit(workflow, inputs))

    async def asubmit(self, workflow: Workflow | Graph, /, **inputs: Any) -> RunHandle:
        return await self._loop.bridge(self._submit(workflow, inputs))

    def map(
        self,
        workflow: Workflow | Graph,
        inputs: Iterable[Mapping[str, Any]],
        *,
        concurrency: int = 16,
    ) -> Iterator[Any]:
        """Run a workflow for each of ``inputs``; yields results in their order.

        A run that fails yields its error instead of raising it, so that the others go on. At most
        ``concurrency`` runs are open at a time, and ``inputs`` is read as it is needed.
        """
        return self._loop.iterate(self._map(workflow, inputs, concurrency))

    def amap(
        self,
        workflow: Workflow | Graph,
        inputs: Iterable[Mapping[str, Any]],
        *,
        concurrency: int = 16,
    ) -> AsyncIterator[Any]:
        return self._loop.bridge_iterate(self._map(workflow, inputs, concurrency))

    # -- collections --

    def collection(self, name: str, *, embedding: str | None = None) -> CollectionHandle:
        """A collection by name; made when something is first added, for the ``embedding`` model."""
        return CollectionHandle(name, embedding, self._driver, self._loop)

    def collections(self) -> list[CollectionInfo]:
        return self._loop.call(self._collections())

    async def acollections(self) -> list[CollectionInfo]:
        return await self._loop.bridge(self._collections())

    # -- insight --

    def explain(self, workflow: Workflow | Graph) -> Explanation:
        """Where each stage would run now, and why."""
        return self._loop.call(self._explain(workflow))

    async def aexplain(self, workflow: Workflow | Graph) -> Explanation:
        return await self._loop.bridge(self._explain(workflow))

    def status(self) -> dict[str, Any]:
        """Workers, and what each host runs: templates and replicas."""
        return self._loop.call(self._status())

    async def astatus(self) -> dict[str, Any]:
        return await self._loop.bridge(self._status())

    def links(self) -> list[Link]:
        """How long values take between workers, by size and channel; measured now, in seconds.

        Raises:
            NotFound: there are no two workers.
        """
        return self._loop.call(measure_links(self._driver.cluster))

    async def alinks(self) -> list[Link]:
        return await self._loop.bridge(measure_links(self._driver.cluster))

    # -- life --

    def close(self) -> None:
        """Cancel what runs and leave the cluster; an embedded one ends. May be called twice."""
        if not self._closed:
            self._closed = True
            try:
                self._loop.call(self._close())
            finally:
                self._loop.stop()

    async def aclose(self) -> None:
        if isinstance(self._loop, LoopThread):
            await asyncio.to_thread(self.close)
        elif not self._closed:
            self._closed = True
            await self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    # -- the asynchronous core --

    async def _run(self, workflow: Workflow | Graph, inputs: Mapping[str, Any]) -> Any:
        run = self._start(workflow, inputs)
        try:
            return await asyncio.shield(run.done)
        except asyncio.CancelledError:
            run.cancel("interrupted")
            await run.finished()
            raise

    async def _stream(
        self, workflow: Workflow | Graph, inputs: Mapping[str, Any]
    ) -> AsyncIterator[Event]:
        run = self._start(workflow, inputs, streaming=True)
        try:
            async for event in run.stream():
                yield event
        finally:
            run.cancel("the reader left")
            await run.finished()

    async def _submit(self, workflow: Workflow | Graph, inputs: Mapping[str, Any]) -> RunHandle:
        return RunHandle(self._start(workflow, inputs), self._loop)

    async def _map(
        self, workflow: Workflow | Graph, inputs: Iterable[Mapping[str, Any]], concurrency: int
    ) -> AsyncIterator[Any]:
        if concurrency < 1:
            raise InputError(f"concurrency is {concurrency}", hint="allow at least one run")
        source = iter(inputs)
        window: list[asyncio.Task[Any]] = []
        try:
            while True:
                while len(window) < concurrency and (item := next(source, None)) is not None:
                    window.append(asyncio.ensure_future(self._caught(workflow, item)))
                if not window:
                    return
                yield await window.pop(0)
        finally:
            for task in window:
                task.cancel()
            await asyncio.gather(*window, return_exceptions=True)

    async def _caught(self, workflow: Workflow | Graph, inputs: Mapping[str, Any]) -> Any:
        try:
            return await self._run(workflow, inputs)
        except AdjoinError as error:
            return error

    def _start(
        self, workflow: Workflow | Graph, inputs: Mapping[str, Any], *, streaming: bool = False
    ) -> Run:
        return self._driver.start(graph_of(workflow), inputs, streaming=streaming)

    async def _collections(self) -> list[CollectionInfo]:
        worker = (await self._driver.cluster.ready()).workers[0].name
        found = await self._driver.cluster.call(worker, p.Describe())
        return [CollectionInfo(**info) for info in found]

    async def _explain(self, workflow: Workflow | Graph) -> Explanation:
        graph = graph_of(workflow)
        placement = (await self._driver.plan(graph)).placement
        topology, costs = self._driver.cluster.topology, self._driver.costs
        # more may have been learned since the plan was made
        return Explanation(graph, weigh(graph, topology, placement, costs), topology, costs)

    async def _status(self) -> dict[str, Any]:
        topology = await self._driver.cluster.ready()
        hosts = {worker.host: worker.name for worker in topology.workers}
        return {
            "scheduler": self._driver.cluster.address,
            "workers": [
                {
                    "name": worker.name,
                    "address": worker.address,
                    "host": worker.host,
                    "pid": worker.pid,
                    "threads": worker.threads,
                    "memory": worker.memory,
                    "resources": dict(worker.resources),
                    "devices": [device.id for device in worker.devices],
                    "collections": sorted(worker.collections),
                    "models": sorted(worker.models),
                }
                for worker in topology.workers
            ],
            "hosts": {
                host: await self._driver.cluster.call(name, p.HostStatus())
                for host, name in hosts.items()
            },
        }

    async def _close(self) -> None:
        await self._driver.close()
        await self._driver.cluster.close()


class RunHandle:
    """A run that was submitted."""

    def __init__(self, run: Run, loop: Loop) -> None:
        self._run = run
        self._loop = loop

    @property
    def id(self) -> str:
        return self._run.id

    def done(self) -> bool:
        return self._run.done.done()

    def result(self, timeout: float | None = None) -> Any:
        """What the workflow returned; waits for it, at most ``timeout`` seconds.

        Raises:
            DeadlineExceeded: it is still running; it goes on.
            AdjoinError: what the run failed with.
        """
        return self._loop.call(self._result(timeout))

    async def aresult(self, timeout: float | None = None) -> Any:
        return await self._loop.bridge(self._result(timeout))

    def events(self) -> Generator[Event]:
        """All events from the first; closing the iterator lets the run go on."""
        return self._loop.iterate(self._run.stream())

    def aevents(self) -> AsyncGenerator[Event]:
        return self._loop.bridge_iterate(self._run.stream())

    def cancel(self) -> None:
        """End the run and wait until it has let go of what it held."""
        self._loop.call(self._cancel())

    async def acancel(self) -> None:
        await self._loop.bridge(self._cancel())

    async def _result(self, timeout: float | None) -> Any:
        try:
            async with asyncio.timeout(timeout):
                return await asyncio.shield(self._run.done)
        except TimeoutError:
            raise DeadlineExceeded(f"run {self.id} is not done after {timeout:g} s") from None

    async def _cancel(self) -> None:
        self._run.cancel()
        await self._run.finished()


def _speaking(protocol: str, cluster: str | Client | None, settings: Settings) -> Settings:
    if cluster is not None:
        raise InputError(
            "a running cluster has its protocol",
            where=address_of(cluster),
            hint="leave out protocol; the address says it: tcp://, tls:// or ucx://",
        )
    if protocol not in PROTOCOLS:
        raise InputError(
            f"there is no protocol {protocol!r}",
            where="Runtime(protocol=…)",
            hint=f"use one of {', '.join(PROTOCOLS)}",
        )
    return settings.model_copy(update={"protocol": protocol})


def graph_of(workflow: Workflow | Graph) -> Graph:
    if isinstance(workflow, Graph):
        return workflow
    if isinstance(workflow, Workflow):
        return workflow.graph
    raise DefinitionError(
        f"{type(workflow).__name__} is not a workflow",
        hint="decorate a function with @adjoin.workflow, or adjoin.load() a file",
    )
