"""Admission: an algebra of counts."""

from __future__ import annotations

import math
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from adjoin.runtime.policies.admission import (
    Crowd,
    Limits,
    Load,
    admit,
    expected_wait,
    hopeless,
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
    assert 1 <= retry_after(seconds) <= 86_400
    assert seconds > 86_400 or retry_after(seconds) >= seconds


def test_a_run_that_cannot_meet_its_deadline_is_refused_at_once() -> None:
    load, limits = Load(running=2, waiting=3, seconds=4.0), Limits(concurrency=2, queue=10)
    assert expected_wait(load, limits) == 8.0
    assert admit(load, limits, timeout=9.0).verdict == "wait"
    refused = admit(load, limits, timeout=8.0)
    assert refused.verdict == "refuse"
    assert refused.wait == 8.0


def test_what_is_known_of_how_long_runs_take_counts_for_a_deadline() -> None:
    load = Load(running=1, waiting=0, seconds=2.0, quickest=1.5)
    limits = Limits(concurrency=1, queue=10)
    assert admit(load, limits, timeout=3.6).verdict == "wait"
    assert admit(load, limits, timeout=3.4).verdict == "refuse", "2 s until it starts, 1.5 to run"
    assert hopeless(load, 1.4) and not hopeless(load, 1.6)


def test_who_is_waited_for_waits_no_longer_than_a_run_takes() -> None:
    load, limits = Load(running=4, waiting=4, seconds=2.0), Limits(4, 100, patience=1.0)
    assert expected_wait(load, limits) == 2.5
    assert admit(load, limits).verdict == "refuse"
    assert admit(replace(load, waiting=3), limits).verdict == "wait"
    assert admit(load, limits, attended=False).verdict == "wait"
    assert admit(load, replace(limits, patience=None)).verdict == "wait"
    quick = replace(load, seconds=0.01, waiting=99)
    assert admit(quick, limits).verdict == "wait", "a quarter of a second is worth it"


def test_others_who_ask_the_same_model_count() -> None:
    load, limits = Load(running=1, seconds=2.0), Limits(concurrency=8, queue=10)
    crowd = Crowd(runs=7, slots=4, seconds=2.0)
    assert expected_wait(load, limits) == 0
    assert admit(load, limits, crowd=crowd).wait == 4.0


@given(st.lists(st.floats(0.001, 1e4), min_size=1))
def test_the_quickest_run_is_never_slower_than_the_mean(seconds: list[float]) -> None:
    load = Load()
    for each in seconds:
        load = load.after(each, 1.0)
        assert load.quickest <= each or math.isclose(load.quickest, each)
    assert load.seconds is not None and load.quickest <= load.seconds * (1 + 1e-9)


def test_the_mean_follows_what_runs_take() -> None:
    mean = None
    for _ in range(50):
        mean = learned(mean, 3.0)
    assert mean == 3.0
    for _ in range(50):
        mean = learned(mean, 5.0)
    assert math.isclose(mean or 0, 5.0, rel_tol=1e-3)
