"""The queue of a workflow: in order, so many at once, and every place is given back."""

from __future__ import annotations

import asyncio
import random

import pytest

from adjoin.errors import DeadlineExceeded, Overloaded
from adjoin.runtime.gateway.gate import Gate, wait_turn
from adjoin.runtime.policies.admission import Limits, Load


async def test_runs_start_in_their_order() -> None:
    gate = Gate(Limits(concurrency=1, queue=2))
    first, second, third = gate.enter(), gate.enter(), gate.enter()
    assert [turn.done() for turn in (first, second, third)] == [True, False, False]
    with pytest.raises(Overloaded) as full:
        gate.enter()
    assert full.value.details["retry_after"] == 3.0
    gate.leave(first, 2.0)
    assert second.done() and not third.done()
    assert gate.load == Load(running=1, waiting=1, seconds=2.0, cost=0.0, quickest=2.0)


async def test_whoever_leaves_the_queue_takes_nobodys_place() -> None:
    gate = Gate(Limits(concurrency=1, queue=2))
    first, second, third = gate.enter(), gate.enter(), gate.enter()
    gate.leave(second)
    gate.leave(first)
    assert third.done()
    gate.leave(third)
    assert gate.load == Load()


async def test_a_turn_that_does_not_come_in_time_is_given_up() -> None:
    gate = Gate(Limits(concurrency=1, queue=1))
    gate.enter()
    turn = gate.enter()
    with pytest.raises(DeadlineExceeded):
        await wait_turn(turn, 0.001)
    gate.leave(turn)
    assert gate.load.waiting == 0


async def test_more_room_lets_those_in_who_wait() -> None:
    gate = Gate(Limits(concurrency=1, queue=3))
    turns = [gate.enter() for _ in range(4)]
    gate.resize(Limits(concurrency=3, queue=0))
    assert [turn.done() for turn in turns] == [True, True, True, False]


@pytest.mark.parametrize("seed", range(20))
async def test_the_counts_hold_whatever_the_order(seed: int) -> None:
    dice = random.Random(seed)
    gate = Gate(Limits(concurrency=3, queue=5))
    held: list[asyncio.Future[None]] = []
    for _ in range(300):
        if dice.random() < 0.6:
            try:
                held.append(gate.enter())
            except Overloaded:
                assert gate.load.waiting == 5
        elif held:
            gate.leave(held.pop(dice.randrange(len(held))), dice.random())
        started = sum(turn.done() for turn in held)
        assert gate.load.running == started <= 3
        assert gate.load.waiting == len(held) - started
        assert started == min(3, len(held)), "nobody waits while there is room"
    while held:
        gate.leave(held.pop())
    assert (gate.load.running, gate.load.waiting) == (0, 0)
