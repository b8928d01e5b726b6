"""When a step blocks a loop."""

from __future__ import annotations

from adjoin.runtime.policies.blocking import Look, Pulse, looked


def blocked(*looks: Look, limit: float = 1.0) -> float:
    pulse: Pulse | None = None
    for look in looks:
        pulse = looked(pulse, look, limit)
    return pulse.blocked(limit) if pulse is not None else 0.0


def every(seconds: float, *seen: tuple[int, int]) -> list[Look]:
    return [Look(at * seconds, ticks, step) for at, (ticks, step) in enumerate(seen)]


def test_a_step_that_is_seen_all_the_time_without_a_tick_blocks() -> None:
    assert blocked(*every(0.25, *[(7, 3)] * 5)) == 1.0
    assert blocked(*every(0.25, *[(7, 3)] * 9)) == 2.0
    assert blocked(*every(0.25, *[(7, 3)] * 4)) == 0.0


def test_a_loop_that_ticks_is_not_blocked() -> None:
    assert not blocked(*every(0.25, *[(ticks, 3) for ticks in range(20)]))
    assert not blocked(*every(0.25, *[(7, 3)] * 4, *[(8, 3)] * 4))


def test_a_loop_that_is_busy_with_many_steps_blames_none() -> None:
    assert not blocked(*every(0.25, *[(7, step) for step in range(1, 20)]))


def test_what_is_no_step_of_a_stage_is_not_blamed() -> None:
    assert not blocked(*every(0.25, *[(7, 0)] * 20))


def test_a_process_that_stood_still_blames_nobody() -> None:
    looks = every(0.25, (7, 3), (7, 3))
    assert not blocked(*looks, Look(60.0, 7, 3))
    assert not blocked(*looks, Look(60.0, 7, 3), Look(60.9, 7, 3))
    assert blocked(*looks, Look(60.0, 7, 3), Look(60.5, 7, 3), Look(61.0, 7, 3)) == 1.0


def test_looks_that_came_before_a_step_do_not_count() -> None:
    assert not blocked(*every(0.25, *[(7, 0)] * 9, *[(7, 3)] * 4))
