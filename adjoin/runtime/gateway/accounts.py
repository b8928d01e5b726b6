"""What the service does about usage: it fetches it, settles runs, and keeps tenants to budgets."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import replace
from typing import Any

import msgspec

from adjoin.errors import AdjoinError, InputError, TransportError
from adjoin.runtime import protocol as p
from adjoin.runtime.cluster import Cluster
from adjoin.runtime.database import Database
from adjoin.runtime.gateway.asks import Ask
from adjoin.runtime.gateway.ledger import Ledger, Period
from adjoin.runtime.gateway.records import RunRecord
from adjoin.runtime.policies.billing import Price, Prices, Settlement
from adjoin.runtime.policies.budget import Budget, Purse
from adjoin.runtime.usage_records import read
from adjoin.runtime.usage_sweep import FETCH_BYTES, Piece
from adjoin.settings import Settings

_DAY_S = 86_400
#: Runs that end within so many seconds are settled together.
_SETTLE_EVERY_S = 0.1
_PATIENCE_S = 5.0
_log = logging.getLogger("adjoin.gateway")


def prices_of(settings: Settings) -> Prices:
    """Raises :class:`InputError` for a price that is of nothing, or below zero."""
    try:
        named = msgspec.convert(settings.prices, dict[str, Price])
    except msgspec.ValidationError as error:
        raise InputError(str(error), where="the setting prices") from None
    for model, price in named.items():
        if any(part < 0 for part in msgspec.structs.astuple(price.rate)):
            raise InputError(f"a price of {model!r} is below zero", where="the setting prices")
    default = named.pop("default", Price())
    return Prices(named, default, settings.price_per_hour)


class Accounts:
    """Keeps the ledger: reads the usage logs of the cluster's machines until it is closed."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self.ledger = Ledger(database, prices_of(settings))
        self._settings = settings
        self._cluster: Cluster
        #: By machine and file: up to where it is in the ledger, and whether it is closed.
        self._kept: dict[str, dict[str, tuple[int, bool]]] = {}
        self._fetching = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._ended: list[Settlement] = []
        self._settling: asyncio.Task[None] | None = None
        #: By tenant, of one day.
        self._purses: dict[str, tuple[int, Purse]] = {}

    def start(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._task = asyncio.ensure_future(self._follow())

    async def close(self) -> None:
        """Fetch what there is, while the cluster is still there, and settle what has ended."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            await self.up_to_date()

    async def up_to_date(self) -> None:
        """Have in the ledger whatever has ended before this was called."""
        if self._settling is not None:  # a database that cannot be written does not hold us up
            await asyncio.wait([self._settling], timeout=_PATIENCE_S)
        await self.fetch()

    def ended(self, record: RunRecord) -> None:
        """Have a run that has ended settled."""
        end = Settlement(
            run=record.id,
            billed=record.billed,
            tenant=record.tenant,
            workflow=record.deployment.name,
            version=record.deployment.graph.version,
            state=record.state,
            at=time.time(),
        )
        self._ended.append(end)
        if self._settling is None:
            self._settling = asyncio.ensure_future(self._settle())

    async def funded(self, ask: Ask, tenant: str, tokens: int | None = None) -> Ask:
        """The same, with the budgets that its run is held to.

        Raises:
            QuotaExceeded: nothing is left of one.
        """
        return replace(ask, purse=await self.purse(tenant, ask.run, tokens))

    async def purse(self, tenant: str, run: str, tokens: int | None) -> Purse:
        """The budgets of a run: its own, in tokens, and its tenant's of this day.

        Raises:
            QuotaExceeded: nothing is left of one.
        """
        own = self._settings.run_tokens if tokens is None else tokens
        mine = [Budget(f"run:{run}", f"the run's budget of {own} tokens", own)] if own else []
        purse = Purse(mine, [await self._of_today(tenant)] if self._limits(tenant) else [])
        if spent := purse.spent_up():
            raise spent
        return purse

    def _limits(self, tenant: str) -> list[Budget]:
        tokens, money = self._settings.tenant_day_tokens, self._settings.tenant_day_money
        prices = self.ledger.prices
        found = []
        if tokens:
            name = f"the tenant's budget of {tokens} tokens a day"
            found.append(Budget(f"tokens:{tenant}", name, tokens))
        if money:
            name = f"the tenant's budget of {money:g} a day"
            rate = prices.default.rate
            found.append(Budget(f"money:{tenant}", name, money, rate, prices.rates))
        return found

    async def _of_today(self, tenant: str) -> Purse:
        """What the ledger has of today, and what runs have used since it was looked at."""
        today = int(time.time() // _DAY_S)
        known = self._purses.get(tenant)
        if known is None or known[0] != today:
            purse = Purse(self._limits(tenant))
            period = Period(since=today * _DAY_S, tenant=tenant)
            for line in await self.ledger.lines(("model",), period):
                purse.use(line.group["model"], line.billed + line.open)
            known = self._purses.setdefault(tenant, (today, purse))
            if known[0] != today:
                known = self._purses[tenant] = (today, purse)
        return known[1]

    async def used_today(self) -> dict[str, int]:
        """Tokens by tenant, for quotas that begin to count in the middle of a day.

        Raises:
            StateError: the ledger cannot be read.
        """
        with contextlib.suppress(TransportError):  # where no machine is, nothing can be fetched
            await self._cluster.complete()
        await self.fetch()  # what the last service did not live to write
        return await self.ledger.tokens_of_day(int(time.time() // _DAY_S))

    async def fetch(self) -> None:
        """Bring everything that is new from each machine into the ledger."""
        async with self._fetching:
            await self._fetch_all()

    async def _fetch_all(self) -> None:
        workers = {worker.host: worker.name for worker in self._cluster.topology.workers}
        for host, worker in workers.items():
            try:
                while await self._fetch_from(host, worker):
                    pass
            except AdjoinError as error:  # it is kept where it is, and fetched the next time
                _log.warning("usage of %s could not be fetched: %s", host, error)

    async def _fetch_from(self, host: str, worker: str) -> bool:
        """One answer of a machine; whether there may be more."""
        kept = self._kept.setdefault(host, {})
        known = {file: offset for file, (offset, _) in kept.items()}
        answer = await self._cluster.call(worker, p.FetchUsage(acknowledged=known))
        pieces = msgspec.msgpack.decode(answer, type=list[Piece])
        records: list[tuple[str, Any]] = []
        # What is closed and was acknowledged is removed there, and need not be known here.
        offsets = {file: end for file, end in kept.items() if not end[1]}
        for piece in pieces:
            found = read(piece.data)
            lost = found.damaged
            size = found.size
            if piece.closed:  # what is left is torn: its writer was cut off
                lost += len(piece.data) - size
                size = len(piece.data)
            if lost:
                _log.error("usage log %s: %d bytes are damaged, and not billed", piece.file, lost)
            records += [(piece.log, record) for record in found.records]
            offsets[piece.file] = piece.offset + size, piece.closed
        await self.ledger.add(records)
        self._kept[host] = offsets
        return sum(len(piece.data) for piece in pieces) >= FETCH_BYTES

    async def _settle(self) -> None:
        """Settle what has ended, and what ends meanwhile. One write for each run would take longer
        than a short run does."""
        await asyncio.sleep(_SETTLE_EVERY_S)
        while ends := self._ended:
            self._ended = []
            try:
                await self.ledger.settle(ends)
            except AdjoinError as error:
                _log.error("%d runs are not settled yet: %s", len(ends), error)
                self._ended = ends + self._ended
                await asyncio.sleep(self._settings.usage_fetch_s)
            else:
                await asyncio.sleep(_SETTLE_EVERY_S if self._ended else 0)
        self._settling = None

    async def _follow(self) -> None:
        while True:
            with contextlib.suppress(OSError):
                await self.fetch()
            await asyncio.sleep(self._settings.usage_fetch_s)
