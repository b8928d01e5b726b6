"""The runs of the service: let in, started in their turn, kept for a while, drained at the end."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from adjoin.errors import AdjoinError, Cancelled, DeadlineExceeded, NotFound, Overloaded, wrap
from adjoin.functions.engines.base import Account
from adjoin.runtime.driver import Driver
from adjoin.runtime.gateway.asks import Ask, Slot
from adjoin.runtime.gateway.deployments import Deployment, Deployments
from adjoin.runtime.gateway.durable import DurableRecord
from adjoin.runtime.gateway.gate import wait_turn
from adjoin.runtime.gateway.quotas import Quotas
from adjoin.runtime.gateway.records import RunRecord
from adjoin.runtime.policies.admission import hopeless, mean_seconds
from adjoin.runtime.policies.quota import prompt_tokens, tokens_of
from adjoin.settings import Settings

OnEnd = Callable[[RunRecord], None]


@dataclass(frozen=True)
class Place:
    """Of one run: its turn, the tokens that are reserved for it, and what it competes by."""

    turn: asyncio.Future[None]
    reserved: float
    by_tokens: bool


class Runs:
    """Every run that is waiting, running or not yet forgotten."""

    def __init__(
        self,
        driver: Driver,
        deployments: Deployments,
        settings: Settings,
        quotas: Quotas,
        on_end: OnEnd,
    ) -> None:
        self.draining = False
        self._driver = driver
        self._deployments = deployments
        self._settings = settings
        self._on_end = on_end
        self._active: dict[str, RunRecord] = {}
        self._ended: OrderedDict[str, RunRecord] = OrderedDict()
        self._kept_bytes = 0
        self.quotas = quotas
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    def start(
        self,
        deployment: Deployment,
        inputs: Mapping[str, Any],
        *,
        streaming: bool = False,
        ask: Ask | None = None,
    ) -> RunRecord:
        """Accept a run: it starts now, or when it is its turn. Never waits.

        Raises:
            InputError: the inputs do not fit.
            QuotaExceeded: the tenant has as many runs as it may, or too few tokens left.
            Overloaded: the workflow's queue is full, the run could not start in time, or the
                service is ending.
        """
        ask = ask or Ask()
        record = RunRecord(deployment, ask.run)
        place = self.admit(record, inputs, ask)
        self.launch(record, inputs, ask, place, streaming=streaming)
        return record

    def admit(self, record: RunRecord, inputs: Mapping[str, Any], ask: Ask) -> Place:
        """Give a run a place in the queue; raises as :meth:`start`."""
        deployment = record.deployment
        with ask.slot or self.take(deployment.tenant, deployment) as slot:
            deployment.runnable.check_inputs(inputs)
            place = self._enter_gate(deployment, inputs, ask)
            slot.keep()
        self.enter(record)
        return place

    def withdraw(self, record: RunRecord, place: Place) -> None:
        """Take the place back from a run that is not accepted after all."""
        record.deployment.gate.leave(place.turn)
        self._give_back(record, place)
        self.leave(record)

    def launch(
        self,
        record: RunRecord,
        inputs: Mapping[str, Any],
        ask: Ask,
        place: Place,
        *,
        streaming: bool = False,
    ) -> None:
        """Start a run that has a place, now or when it is its turn.

        Raises:
            AdjoinError: it ended at once; not of a durable run, whose outcome says so.
        """
        deployment = record.deployment
        account = Account(deployment.tenant, record.workflow, record.version, record.id)
        began = time.monotonic()

        def begin() -> None:
            left = None if ask.timeout_s is None else ask.timeout_s - (time.monotonic() - began)
            if isinstance(record, DurableRecord):
                left = record.left_s
            if left is not None and (left <= 0 or hopeless(deployment.gate.load, left)):
                raise DeadlineExceeded(
                    f"{left:.3g} s are left when the run could start, which is too short",
                    hint="give it more time; there is much to do just now",
                )
            run = self._driver.start(
                deployment.runnable,
                inputs,
                streaming=streaming,
                id=record.id,
                timeout_s=left,
                account=account,
                purse=ask.purse,
                journal=record.journal if isinstance(record, DurableRecord) else None,
            )
            record.began(run)
            record.when_freed(run, lambda: self._end(record, place))

        async def wait() -> None:
            await wait_turn(place.turn, ask.timeout_s)
            begin()

        def settled(task: asyncio.Task[None]) -> None:
            error = Cancelled("cancelled by the caller") if task.cancelled() else task.exception()
            if error is not None:
                self._refuse(record, place, wrap(error))

        if place.turn.done():
            try:
                begin()
            except AdjoinError as error:
                self._refuse(record, place, error)
                if not record.durable:
                    raise
        else:
            record.waiting = asyncio.ensure_future(wait())
            record.waiting.add_done_callback(settled)

    def find(self, tenant: str, id: str) -> RunRecord:
        """A run; raises :class:`NotFound`, also for one that is another tenant's."""
        found = self._active.get(id) or self._ended.get(id)
        if found is None or found.tenant != tenant:
            raise NotFound(
                f"there is no run {id[:40]!r}", hint="runs are forgotten some time after their end"
            )
        return found

    def of(self, tenant: str, most: int) -> list[RunRecord]:
        """A tenant's runs, the newest first."""
        found = [*self._ended.values(), *self._active.values()]
        mine = (record for record in found if record.tenant == tenant)
        return sorted(mine, key=lambda record: record.created, reverse=True)[:most]

    async def drain(self, timeout_s: float) -> None:
        """Accept no more, wait for those that are there; after the time cancel what is left, and
        leave to the next service what is durable."""
        self.draining = True
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            for record in list(self._active.values()):
                if isinstance(record, DurableRecord):
                    record.suspend()
                else:
                    record.cancel("the service is ending")
            await self._idle.wait()

    def take(self, tenant: str, deployment: Deployment | None = None) -> Slot:
        """A place for one more run of a tenant, before its request is read: whoever has none left,
        or no room in the queue, is told so for the price of a header.

        Raises:
            QuotaExceeded: the tenant has as many runs as it may.
            Overloaded: the workflow's queue is full, or the service is ending.
        """
        if self.draining:
            raise Overloaded("the service is ending", retry_after=self._settings.drain_timeout_s)
        seconds = None if deployment is None else deployment.gate.load.seconds
        if deployment is not None:
            deployment.gate.check_queue()
        self.quotas.take_run(tenant, mean_seconds(seconds))
        return Slot(self.quotas, tenant)

    def _enter_gate(self, deployment: Deployment, inputs: Mapping[str, Any], ask: Ask) -> Place:
        """A place in the queue, for which tokens are reserved.

        Raises:
            QuotaExceeded: the tenant has too few tokens left.
            Overloaded: the queue is full, or the run would start too late.
        """
        tenant, gate = deployment.tenant, deployment.gate
        bounds = self._settings.bounds_of(tenant)
        usual = gate.load.cost if gate.lane.tokens else None
        reserved = 0.0
        if gate.lane.tokens:
            reserved = ask.tokens or usual or prompt_tokens(inputs)
            cost = reserved if usual is None else min(reserved, usual)
        else:
            cost = mean_seconds(gate.load.seconds)
        self.quotas.reserve(tenant, reserved)
        try:
            claim = ask.claim(tenant, bounds, cost)
            turn = gate.enter(ask.timeout_s, claim, attended=ask.attended)
        except AdjoinError:
            self.quotas.settle(tenant, reserved, 0)
            raise
        return Place(turn, reserved, gate.lane.tokens)

    def enter(self, record: RunRecord) -> None:
        """A run is there from now on."""
        if record.id not in self._active:
            self._active[record.id] = record
            record.on_end = self._on_end
            self._deployments.entered(record.deployment)
            self._idle.clear()

    def leave(self, record: RunRecord) -> None:
        """A run is not there any more: it has ended and freed what it held, was not accepted, or is
        suspended."""
        self._active.pop(record.id, None)
        self._deployments.left(record.deployment)
        if record.ended and not record.durable:
            self._keep(record)
        if not self._active:
            self._idle.set()

    def forget(self, id: str) -> None:
        """Keep no more of a run that has ended."""
        if (record := self._ended.pop(id, None)) is not None:
            self._kept_bytes -= record.nbytes

    def _refuse(self, record: RunRecord, place: Place, error: AdjoinError) -> None:
        record.deployment.gate.leave(place.turn)
        self._give_back(record, place)
        if isinstance(record, DurableRecord):
            self._aside(self._refuse_durable(record, error))
            return
        record.refused(error)
        self.leave(record)

    async def _refuse_durable(self, record: DurableRecord, error: AdjoinError) -> None:
        if not record.suspended:
            await record.refuse(error)
        self.leave(record)

    def _end(self, record: RunRecord, place: Place) -> None:
        mean = record.seconds if record.state == "succeeded" else None
        cost = tokens_of(record.usage) if place.by_tokens else record.seconds
        record.deployment.gate.leave(place.turn, mean, cost)
        self._give_back(record, place)
        self.leave(record)

    def _give_back(self, record: RunRecord, place: Place) -> None:
        self.quotas.give_run(record.tenant)
        self.quotas.settle(record.tenant, place.reserved, tokens_of(record.usage))

    def _aside(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _keep(self, record: RunRecord) -> None:
        self._ended[record.id] = record
        self._kept_bytes += record.nbytes
        most, most_bytes = self._settings.kept_runs, self._settings.kept_run_bytes
        while len(self._ended) > most or (self._kept_bytes > most_bytes and len(self._ended) > 1):
            _, old = self._ended.popitem(last=False)
            self._kept_bytes -= old.nbytes
