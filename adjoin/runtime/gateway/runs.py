"""The runs of the service: let in, started in their turn, kept for a while, drained at the end."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from adjoin.errors import AdjoinError, Cancelled, NotFound, Overloaded, QuotaExceeded, wrap
from adjoin.functions.engines.base import Account
from adjoin.runtime.driver import Driver
from adjoin.runtime.gateway.deployments import Deployment, Deployments
from adjoin.runtime.gateway.gate import wait_turn
from adjoin.runtime.gateway.records import RunRecord
from adjoin.runtime.policies.admission import mean_seconds
from adjoin.runtime.policies.budget import Purse
from adjoin.settings import Settings

OnEnd = Callable[[RunRecord], None]


class Runs:
    """Every run that is waiting, running or not yet forgotten."""

    def __init__(
        self, driver: Driver, deployments: Deployments, settings: Settings, on_end: OnEnd
    ) -> None:
        self.draining = False
        self._driver = driver
        self._deployments = deployments
        self._settings = settings
        self._on_end = on_end
        self._active: dict[str, RunRecord] = {}
        self._ended: OrderedDict[str, RunRecord] = OrderedDict()
        self._kept_bytes = 0
        self._tenants: Counter[str] = Counter()
        self._idle = asyncio.Event()
        self._idle.set()

    def start(
        self,
        deployment: Deployment,
        inputs: Mapping[str, Any],
        *,
        streaming: bool = False,
        timeout_s: float | None = None,
        purse: Purse | None = None,
        id: str | None = None,
    ) -> RunRecord:
        """Accept a run: it starts now, or when it is its turn. Never waits.

        Args:
            purse: the budgets that it is held to.
            id: the one that its budget knows it by.

        Raises:
            InputError: the inputs do not fit.
            QuotaExceeded: the tenant has as many runs as it may.
            Overloaded: the workflow's queue is full, the run could not start in time, or the
                service is ending.
        """
        gate = deployment.gate
        if self.draining:
            raise Overloaded("the service is ending", retry_after=self._settings.drain_timeout_s)
        if self._tenants[deployment.tenant] >= self._settings.tenant_runs:
            raise QuotaExceeded(
                f"there are {self._tenants[deployment.tenant]} runs at once, which is the most",
                hint="wait for some to end",
                retry_after=mean_seconds(gate.load),
            )
        deployment.runnable.check_inputs(inputs)
        turn = gate.enter(timeout_s)
        record = RunRecord(deployment)
        record.id = id or record.id
        account = Account(deployment.tenant, deployment.name, deployment.graph.version, record.id)
        self._enter(record)
        began = time.monotonic()

        def begin() -> None:
            left = None if timeout_s is None else timeout_s - (time.monotonic() - began)
            run = self._driver.start(
                deployment.runnable,
                inputs,
                streaming=streaming,
                id=record.id,
                timeout_s=left,
                account=account,
                purse=purse,
            )
            record.began(run)
            run.when_ended(lambda: self._end(record, turn))

        async def wait() -> None:
            await wait_turn(turn, timeout_s)
            begin()

        def settled(task: asyncio.Task[None]) -> None:
            error = Cancelled("cancelled by the caller") if task.cancelled() else task.exception()
            if error is not None:
                self._refuse(record, turn, wrap(error))

        if turn.done():
            try:
                begin()
            except AdjoinError as error:
                self._refuse(record, turn, error)
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

    def _enter(self, record: RunRecord) -> None:
        self._active[record.id] = record
        self._tenants[record.tenant] += 1
        self._deployments.entered(record.deployment)
        self._idle.clear()

    def _refuse(self, record: RunRecord, turn: asyncio.Future[None], error: AdjoinError) -> None:
        record.deployment.gate.leave(turn)
        record.refused(error)
        self._leave(record)

    def _end(self, record: RunRecord, turn: asyncio.Future[None]) -> None:
        mean = record.seconds if record.state == "succeeded" else None
        record.deployment.gate.leave(turn, mean)
        self._leave(record)

    def _leave(self, record: RunRecord) -> None:
        del self._active[record.id]
        self._tenants[record.tenant] -= 1
        if not self._tenants[record.tenant]:
            del self._tenants[record.tenant]
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
