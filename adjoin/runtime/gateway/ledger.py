"""The ledger: what was consumed and what of it is billed, in the service's database.

Calls come from the usage logs of replicas, by log and number, so that whatever comes twice or late
changes nothing; how a run ended says which of its calls are billed (:mod:`..policies.billing`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from sqlalchemy import (
    Connection,
    RowMapping,
    Select,
    Table,
    and_,
    bindparam,
    case,
    delete,
    func,
    insert,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite

from adjoin.errors import InputError
from adjoin.runtime.database import Database
from adjoin.runtime.database.journal import OPEN
from adjoin.runtime.database.tables import calls, runs, settled, settled_stages
from adjoin.runtime.policies.billing import Prices, Settlement
from adjoin.runtime.usage_records import CallRecord
from adjoin.types import Usage

#: What usage can be looked at by.
KEYS = ("tenant", "workflow", "version", "stage", "model", "day")
_OF_RUNS = frozenset({"tenant", "workflow", "version", "day"})
_DAY_S = 86_400
_AT_ONCE = 500


class Period(msgspec.Struct, frozen=True):
    """From ``since`` to before ``until``, in seconds since the epoch; of one tenant, or of all."""

    since: float | None = None
    until: float | None = None
    tenant: str | None = None


class Line(msgspec.Struct, omit_defaults=False):
    """What one group comes to. Tokens are counted once: ``billed``, ``wasted``, or ``open`` while
    their run goes on. ``revenue`` is of the billed, ``cost`` of all the engines' seconds."""

    group: dict[str, Any]
    runs: int | None = None
    failed: int | None = None
    billed: Usage = Usage()
    wasted: Usage = Usage()
    open: Usage = Usage()
    stage_seconds: float | None = None
    revenue: float = 0.0
    cost: float = 0.0

    @property
    def margin(self) -> float:
        return self.revenue - self.cost

    def to_dict(self) -> dict[str, Any]:
        found: dict[str, Any] = msgspec.to_builtins(self)
        return {**found.pop("group"), **found, "margin": self.margin}


class Ledger:
    """Usage of all tenants."""

    def __init__(self, database: Database, prices: Prices) -> None:
        self._database = database
        self.prices = prices

    async def add(self, found: Sequence[tuple[str, CallRecord]]) -> None:
        """Keep calls, each with its log; those that are known already change nothing.

        Raises:
            StateError: nothing was written.
        """
        if found:
            await self._database.write(lambda connection: add(connection, found))

    async def settle(self, ends: Sequence[Settlement]) -> None:
        """Runs have ended. If one ends again, after a crash, its last end counts.

        Raises:
            StateError: nothing was written.
        """
        last = list({end.run: end for end in ends}.values())
        await self._database.write(lambda connection: settle(connection, last))

    async def lines(self, by: Sequence[str], period: Period) -> list[Line]:
        """What was used, by these :data:`KEYS`, in their order.

        Raises:
            InputError: a key is unknown.
            StateError: it cannot be read.
        """
        for key in by:
            if key not in KEYS:
                raise InputError(f"usage is not kept by {key!r}", hint=f"use {', '.join(KEYS)}")
        return await self._database.read(lambda c: lines(c, by, period, self.prices))

    async def tokens_of_day(self, day: int) -> dict[str, int]:
        """As :func:`tokens_of_day`; raises :class:`StateError` where it cannot be read."""
        return await self._database.read(lambda c: tokens_of_day(c, day))


def add(connection: Connection, found: Sequence[tuple[str, CallRecord]]) -> None:
    """Keep calls, in the transaction of who calls; known ones change nothing."""
    rows = [_row(log, record) for log, record in found]
    for start in range(0, len(rows), _AT_ONCE):
        connection.execute(_ignoring(connection, calls), rows[start : start + _AT_ONCE])


def lines(connection: Connection, by: Sequence[str], period: Period, prices: Prices) -> list[Line]:
    """What was used, by these of :data:`KEYS`, in their order."""
    found: dict[tuple[Any, ...], Line] = {}

    def line(values: Iterable[Any]) -> Line:
        key = tuple(values)
        return found.setdefault(key, Line(dict(zip(by, key, strict=True))))

    for row in connection.execute(_tokens(by, period)).mappings():
        usage = _usage(row)
        one = line(row[key] for key in by)
        standing = row["standing"]
        setattr(one, standing, getattr(one, standing) + usage)
        if standing == "billed":
            one.revenue += prices.revenue(row["model"], usage)
        one.cost += prices.cost(usage.seconds + usage.cold_start_seconds)
    if set(by) <= _OF_RUNS:
        for row in connection.execute(_runs(by, period)).mappings():
            one = line(row[key] for key in by)
            one.runs, one.failed = row["runs"], int(row["failed"])
    if "model" not in by:
        for row in connection.execute(_seconds(by, period)).mappings():
            line(row[key] for key in by).stage_seconds = row["seconds"]
    return [found[key] for key in sorted(found, key=str)]


def tokens_of_day(connection: Connection, day: int) -> dict[str, int]:
    """What each tenant's calls have consumed on a day since the epoch (UTC), billed or not.

    Without those of durable runs that have not ended: whoever goes on with one counts all of it.
    """
    c = calls.c
    unended = select(runs.c.id).where(runs.c.state == OPEN)
    tokens = func.sum(c.prompt + c.generated + c.embedded)
    query = select(c.tenant, tokens).where(c.day == day, c.run.not_in(unended)).group_by(c.tenant)
    return {tenant: int(used) for tenant, used in connection.execute(query)}


def _usage(row: RowMapping) -> Usage:
    """Sums of whole numbers are decimals in PostgreSQL."""
    return Usage(
        prompt=int(row["sum_prompt"]),
        cached=int(row["sum_cached"]),
        generated=int(row["sum_generated"]),
        embedded=int(row["sum_embedded"]),
        seconds=float(row["sum_seconds"]),
        cold_start_seconds=float(row["sum_cold_start_seconds"]),
    )


def settle(connection: Connection, ends: Sequence[Settlement]) -> None:
    """Write how runs ended, each at most once in the list, in the transaction of who calls."""
    runs = [{"ended": end.run} for end in ends]
    for table in (settled, settled_stages):
        connection.execute(delete(table).where(table.c.run == bindparam("ended")), runs)
    connection.execute(insert(settled), [_settled_row(end) for end in ends])
    stages = [
        {"run": end.run, "stage": stage, **billed._asdict()}
        for end in ends
        for stage, billed in end.billed.items()
    ]
    if stages:
        connection.execute(insert(settled_stages), stages)


def _settled_row(end: Settlement) -> dict[str, Any]:
    values = {name: getattr(end, name) for name in ("run", "tenant", "workflow", "version")}
    return values | {"state": end.state, "at": end.at, "day": int(end.at // _DAY_S)}


def _row(log: str, record: CallRecord) -> dict[str, Any]:
    account, usage = record.account, record.usage
    row = {"log": log, "seq": record.seq, "outcome": record.outcome, "at": record.at}
    row |= msgspec.structs.asdict(account)
    row |= {name: getattr(usage, name) for name in ("prompt", "cached", "generated", "embedded")}
    row |= {"seconds": usage.seconds, "loaded": usage.cold_start_seconds}
    return row | {"day": int(record.at // _DAY_S)}


def _ignoring(connection: Connection, table: Table) -> Any:
    """An insert that leaves what is there."""
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    return dialect.insert(table).on_conflict_do_nothing()


def _tokens(by: Sequence[str], period: Period) -> Select[Any]:
    """Sums by the keys, the model, and how calls stand. The same as :func:`.billing.fold`."""
    c = calls.c
    each = select(
        calls,
        func.max(c.tries).over(partition_by=[c.run, c.stage, c.attempt, c.place]).label("last"),
        func.sum(c.waited).over(partition_by=c.log).label("all_waited"),
        func.max(c.loaded).over(partition_by=c.log).label("load"),
    ).subquery()
    e = each.c
    right = and_(settled_stages.c.attempt == e.attempt, e.tries == e.last)
    standing = case(
        (and_(e.run == "", e.outcome == "ended"), "billed"),
        (e.run == "", "wasted"),
        (settled.c.run.is_(None), "open"),
        (right, "billed"),
        else_="wasted",
    ).label("standing")
    cold = case((e.all_waited > 0, e.load * e.waited / e.all_waited), else_=0.0)
    groups = [e[key] for key in dict.fromkeys((*by, "model"))]
    sums = [
        func.sum(e[name]).label(f"sum_{name}")
        for name in ("prompt", "cached", "generated", "embedded", "seconds")
    ]
    stage = and_(settled_stages.c.run == e.run, settled_stages.c.stage == e.stage)
    joined = each.outerjoin(settled, settled.c.run == e.run).outerjoin(settled_stages, stage)
    sums.append(func.sum(cold).label("sum_cold_start_seconds"))
    query = select(*groups, standing, *sums).select_from(joined).where(e.outcome != "load")
    return _within(query, e, period).group_by(*groups, standing)


def _runs(by: Sequence[str], period: Period) -> Select[Any]:
    groups: list[Any] = [settled.c[key] for key in by]
    failed = func.sum(case((settled.c.state == "succeeded", 0), else_=1)).label("failed")
    query: Select[Any] = select(*groups, func.count().label("runs"), failed).select_from(settled)
    query = _within(query, settled.c, period)
    return query.group_by(*groups) if groups else query.having(func.count() > 0)


def _seconds(by: Sequence[str], period: Period) -> Select[Any]:
    table = settled_stages.join(settled, settled.c.run == settled_stages.c.run)
    groups: list[Any] = [settled_stages.c.stage if key == "stage" else settled.c[key] for key in by]
    query: Select[Any] = select(*groups, func.sum(settled_stages.c.seconds).label("seconds"))
    query = _within(query.select_from(table), settled.c, period)
    return query.group_by(*groups) if groups else query.having(func.count() > 0)


def _within(query: Select[Any], columns: Any, period: Period) -> Select[Any]:
    if period.since is not None:
        query = query.where(columns.at >= period.since)
    if period.until is not None:
        query = query.where(columns.at < period.until)
    if period.tenant is not None:
        query = query.where(columns.tenant == period.tenant)
    return query
