"""Gates of several tenants that lead into one lane: no server, no cluster."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest
from starlette.requests import Request
from texts import ENDLESS, SEARCH, text

from adjoin import Settings
from adjoin.dag.graph import ModelSpec
from adjoin.errors import Overloaded, QuotaExceeded
from adjoin.loading import load_text
from adjoin.runtime.gateway.asks import Ask, urgency_of
from adjoin.runtime.gateway.gate import Gate
from adjoin.runtime.gateway.lanes import Lane, Lanes, sequences
from adjoin.runtime.gateway.quotas import Quotas
from adjoin.runtime.policies.admission import Limits
from adjoin.runtime.policies.fair_share import Claim
from adjoin.runtime.policies.topology import Topology, Worker
from adjoin.settings import TenantBounds

SETTINGS = Settings(allowed_modules=("gateway_flows",), allowed_models=("fake:",))
WIDE = Limits(concurrency=100, queue=100)


def drain(gates: dict[str, Gate], held: list[tuple[str, asyncio.Future[None]]]) -> list[str]:
    """End what runs, one after the other in the order in which it started; says whose it was."""
    order: list[str] = []
    while held:
        ready = [each for each in held if each[1].done()]
        assert ready, "something runs while something waits"
        for each in ready:
            held.remove(each)
            order.append(each[0])
            gates[each[0]].leave(each[1], 1.0, 1.0)
            break
    return order


async def test_a_greedy_tenant_does_not_hold_up_another() -> None:
    lane = Lane(lambda: 1, tokens=True)
    gates = {tenant: Gate(WIDE, lane) for tenant in ("greedy", "small")}
    held = [("greedy", gates["greedy"].enter(None, Claim("greedy"))) for _ in range(40)]
    held += [("small", gates["small"].enter(None, Claim("small"))) for _ in range(4)]
    order = drain(gates, held)
    assert Counter(order[:9])["small"] == 4
    assert len(order) == 44


async def test_who_is_within_its_share_is_let_in_where_a_greedy_one_is_refused() -> None:
    lane = Lane(lambda: 4, tokens=True)
    limits = Limits(concurrency=100, queue=1000, patience=1.0)
    greedy, small = Gate(limits, lane), Gate(limits, lane)
    entered = 0
    with pytest.raises(Overloaded) as refused:
        while True:
            greedy.enter(None, Claim("greedy"))
            entered += 1
    assert entered == 4 + 4, "as many wait as start within the time of a run"
    assert refused.value.details["retry_after"] == pytest.approx(1.25)
    for _ in range(2):
        small.enter(None, Claim("small"))
    assert small.load.waiting == 2


async def test_a_model_has_room_for_so_many_of_all_workflows_together() -> None:
    room = 3
    lane = Lane(lambda: room)
    gates = [Gate(WIDE, lane), Gate(WIDE, lane)]
    turns = [(gate, gate.enter()) for _ in range(3) for gate in gates]
    assert sum(turn.done() for _, turn in turns) == 3
    room = 5
    gates[0].resize(WIDE)
    assert sum(turn.done() for _, turn in turns) == 5
    room = 1
    for gate, turn in turns:
        gate.leave(turn)
    assert (lane._running, len(lane._queue)) == (0, 0)


@pytest.mark.parametrize("seed", range(20))
async def test_the_counts_hold_whatever_the_order(seed: int) -> None:
    dice = random.Random(seed)
    lane = Lane(lambda: 8, tokens=True)
    gates = {t: Gate(Limits(concurrency=5, queue=6), lane) for t in ("a", "b", "c")}
    held: list[tuple[str, asyncio.Future[None], int]] = []
    for _ in range(400):
        if dice.random() < 0.6:
            tenant = dice.choice("abc")
            width, rank = dice.choice((1, 1, 1, 2)), dice.randrange(3)
            claim = Claim(tenant, cost=dice.random() + 0.1, width=width, rank=rank)
            try:
                held.append((tenant, gates[tenant].enter(None, claim), width))
            except Overloaded:
                assert gates[tenant].load.waiting == 6
        elif held:
            tenant, turn, _ = held.pop(dice.randrange(len(held)))
            gates[tenant].leave(turn, dice.random(), dice.random())
        running = [width for _, turn, width in held if turn.done()]
        assert sum(running) <= 8
        waits = {tenant for tenant, turn, _ in held if not turn.done()}
        if sum(running) < 7:
            assert all(gates[tenant].load.running == 5 for tenant in waits), "room is used"
    for tenant, turn, _ in held:
        gates[tenant].leave(turn)
    assert (lane._running, len(lane._queue)) == (0, 0)
    assert all((g.load.running, g.load.waiting) == (0, 0) for g in gates.values())


def test_workflows_of_all_tenants_that_ask_one_model_share_its_lane() -> None:
    lanes = Lanes(SETTINGS, lambda: None)
    plain, endless = (load_text(each, SETTINGS) for each in (text("plain"), ENDLESS))
    assert lanes.of(plain) is lanes.of(load_text(text("other"), SETTINGS))
    assert lanes.of(endless) is lanes.of(load_text(ENDLESS, SETTINGS))
    assert lanes.of(endless) is not lanes.of(plain)
    assert lanes.of(load_text(SEARCH, SETTINGS)) not in (lanes.of(endless), lanes.of(plain))
    assert lanes.of(endless).tokens and not lanes.of(plain).tokens


def test_there_is_room_for_what_the_replicas_take() -> None:
    plain = ModelSpec("m")
    assert sequences(plain, 0, True, cuda=False) == 16
    assert sequences(plain, 4, True, cuda=False) == 4
    assert sequences(plain, 0, True, cuda=True) == 128
    assert sequences(plain, 0, False, cuda=False) == 256
    assert sequences(ModelSpec("m", args={"max_num_seqs": 3}), 8, True, cuda=True) == 3
    assert sequences(ModelSpec("m", engine="transformers"), 0, True, cuda=False) == 4
    two = Topology(1, tuple(Worker(name=n, address=n, host=n) for n in "ab"))
    graph = load_text(ENDLESS, SETTINGS)
    lane = Lanes(SETTINGS, lambda: two).of(graph)
    assert lane._capacity is not None and lane._capacity() == 32
    fixed = Lanes(Settings(model_runs=7), lambda: two).of(graph)
    assert fixed._capacity is not None and fixed._capacity() == 7


# --- quotas and asks --------------------------------------------------------------------------


def test_a_tenants_own_bounds_win_over_those_of_all() -> None:
    tenants = {
        "*": TenantBounds(tokens_per_day=5, weight=2.0, runs=3),
        "acme": TenantBounds(tokens_per_day=9),
    }
    settings = Settings(tenants=tenants)
    acme, other = settings.bounds_of("acme"), settings.bounds_of("other")
    assert (acme.tokens_per_day, acme.weight, acme.runs) == (9, 2.0, 3)
    assert (other.tokens_per_day, other.runs) == (5, 3)
    assert Settings(tenant_runs=4).bounds_of("any").runs == 4


def test_runs_at_once_are_given_back() -> None:
    quotas = Quotas(Settings(tenants={"a": TenantBounds(runs=2)}))
    quotas.take_run("a", 1.0)
    quotas.take_run("a", 1.0)
    with pytest.raises(QuotaExceeded) as refused:
        quotas.take_run("a", 3.0)
    assert refused.value.details["retry_after"] == 3.0
    quotas.take_run("b", 1.0)
    quotas.give_run("a")
    quotas.take_run("a", 1.0)


def test_a_day_goes_on_from_what_was_used_of_it_before() -> None:
    tenants = {"a": TenantBounds(tokens_per_day=100), "b": TenantBounds(tokens_per_minute=5)}
    quotas = Quotas(Settings(tenants=tenants), wall=lambda: 20_000.5 * 86_400)
    assert quotas.by_day
    assert not Quotas(Settings()).by_day
    quotas.go_on({"a": 90, "b": 10**9, "c": 10**9})
    with pytest.raises(QuotaExceeded) as refused:
        quotas.reserve("a", 11)
    assert refused.value.details["retry_after"] == 43_200
    quotas.reserve("a", 10)
    quotas.reserve("b", 5)
    quotas.reserve("c", 5)


def test_the_time_that_is_told_is_when_there_is_enough_again() -> None:
    now = [0.0]
    quotas = Quotas(
        Settings(tenants={"a": TenantBounds(tokens_per_minute=60)}), clock=lambda: now[0]
    )
    quotas.reserve("a", 60)
    with pytest.raises(QuotaExceeded) as refused:
        quotas.reserve("a", 7)
    wait = refused.value.details["retry_after"]
    now[0] = wait - 0.5
    with pytest.raises(QuotaExceeded):
        quotas.reserve("a", 7)
    now[0] = wait
    quotas.reserve("a", 7)


@pytest.mark.parametrize(
    ("priority", "urgency", "attended", "rank"),
    [
        (None, None, True, 1),
        (None, None, False, 2),
        (None, 0, True, 1),
        (None, 6, True, 2),
        ("high", None, True, 0),
        ("high", 0, False, 0),
        ("high", 3, True, 1),
        ("low", 0, True, 2),
    ],
)
def test_nobody_is_more_urgent_than_its_tenant_may_be(
    priority: str | None, urgency: int | None, attended: bool, rank: int
) -> None:
    bounds = TenantBounds(priority=priority)  # type: ignore[arg-type]
    ask = Ask(urgency=urgency, attended=attended)
    assert ask.claim("a", bounds, 1.0).rank == rank


@pytest.mark.parametrize(
    ("header", "urgency"),
    [
        ("", None),
        ("u=2", 2),
        ("i, u=5", 5),
        ("u=7;x=1", 7),
        ("u=8", None),
        ("u=22", None),
        ("bu=2", None),
    ],
)
def test_urgency_is_that_of_rfc_9218(header: str, urgency: int | None) -> None:
    scope = {"type": "http", "headers": [(b"priority", header.encode())]}
    assert urgency_of(Request(scope)) == urgency
