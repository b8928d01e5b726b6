"""The runs of the service: let in, started in their turn, kept for a while, drained at the end."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from adjoin.errors import AdjoinError, Cancelled, DeadlineExceeded, NotFound, Overloaded, wrap
from adjoin.functions.engines.base import Account
from adjoin.runtime.driver import Driver
from adjoin.runtime.gateway.asks import Ask, Slot
from adjoin.runtime.gateway.deployments import Deployment, Deployments
from adjoin.runtime.gateway.gate import wait_turn
from adjoin.runtime.gateway.quotas import Quotas
from adjoin.runtime.gateway.records import RunRecord
from adjoin.runtime.policies.admission import hopeless, mean_seconds
from adjoin.runtime.policies.quota import prompt_tokens, tokens_of
from adjoin.settings import Settings

OnEnd = Callable[[RunRecord], None]


@dataclass(frozen=True)
class _Place:
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
        timeout_s = ask.timeout_s
        with ask.slot or self.take(deployment.tenant, deployment) as slot:
            deployment.runnable.check_inputs(inputs)
            place = self._enter_gate(deployment, inputs, ask)
            slot.keep()
        turn = place.turn
        record = RunRecord(deployment, ask.run)
        account = Account(deployment.tenant, deployment.name, deployment.graph.version, record.id)
        self._enter(record, place)
        began = time.monotonic()

        def begin() -> None:
            left = None if timeout_s is None else timeout_s - (time.monotonic() - began)
            if left is not None and hopeless(deployment.gate.load, left):
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
            )
            record.began(run)
            run.when_ended(lambda: self._end(record, place))

        async def wait() -> None:
            await wait_turn(turn, timeout_s)
            begin()

        def settled(task: asyncio.Task[None]) -> None:
            error = Cancelled("cancelled by the caller") if task.cancelled() else task.exception()
            if error is not None:
                self._refuse(record, place, wrap(error))

        if turn.done():
            try:
                begin()
            except AdjoinError as error:
                self._refuse(record, place, error)
                raise
        else:
            record.waiting = asyncio.ensure_future(wait())
            record.waiting.add_done_callback(settled)
        return record

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
        """Accept no more, wait for those that are there, cancel what is left after the time."""
        self.draining = True
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            for record in list(self._active.values()):
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

    def _enter_gate(self, deployment: Deployment, inputs: Mapping[str, Any], ask: Ask) -> _Place:
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
        return _Place(turn, reserved, gate.lane.tokens)

    def _enter(self, record: RunRecord, place: _Place) -> None:
        self._active[record.id] = record
        self._deployments.entered(record.deployment)
        self._idle.clear()

    def _refuse(self, record: RunRecord, place: _Place, error: AdjoinError) -> None:
        record.deployment.gate.leave(place.turn)
        record.refused(error)
        self._leave(record, place)

    def _end(self, record: RunRecord, place: _Place) -> None:
        mean = record.seconds if record.state == "succeeded" else None
        cost = tokens_of(record.usage) if place.by_tokens else record.seconds
        record.deployment.gate.leave(place.turn, mean, cost)
        self._leave(record, place)

    def _leave(self, record: RunRecord, place: _Place) -> None:
        del self._active[record.id]
        self.quotas.give_run(record.tenant)
        self.quotas.settle(record.tenant, place.reserved, tokens_of(record.usage))
        self._deployments.left(record.deployment)
        self._keep(record)
        self._on_end(record)
        if not self._active:
            self._idle.set()

    def _keep(self, record: RunRecord) -> None:
        self._ended[record.id] = record
        self._kept_bytes += record.nbytes
        most, most_bytes = self._settings.kept_runs, self._settings.kept_run_bytes
        while len(self._ended) > most or (self._kept_bytes > most_bytes and len(self._ended) > 1):
            _, old = self._ended.popitem(last=False)
            self._kept_bytes -= old.nbytes
