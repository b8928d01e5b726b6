"""Durable runs and their ledger through deaths of their service, torn writes and dying workers,
by seed. ``ADJOIN_TEST_SEEDS`` says how many: CI plays 1,500 of each (``make seeds``).
"""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import pytest
from durable import DurableWorld
from world import Chance, oracle

from adjoin.runtime.database import journal
from adjoin.runtime.run import ATTEMPTS_OF_A_LIFE
from adjoin.types import Event, Usage

SEEDS = range(int(os.environ.get("ADJOIN_TEST_SEEDS", "100")))
CALM = Chance()
CRASHES = Chance(crashes=1, duplicate=0.3, large=0.5)
STREAMS = dataclasses.replace(CRASHES, streams=0.6, scattered=0.5)
STORM = Chance(crashes=2, function_fails=0.02, engine_fails=0.05, duplicate=0.3, large=0.5)


@contextmanager
def playing(seed: int, chance: Chance, **options: object) -> Iterator[DurableWorld]:
    world = DurableWorld(seed, chance, **options)  # type: ignore[arg-type]
    try:
        yield world
    finally:
        world.close()


@pytest.mark.parametrize("chance", [CALM, CRASHES, STREAMS], ids=["calm", "crashes", "streams"])
def test_a_run_ends_once_with_the_oracles_result_however_often_its_service_dies(
    chance: Chance,
) -> None:
    lives = 0
    for seed in SEEDS:
        with playing(seed, chance, deaths=3) as world:
            end = world.run()
            expected = oracle(world.graph)
            assert end.error is None, (seed, end.error)
            assert world.outputs == {name: expected[name] for name in world.graph.output_stages()}
            assert world.known().state == "succeeded"
            assert end.usage.generated == len(expected), "wasted attempts are not billed"
            lives += world.lives
            _check_attempts(world)
            _check_usage(world, end.usage.generated)
    assert lives > len(SEEDS), "too few deaths to show anything"


@pytest.mark.parametrize("streaming", [False, True])
def test_storms_end_once(streaming: bool) -> None:
    for seed in SEEDS:
        with playing(seed, STORM, deaths=3, attempts=2, streaming=streaming) as world:
            end = world.run()
            assert world.known().state == ("succeeded" if end.error is None else "failed")
            if end.error is None:
                expected = oracle(world.graph)
                outputs = world.graph.output_stages()
                assert world.outputs == {name: expected[name] for name in outputs}
            _check_attempts(world)
            _check_usage(world, end.usage.generated if end.error is None else None)


def test_values_that_are_damaged_are_made_again() -> None:
    for seed in SEEDS:
        with playing(seed, dataclasses.replace(CRASHES, large=0.9), deaths=3) as world:
            world.damaged = 0.3
            end = world.run()
            expected = oracle(world.graph)
            assert end.error is None, (seed, end.error)
            assert world.outputs == {name: expected[name] for name in world.graph.output_stages()}


def test_a_reader_sees_tokens_of_a_stage_from_one_attempt() -> None:
    lost = 0
    for seed in SEEDS:
        chance = dataclasses.replace(CALM, tokens=0.9)
        with playing(seed, chance, deaths=2, streaming=True) as world:
            end = world.run()
            lost += end.error is not None
            seen: dict[str, int] = {}
            for each in journal.shown_of(world.connection, "run"):
                event = msgspec.json.decode(each.data, type=Event)
                if each.kind == "Tokens":
                    assert seen.setdefault(event.stage, event.attempt) == event.attempt, seed
    assert lost, "no stream was cut: nothing was shown"


def _check_usage(world: DurableWorld, billed: int | None) -> None:
    """Everything that engines counted is in the ledger once; what the run used is billed."""
    line = world.usage()
    assert line.billed.generated + line.wasted.generated == len(world.executed), world.seed
    assert (line.open, line.runs) == (Usage(), 1), world.seed
    if billed is not None:
        assert line.billed.generated == billed, world.seed


def _check_attempts(world: DurableWorld) -> None:
    """No number of an attempt is used in two lives."""
    bounds = [*world.born_at, len(world.executed)]
    lives = [set(world.executed[a:b]) for a, b in itertools.pairwise(bounds)]
    assert sum(map(len, lives)) == len(set().union(*lives))
    assert all(n // ATTEMPTS_OF_A_LIFE <= world.lives for _, n in world.executed)
