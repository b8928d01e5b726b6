"""The ledger in both databases against the fold that says what it means."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adjoin.errors import Cancelled, InputError, StageError
from adjoin.functions.engines.base import Account
from adjoin.runtime.database import Database, database_url, open_database
from adjoin.runtime.database.journal import Accepted, accept
from adjoin.runtime.gateway.ledger import Ledger, Period
from adjoin.runtime.policies.billing import (
    Billed,
    Price,
    Prices,
    Settlement,
    StageEnd,
    billed,
    fold,
    shares,
)
from adjoin.runtime.policies.budget import exceeded
from adjoin.runtime.usage_records import CallRecord, Outcome
from adjoin.settings import Settings
from adjoin.transport.codec import Encoded
from adjoin.types import Usage

PRICES = Prices({"big": Price(prompt=10.0, generated=30.0, cached=1.0)}, Price(prompt=1.0), 3.6)


@st.composite
def histories(
    draw: st.DrawFn,
) -> tuple[list[tuple[str, CallRecord]], list[Settlement]]:
    found = []
    for number in range(draw(st.integers(0, 12))):
        account = Account(
            tenant=draw(st.sampled_from("tu")),
            workflow="w",
            run=draw(st.sampled_from(("", "r1", "r2"))),
            stage=draw(st.sampled_from("ab")),
            attempt=draw(st.integers(1, 3)),
            place=draw(st.sampled_from(("a", "a[1]"))),
            tries=draw(st.integers(1, 2)),
            model=draw(st.sampled_from(("big", "small"))),
            waited=draw(st.sampled_from((0.0, 1.0, 3.0))),
        )
        usage = Usage(prompt=2**number, cached=draw(st.integers(0, 2**number)), generated=number)
        outcome: Outcome = draw(st.sampled_from(("ended", "aborted", "failed", "interrupted")))
        found.append(
            (draw(st.sampled_from("xy")), CallRecord(number + 1, account, usage, outcome, 9.0))
        )
    load = Usage(cold_start_seconds=8.0)
    found.append(("x", CallRecord(0, Account(model="big"), load, "load", 1.0)))
    ends = [
        Settlement(run, {stage: Billed(draw(st.integers(1, 3)), 2.0) for stage in "ab"}, "t", "w")
        for run in draw(st.sets(st.sampled_from(("r1", "r2"))))
    ]
    return found, ends


@given(histories(), st.randoms(use_true_random=False))
def test_order_and_repetition_change_nothing(
    history: tuple[list[tuple[str, CallRecord]], list[Settlement]], chance: random.Random
) -> None:
    found, ends = history
    again = [*found, *chance.sample(found, len(found) // 2)]
    chance.shuffle(again)
    assert fold(again, [*ends, *ends]) == fold(found, ends)


@given(histories())
def test_of_a_stage_one_attempt_is_billed_and_every_call_stands_once(
    history: tuple[list[tuple[str, CallRecord]], list[Settlement]],
) -> None:
    found, ends = history
    standing = fold(found, ends)
    assert set(standing) == {(log, each.seq) for log, each in found if each.seq}
    attempts: dict[tuple[str, str], set[int]] = {}
    for log, each in found:
        if each.account.run and standing.get((log, each.seq)) == "billed":
            key = each.account.run, each.account.stage
            attempts.setdefault(key, set()).add(each.account.attempt)
    assert all(len(numbers) == 1 for numbers in attempts.values())


@pytest.fixture
def ledger(state_url: str) -> Iterator[Ledger]:
    database: Database = open_database(database_url(Settings.load(database_url=state_url)))
    yield Ledger(database, PRICES)
    database.close()


async def test_the_query_is_the_fold(ledger: Ledger) -> None:
    chance = random.Random(7)
    found = [("x", CallRecord(0, Account(), Usage(cold_start_seconds=8.0), "load", 1.0))]
    for number in range(1, 200):
        account = Account(
            tenant=chance.choice("tu"),
            workflow="w",
            run=chance.choice(("", *(f"r{n}" for n in range(20)))),
            stage=chance.choice("ab"),
            attempt=chance.randint(1, 3),
            place=chance.choice(("a", "a[1]")),
            tries=chance.randint(1, 2),
            model=chance.choice(("big", "small")),
            waited=chance.choice((0.0, 1.0, 3.0)),
        )
        usage = Usage(prompt=chance.randint(1, 99), generated=number, seconds=1.5)
        outcomes: tuple[Outcome, ...] = ("ended", "failed", "interrupted")
        outcome = chance.choice(outcomes)
        found.append((chance.choice("xy"), CallRecord(number, account, usage, outcome, 9.0)))
    ends = [
        Settlement(f"r{n}", {s: Billed(chance.randint(1, 3), 2.0) for s in "ab"}, "t", "w")
        for n in range(15)
    ]
    for start in range(0, len(found), 20):
        await ledger.add(found[start : start + 30])  # with repeats
    for end in (*ends, *ends[:5]):
        await ledger.settle([end])
    standing = fold(found, ends)
    cold = shares({"x": 8.0}, {(log, e.seq): e.account.waited for log, e in found if e.seq})
    for one in await ledger.lines(("tenant", "model"), Period()):
        mine = [
            (log, e)
            for log, e in found
            if e.seq and (e.account.tenant, e.account.model) == tuple(one.group.values())
        ]
        for kind in ("billed", "wasted", "open"):
            right = [(log, e) for log, e in mine if standing[log, e.seq] == kind]
            told = getattr(one, kind)
            assert told.prompt == sum(e.usage.prompt for _, e in right)
            assert told.generated == sum(e.usage.generated for _, e in right)
            assert told.cold_start_seconds == pytest.approx(
                sum(cold.get((log, e.seq), 0.0) for log, e in right)
            )
    (whole,) = await ledger.lines((), Period())
    assert (whole.runs, whole.failed, whole.stage_seconds) == (15, 0, 60.0)


async def test_money(ledger: Ledger) -> None:
    account = Account("t", "w", "v", "r", "a", 1, "a", 1, "big")
    usage = Usage(prompt=1_000_000, cached=500_000, generated=100_000, seconds=1000.0)
    await ledger.add([("x", CallRecord(1, account, usage, "ended", 86_400.0))])
    await ledger.settle([Settlement("r", {"a": Billed(1)}, "t", "w", "v", at=86_400.0)])
    (line,) = await ledger.lines(("workflow", "day"), Period(tenant="t"))
    assert line.group == {"workflow": "w", "day": 1}
    assert line.revenue == pytest.approx(5.0 + 0.5 + 3.0)
    assert line.margin == pytest.approx(8.5 - 1.0)
    assert not await ledger.lines((), Period(tenant="u"))
    assert not await ledger.lines((), Period(until=86_400.0))
    with pytest.raises(InputError, match="nonsense"):
        await ledger.lines(("nonsense",), Period())


async def test_tokens_of_a_day_are_all_but_those_of_runs_that_go_on(ledger: Ledger) -> None:
    day = 20_000
    told = [  # run, tenant, day, outcome
        ("ended", "t", day, "ended"),
        ("ended", "t", day, "failed"),  # wasted
        ("lost", "t", day, "interrupted"),  # its service died with it
        ("goes-on", "t", day, "ended"),
        ("ended", "t", day - 1, "ended"),
        ("other", "u", day, "ended"),
    ]
    for number, (run, tenant, when, outcome) in enumerate(told, 1):
        usage = Usage(prompt=10**number, cached=10**number, generated=2, embedded=1)
        account = Account(tenant=tenant, run=run, stage="s", attempt=1)
        record = CallRecord(number, account, usage, cast("Outcome", outcome), when * 86_400.0)
        await ledger.add([("x", record)])
    going = Accepted(
        id="goes-on",
        tenant="t",
        workflow="w",
        version="v",
        revision=1,
        inputs=Encoded(b"", ()),
        streaming=False,
        created=0.0,
        deadline=1.0,
    )
    await ledger._database.write(lambda c: accept(c, going, b"graph"))
    assert await ledger.tokens_of_day(day) == {"t": 1110 + 3 * 3, "u": 1_000_003}


STAGES = {
    "a": StageEnd(2, True, True, 3.0),
    "b": StageEnd(1, False, True),
    "c": StageEnd(0, False, False),
}


def test_what_is_billed_of_a_run_by_its_end() -> None:
    assert billed(STAGES, None, streaming=True) == {"a": Billed(2, 3.0)}
    gone = Cancelled("by the caller")
    assert set(billed(STAGES, gone, streaming=True)) == {"a", "b"}
    assert billed(STAGES, gone, streaming=False) == {}
    over = StageError.of("r", "b", 1, exceeded("the run's budget"))
    assert set(billed(STAGES, over, streaming=False)) == {"a", "b"}
