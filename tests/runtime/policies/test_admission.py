"""Admission: an algebra of counts."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from adjoin.runtime.policies.admission import (
    Limits,
    Load,
    admit,
    expected_wait,
    learned,
    retry_after,
)

LIMITS = st.builds(Limits, concurrency=st.integers(1, 64), queue=st.integers(0, 64))
LOADS = st.builds(
    Load,
    running=st.integers(0, 64),
    waiting=st.integers(0, 64),
    seconds=st.none() | st.floats(0, 1e6),
)


@given(LOADS, LIMITS)
def test_bounds_hold_whatever_comes(load: Load, limits: Limits) -> None:
    verdict = admit(load, limits).verdict
    if verdict == "start":
        assert load.running < limits.concurrency
        assert not load.waiting, "nobody overtakes those who wait"
    if verdict == "wait":
        assert load.waiting < limits.queue
    if verdict == "refuse":
        assert load.waiting >= limits.queue


@given(LOADS, LIMITS)
def test_a_longer_queue_never_waits_less(load: Load, limits: Limits) -> None:
    longer = Load(load.running, load.waiting + 1, load.seconds)
    assert expected_wait(longer, limits) >= expected_wait(load, limits)


@given(st.floats(0, 1e12))
def test_retry_after_is_whole_seconds_within_bounds(seconds: float) -> None:
    assert 1 <= retry_after(seconds) <= 600
    assert seconds > 600 or retry_after(seconds) >= seconds


def test_a_run_that_cannot_meet_its_deadline_is_refused_at_once() -> None:
    load, limits = Load(running=2, waiting=3, seconds=4.0), Limits(concurrency=2, queue=10)
    assert expected_wait(load, limits) == 8.0
    assert admit(load, limits, patience=9.0).verdict == "wait"
    refused = admit(load, limits, patience=8.0)
    assert refused.verdict == "refuse"
    assert refused.wait == 8.0


def test_the_mean_follows_what_runs_take() -> None:
    mean = None
    for _ in range(50):
        mean = learned(mean, 3.0)
    assert mean == 3.0
    for _ in range(50):
        mean = learned(mean, 5.0)
    assert math.isclose(mean or 0, 5.0, rel_tol=1e-3)
