"""Runs under crash, delay, duplicate and reorder, by seed."""

from __future__ import annotations

import dataclasses

import pytest
from world import Chance, World, completed, losses, oracle

from adjoin.errors import Cancelled, StageError
from adjoin.runtime import moves as m
from adjoin.runtime.policies.retry import INFRASTRUCTURE_ATTEMPTS

SEEDS = range(1000)
FEWER = range(400)  # plans of two kinds of stages take longer to find
CALM = Chance()
STORM = Chance(
    crashes=2, function_fails=0.03, engine_fails=0.05, duplicate=0.3, large=0.5, cancel=0.1
)
CRASH = Chance(crashes=1, duplicate=0.3, large=0.5)
CRASHES = Chance(crashes=2, duplicate=0.3, large=0.5)
#: How a run ends under whose stage two workers died; after one it never does.
BLAMED = "as 2 were while it ran"


def test_calm_runs_do_each_stage_once_and_return_the_oracles_values() -> None:
    for seed in SEEDS:
        world = World(seed, CALM)
        end = world.run()
        expected = oracle(world.graph)
        assert end.error is None, seed
        assert world.outputs == {name: expected[name] for name in world.graph.output_stages()}
        assert sorted(completed(world)) == sorted(expected)
        assert sorted(world.executed) == sorted((name, 1) for name in expected)
        assert end.usage.generated == len(expected)


@pytest.mark.parametrize("chance", [CRASH, CRASHES])
def test_a_crash_never_fails_a_run_and_two_only_where_one_stage_had_both(chance: Chance) -> None:
    lost = blamed = 0
    for seed in SEEDS:
        world = World(seed, chance)
        end = world.run()
        expected = oracle(world.graph)
        if end.error is not None:
            assert BLAMED in str(end.error), (seed, end.error)
            blamed += 1
            continue
        assert world.outputs == {name: expected[name] for name in world.graph.output_stages()}
        assert end.usage.generated == len(expected), "wasted attempts are not billed"
        lost += losses(world)
    assert lost > 100, "the weather was too good to show anything"
    assert blamed <= (len(SEEDS) / 20 if chance is CRASHES else 0)


@pytest.mark.parametrize("streaming", [False, True])
def test_storms_end_once_with_everything_closed(streaming: bool) -> None:
    outcomes: dict[type[BaseException] | None, int] = {}
    for seed in SEEDS:
        world = World(seed, STORM, attempts=2, streaming=streaming)
        end = world.run()
        outcomes[type(end.error) if end.error else None] = (
            outcomes.get(type(end.error) if end.error else None, 0) + 1
        )
        _check_invariants(world, end, streaming)
    assert outcomes.keys() == {None, Cancelled, StageError}


def test_streams_do_not_change_what_runs_return() -> None:
    for seed in FEWER:
        world = World(seed, Chance(streams=0.7, scattered=0.5))
        end = world.run()
        expected = oracle(world.graph)
        assert end.error is None, seed
        assert world.outputs == {name: expected[name] for name in world.graph.output_stages()}
        assert sorted(world.executed) == sorted((name, 1) for name in expected)


def test_what_reads_a_stream_that_was_lost_begins_again() -> None:
    broken = 0
    for seed in FEWER:
        world = World(seed, Chance(crashes=2, duplicate=0.3, large=0.5, streams=0.7, scattered=0.5))
        end = world.run()
        expected = oracle(world.graph)
        assert end.error is None, (seed, end.error)
        assert world.outputs == {name: expected[name] for name in world.graph.output_stages()}
        assert end.usage.generated == len(expected)
        broken += world.broken
    assert broken > 40, "too few streams broke to show anything"


@pytest.mark.parametrize("streaming", [False, True])
def test_storms_over_streams_end_once_with_everything_closed(streaming: bool) -> None:
    for seed in FEWER:
        world = World(
            seed,
            dataclasses.replace(STORM, streams=0.7, scattered=0.5),
            attempts=2,
            streaming=streaming,
        )
        _check_invariants(world, world.run(), streaming)


def test_a_seed_replays_to_the_letter() -> None:
    for seed in range(20):
        first, second = World(seed, STORM), World(seed, STORM)
        first.run()
        second.run()
        assert repr(first.history) == repr(second.history)


def _check_invariants(world: World, end: m.End, streaming: bool) -> None:
    opened = [c.segment for c in world.history if isinstance(c, m.OpenSegment)]
    closed = {c.segment for c in world.history if isinstance(c, m.CloseSegment)}
    assert len(opened) == len(set(opened)), "a segment is opened once"
    assert closed <= set(opened) <= closed | world.ended, "each opened segment is closed, or ended"
    assert isinstance(world.history[-1], m.End), "nothing is commanded after the end"
    if end.error is None:
        expected = oracle(world.graph)
        assert world.outputs == {name: expected[name] for name in world.graph.output_stages()}
    attempts: dict[str, int] = {}
    for stage, attempt in world.executed:
        attempts[stage] = max(attempts.get(stage, 0), attempt)
    bound = 2 * INFRASTRUCTURE_ATTEMPTS + world.chance.crashes
    assert max(attempts.values(), default=0) <= bound
    if streaming:
        _check_no_retry_after_tokens(world)


def _check_no_retry_after_tokens(world: World) -> None:
    """Once a reader saw tokens of an attempt, no later attempt of that stage shows any."""
    seen: dict[str, int] = {}
    for command in world.history:
        if isinstance(command, m.Emit) and type(command.body).__name__ == "Tokens":
            assert seen.setdefault(command.stage, command.attempt) == command.attempt
