"""The driver: runs of workflows, from inputs to outputs.

Each run has a :class:`~adjoin.runtime.run.RunState` that decides and a :class:`Run` here that
carries out: opens segments, forwards values, waits for delays, publishes events.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from adjoin import errors
from adjoin.dag import Graph
from adjoin.errors import (
    AdjoinError,
    Cancelled,
    DeadlineExceeded,
    InputError,
    StateError,
    TransportError,
)
from adjoin.functions.engines.base import Account
from adjoin.runtime import moves as m
from adjoin.runtime import protocol as p
from adjoin.runtime import results
from adjoin.runtime.cluster import Cluster
from adjoin.runtime.costs_file import read_costs, write_costs
from adjoin.runtime.measures import Measures
from adjoin.runtime.policies.billing import Billed
from adjoin.runtime.policies.budget import Purse
from adjoin.runtime.policies.placement import Plan, place
from adjoin.runtime.policies.prediction import predict
from adjoin.runtime.recording import Journal, Recording
from adjoin.runtime.retries import Retries
from adjoin.runtime.run import RunState, closing_body
from adjoin.runtime.segment_link import SegmentLink
from adjoin.runtime.shipping import spec_of
from adjoin.settings import Settings
from adjoin.transport import codec
from adjoin.transport.codec import Encoded
from adjoin.types import (
    Body,
    Event,
    RunCompleted,
    RunPlanned,
    RunResumed,
    RunStarted,
    StageWarning,
    Usage,
    Used,
)

_log = logging.getLogger(__name__)
_KEPT_PLANS = 256
#: Seconds between two runs of a workflow from which costs are learned.
_LEARN_EVERY_S = 0.1


class Driver:
    """Starts runs on a cluster."""

    def __init__(self, cluster: Cluster, settings: Settings) -> None:
        self.cluster = cluster
        self.settings = settings
        self.costs = self._known = read_costs(settings.home)
        self._plans: dict[tuple[str, int, int], Plan] = {}
        self._learn_again: dict[str, float] = {}
        self.retries = Retries()
        self._runs: set[Run] = set()

    def start(
        self,
        graph: Graph,
        inputs: Mapping[str, Any],
        *,
        streaming: bool = False,
        id: str | None = None,
        timeout_s: float | None = None,
        account: Account | None = None,
        purse: Purse | None = None,
        journal: Journal | None = None,
    ) -> Run:
        """Begin a run, under an ``id`` of the caller's where it has named it before.

        Args:
            timeout_s: ends the run sooner than ``run_timeout_s`` would.
            account: whom it is counted for.
            purse: what it may use; the run ends when that is used up.
            journal: makes it durable; it begins with what that has of it.

        Raises:
            InputError: an input is unknown, missing, of the wrong type or too large.
        """
        checked = graph.check_inputs(inputs)
        encoded = codec.encode(checked)
        if encoded.nbytes > self.settings.max_input_bytes:
            raise InputError(
                f"the inputs take {encoded.nbytes} bytes, "
                f"the most is {self.settings.max_input_bytes}",
                where=f"workflow {graph.name!r}",
                hint="put long texts into a collection, or raise max_input_bytes",
            )
        most = self.settings.run_timeout_s
        terms = Terms(
            id=id or secrets.token_urlsafe(12),
            streaming=streaming,
            timeout_s=most if timeout_s is None else min(most, timeout_s),
            account=account or Account(workflow=graph.name, version=graph.version),
            purse=purse or Purse(),
            journal=journal,
        )
        self.retries.begin(graph.version, len(graph.stages))
        run = Run(self, graph, checked, _inline(encoded), terms)
        self._runs.add(run)
        run.done.add_done_callback(lambda _: self._runs.discard(run))
        return run

    def learn(self, graph: Graph, measures: Measures) -> None:
        """Learn from a run. Of a workflow that runs hundreds of times a second a few runs a second
        say as much as all of them, and learning from a run takes as long as a short run."""
        now = time.perf_counter()
        if now >= self._learn_again.get(graph.version, 0.0):
            self.costs = measures.learned(self.costs, self.cluster.topology)
            self._learn_again[graph.version] = now + _LEARN_EVERY_S
            while len(self._learn_again) > _KEPT_PLANS:
                self._learn_again.pop(next(iter(self._learn_again)))

    def known_plan(self, graph: Graph, stages: frozenset[str]) -> Plan | None:
        """The plan of the whole graph, when it was made before for this topology."""
        topology = self.cluster.topology
        if not topology.workers or len(stages) < len(graph.stages):
            return None
        return self._plans.get((graph.version, topology.epoch, self.costs.epoch))

    async def plan(self, graph: Graph, stages: frozenset[str] | None = None) -> Plan:
        """Where the graph's stages run, as of now; whole graphs are planned once an epoch of
        cluster and costs.

        Raises:
            PlanError: no worker is as a stage demands.
        """
        topology = await self.cluster.ready()
        if stages is not None and len(stages) < len(graph.stages):
            return place(graph, topology, stages, self.costs)
        key = (graph.version, topology.epoch, self.costs.epoch)
        if key not in self._plans:
            while len(self._plans) >= _KEPT_PLANS:
                self._plans.pop(next(iter(self._plans)))
            self._plans[key] = place(graph, topology, None, self.costs)
        return self._plans[key]

    async def look_ahead(self, graph: Graph, plan: Plan) -> None:
        """Have the models of stages still to come loaded while earlier stages run."""
        models = {name: spec_of(name, graph) for name in graph.model_names()}
        workers = {segment.worker for segment in plan.segments}
        hosts = {
            worker.host: worker.name
            for worker in self.cluster.topology.workers
            if worker.name in workers
        }
        for worker in hosts.values() if models else ():
            # Only a hint: a stage that needs a model starts it itself, and reports what fails.
            with contextlib.suppress(AdjoinError):
                await self.cluster.tell(worker, p.Prepare(models=models))

    async def close(self) -> None:
        """Cancel what runs and wait until it has let go."""
        for run in list(self._runs):
            run.cancel("the runtime is closing")
        await asyncio.gather(*(run.finished() for run in list(self._runs)))
        if self.costs is not self._known:
            write_costs(self.settings.home, self.costs)


@dataclass(frozen=True)
class Terms:
    """How a run is to be done."""

    id: str
    streaming: bool
    timeout_s: float
    account: Account
    purse: Purse
    journal: Journal | None


class Run:
    """One run. ``done`` resolves to the outputs, or raises what the run ended with."""

    def __init__(
        self,
        driver: Driver,
        graph: Graph,
        inputs: Mapping[str, Any],
        encoded: Encoded,
        terms: Terms,
    ) -> None:
        self.id = terms.id
        self.graph = graph
        self.streaming = terms.streaming
        self.account = terms.account
        self.purse = terms.purse
        #: Of a run that has ended: by stage, the attempt that is billed.
        self.billed: Mapping[str, Billed] = {}
        journal = terms.journal
        self.events: list[Event] = [] if journal is None else list(journal.history)
        self.done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.driver = driver
        self._inputs = inputs
        self.encoded = encoded
        self.measures = Measures(graph, inputs)
        self._timeout_s = terms.timeout_s
        self._state = RunState(
            self.id,
            graph,
            streaming=terms.streaming,
            spend=lambda: driver.retries.spend(graph.version),
            past=None if journal is None else journal.past,
        )
        self._recording = None if journal is None else Recording(journal, self._pull, self.tell)
        self._facts: deque[m.Fact] = deque()
        self._working = False
        self._segments: dict[int, SegmentLink] = {}
        self._side: set[asyncio.Task[None]] = set()
        self._news = asyncio.Event()
        self._outputs: dict[str, Any] = {}
        self._began = time.perf_counter()
        self._loop = asyncio.get_running_loop()
        self._freed: asyncio.Future[None] = self._loop.create_future()
        self._freeing: asyncio.Task[None] | None = None
        self._expiry = self._loop.call_later(self._timeout_s, self._expire)
        self._work(self._begin)

    def cancel(self, reason: str = "") -> None:
        """End the run; what it was doing is aborted and what it held is freed."""
        self.tell(m.Stop(Cancelled(reason or "cancelled by the caller")))

    async def stream(self) -> AsyncIterator[Event]:
        """Events from the first to the last. Leaving early does not end the run."""
        position = 0
        while True:
            while position < len(self.events):
                event = self.events[position]
                position += 1
                yield event
            if self.ended:
                return
            await self.changed(position)

    @property
    def ended(self) -> bool:
        """Whether the run has ended and freed what it held; no event follows."""
        return self._freed.done()

    def when_ended(self, call: Callable[[], None]) -> None:
        """Have this called, on the loop, as soon as the run has ended and freed what it held."""
        self._freed.add_done_callback(lambda _: call())

    async def changed(self, position: int) -> None:
        """Wait until there is an event at ``position``, or no more will come."""
        while position >= len(self.events) and not self.ended:
            self._news.clear()
            await self._news.wait()

    async def finished(self) -> None:
        """Wait until the run has ended and freed what it held."""
        await asyncio.shield(self._freed)

    def tell(self, *facts: m.Fact) -> None:
        """Take facts, in this order, and carry out at once what follows from them."""
        self._facts.extend(facts)
        if not self._working:  # else whoever works takes them
            self._work()

    # -- the work --

    def _work(self, first: Callable[[], None] = lambda: None) -> None:
        if self._state.ended:
            return
        self._working = True
        try:
            first()
            while self._facts and not self._state.ended:
                self._carry_out(self._state.apply(self._facts.popleft()))
        except Exception as error:  # noqa: BLE001  # a bug of ours ends the run, it is not left open
            _log.exception("run %s", self.id)
            self._state.ended = True
            self._end(errors.wrap(error), Usage())
        finally:
            self._working = False
        if self._state.ended:
            self._free()

    def _begin(self) -> None:
        self._publish(m.Emit(self._beginning()))
        self._carry_out(self._state.begin())

    def _beginning(self) -> Body:
        """The first event of this life; what earlier ones used counts."""
        for event in self.events:
            if isinstance(event.body, Used):
                self.purse.use(spec_of(event.body.model, self.graph).source, event.body.usage)
        if not self.events:
            return RunStarted(workflow=self.graph.name, version=self.graph.version)
        return RunResumed(recorded=tuple(sorted(self._state.recorded)))

    def _carry_out(self, commands: list[m.Command]) -> None:
        for command in commands:
            match command:
                case m.Emit():
                    self._publish(command)
                case m.Announce(plan):
                    self._announce(plan)
                case m.MakePlan(stages, delay):
                    known = None if delay else self.driver.known_plan(self.graph, stages)
                    if known is None:
                        self._aside(self._plan(stages, delay))
                    else:
                        self._planned(known)
                case m.OpenSegment(index):
                    self._segments[index] = SegmentLink(self, command)
                case m.FeedSegment(index, stage, value, skipped):
                    if isinstance(value, m.Stored):
                        self._aside(self._feed_stored(command))
                        continue
                    feed = p.Feed(stage=stage, value=value, skipped=skipped)
                    self._segments[index].send(feed)
                case m.RetryStage():
                    self._aside(self._retry(command))
                case m.CloseSegment(index):
                    self._segments[index].close()
                case m.Record():
                    assert self._recording is not None
                    self._recording.add(command)
                case m.Collect(values) if not all(isinstance(v, Encoded) for v in values.values()):
                    self._aside(self._pull_outputs(values))
                case m.Collect(values):
                    self._collect(values)
                case m.End(error, usage):
                    self._end(error, usage)

    async def _plan(self, stages: frozenset[str], delay: float) -> None:
        try:
            if delay:
                await asyncio.sleep(delay)
            plan = await self.driver.plan(self.graph, stages)
        except AdjoinError as error:
            self.tell(m.Stop(error))
            return
        self._planned(plan)

    def _planned(self, plan: Plan) -> None:
        self.tell(m.Planned(plan))
        if self.graph.model_names():
            self._aside(self.driver.look_ahead(self.graph, plan))

    def _announce(self, plan: Plan) -> None:
        expected = predict(self.graph, plan, self.driver.costs, self.measures.inputs)
        body = RunPlanned(
            placement=plan.placement, predicted=expected.stages, seconds=expected.seconds
        )
        self._publish(m.Emit(body))

    async def _retry(self, command: m.RetryStage) -> None:
        await asyncio.sleep(command.delay)
        segment = self._segments[command.segment]
        readers = list(command.readers)
        segment.send(p.Retry(stage=command.stage, attempt=command.attempt, readers=readers))

    async def _pull_outputs(self, values: Mapping[str, m.Outcome]) -> None:
        here: dict[str, Encoded] = {}
        for stage, value in values.items():
            found = await self._have(stage, value)
            if found is None:
                return
            here[stage] = found
        self._collect(here)

    async def _feed_stored(self, command: m.FeedSegment) -> None:
        assert isinstance(command.value, m.Stored)
        value = await self._have(command.stage, command.value)
        if value is not None:
            feed = p.Feed(stage=command.stage, value=value, skipped=command.skipped)
            self._segments[command.segment].send(feed)

    async def _have(self, stage: str, value: m.Outcome) -> Encoded | None:
        """The value; when it can no longer be had, the run is told so."""
        if isinstance(value, Encoded):
            return value
        try:
            if isinstance(value, p.Ref):
                return await self._pull(value)
            assert self._recording is not None
            return await self._recording.load(value)
        except (TransportError, StateError):
            self.tell(m.ValueLost(stage, m.place_of(value)))
            return None

    async def _pull(self, value: p.Ref) -> Encoded:
        return await self.driver.cluster.pull(value, self.id)

    def _collect(self, values: Mapping[str, Any]) -> None:
        try:
            for stage, encoded in values.items():
                value = codec.decode(encoded)
                self._outputs[stage] = results.restore(self.graph.stage(stage), value)
        except TransportError as error:
            self.tell(m.Stop(error))
        else:
            self.tell(m.Collected())

    def _end(self, error: AdjoinError | None, usage: Usage) -> None:
        self.billed = self._state.billed(error)
        result: Any = None
        if error is None:
            try:
                result = self.graph.resolve_outputs({"inputs": self._inputs, **self._outputs})
            except AdjoinError as refused:
                error = refused
        seconds = time.perf_counter() - self._began
        if error is None:
            named = {"output": result} if self.graph.bare else result
            self._publish(m.Emit(RunCompleted(outputs=named, usage=usage, seconds=seconds)))
        else:
            self._publish(m.Emit(closing_body(error)))
        if self.done.done():
            return
        if error is None:
            self.done.set_result(result)
        else:
            self.done.set_exception(error)
            self.done.exception()  # a run that nobody waits for is not a bug

    def _expire(self) -> None:
        self.tell(m.Stop(DeadlineExceeded(f"the run took longer than {self._timeout_s:g} s")))

    def _free(self) -> None:
        self._expiry.cancel()
        if self._recording is not None:
            self._recording.close()
        for task in list(self._side):
            task.cancel()
        if open_ones := [each for each in self._segments.values() if not each.done]:
            self._freeing = asyncio.ensure_future(self._free_segments(open_ones))
        else:
            self._over()

    async def _free_segments(self, segments: list[SegmentLink]) -> None:
        try:
            await asyncio.gather(*(segment.ended() for segment in segments))
        finally:
            self._over()

    def _over(self) -> None:
        if not self._freed.done():
            self._freed.set_result(None)
        self._news.set()
        # After those who wait for the result.
        self._loop.call_soon(self.driver.learn, self.graph, self.measures)

    def clock(self) -> float:
        """Seconds since the run began."""
        return time.perf_counter() - self._began

    def _publish(self, news: m.Emit) -> None:
        now = self.clock()
        event = Event(
            run=self.id,
            seq=len(self.events),
            at=now if news.at is None else min(now, news.at),
            stage=news.stage,
            attempt=news.attempt,
            body=news.body,
        )
        if isinstance(news.body, StageWarning) and not self.streaming:  # else its reader sees it
            _log.warning("run %s, stage %r: %s", self.id, news.stage, news.body)
        self.events.append(event)
        self._news.set()
        if isinstance(news.body, Used):
            self._used(news.body)

    def _used(self, body: Used) -> None:
        """A call ended: the replica held it to its budget, the run is held to it here."""
        self.purse.use(spec_of(body.model, self.graph).source, body.usage)
        if over := self.purse.over():
            self.tell(m.Stop(over))

    def _aside(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._side.add(task)
        task.add_done_callback(self._side.discard)


def _inline(encoded: Encoded) -> Encoded:
    return Encoded(encoded.header, tuple(bytes(part) for part in encoded.buffers))
