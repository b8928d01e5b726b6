from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from adjoin.runtime.policies.liveness import (
    Condition,
    Deadlines,
    Look,
    Progress,
    Verdict,
    condition,
    is_missed,
    judge,
    stalled,
)

DEADLINES = Deadlines(beat_s=0.5, silence_s=10.0)
RANK = {Verdict.ALIVE: 0, Verdict.SUSPECT: 1, Verdict.DEAD: 2}


def test_one_late_beat_is_nothing() -> None:
    for found in Condition:
        assert judge(0.9, found, DEADLINES) is Verdict.ALIVE


def test_silence_is_suspect_and_death_only_after_the_deadline() -> None:
    assert judge(1.0, Condition.UNKNOWN, DEADLINES) is Verdict.SUSPECT
    assert judge(9.9, Condition.UNKNOWN, DEADLINES) is Verdict.SUSPECT
    assert judge(10.0, Condition.UNKNOWN, DEADLINES) is Verdict.DEAD


def test_a_stopped_process_is_not_waited_for() -> None:
    assert judge(1.0, Condition.STOPPED, DEADLINES) is Verdict.DEAD


def test_one_that_computes_has_longer() -> None:
    assert judge(59.0, Condition.BUSY, DEADLINES) is Verdict.SUSPECT
    assert judge(60.0, Condition.BUSY, DEADLINES) is Verdict.DEAD


@given(st.sampled_from(Condition), st.floats(0, 1e4), st.floats(0, 1e4))
def test_longer_silence_is_never_better(found: Condition, one: float, other: float) -> None:
    short, long = sorted((one, other))
    assert RANK[judge(short, found, DEADLINES)] <= RANK[judge(long, found, DEADLINES)]


def test_the_kernel_says_what_a_silent_process_does() -> None:
    before = Look("S", 10.0)
    assert condition(before, None, 2.0) is Condition.UNKNOWN
    assert condition(before, Look("T", 10.0), 2.0) is Condition.STOPPED
    assert condition(before, Look("t", 10.0), 2.0) is Condition.BUSY  # in a debugger
    assert condition(before, Look("R", 10.0), 2.0) is Condition.BUSY  # no core for it
    assert condition(before, Look("D", 10.0), 2.0) is Condition.BUSY
    assert condition(before, Look("S", 10.05), 2.0) is Condition.UNKNOWN
    assert condition(before, Look("S", 11.0), 2.0) is Condition.BUSY
    assert condition(None, Look("S", 11.0), 2.0) is Condition.UNKNOWN


STALL = Deadlines(beat_s=0.5, silence_s=30.0)


def test_a_step_that_waits_for_nothing_is_a_stall() -> None:
    progress = Progress(step_s=29.0, longest_s=0.1)
    assert stalled(progress, 0.0, Condition.UNKNOWN, STALL) == ""
    progress = Progress(step_s=30.0, longest_s=0.1)
    assert "30.0 s" in stalled(progress, 0.0, Condition.UNKNOWN, STALL)


def test_a_long_prompt_on_a_slow_machine_is_not() -> None:
    assert stalled(Progress(step_s=170.0), 0.0, Condition.BUSY, STALL) == ""
    assert stalled(Progress(step_s=180.0), 0.0, Condition.BUSY, STALL)


def test_where_steps_are_long_longer_ones_are_expected() -> None:
    progress = Progress(step_s=79.0, longest_s=4.0)
    assert stalled(progress, 0.0, Condition.UNKNOWN, STALL) == ""
    assert stalled(Progress(step_s=80.0, longest_s=4.0), 0.0, Condition.UNKNOWN, STALL)


def test_a_replica_that_answers_nothing_is_a_stall() -> None:
    assert stalled(Progress(), 29.0, Condition.UNKNOWN, STALL) == ""
    assert "answer" in stalled(Progress(), 30.0, Condition.UNKNOWN, STALL)


def test_loading_has_a_limit_of_its_own_but_not_when_it_is_stopped() -> None:
    loading = Progress(loading=True, step_s=0.0)
    assert stalled(loading, 500.0, Condition.UNKNOWN, STALL) == ""
    assert stalled(loading, 500.0, Condition.BUSY, STALL) == ""
    assert "stopped" in stalled(loading, 1.0, Condition.STOPPED, STALL)


def test_a_stopped_replica_is_not_given_time_to_compute() -> None:
    assert stalled(Progress(), 0.9, Condition.STOPPED, STALL) == ""
    assert "stopped" in stalled(Progress(), 1.0, Condition.STOPPED, STALL)


def test_a_nanny_is_replaced_where_it_was_stopped_or_its_worker_is_missing_for_long() -> None:
    deadlines = Deadlines(beat_s=0.5, silence_s=8.0)
    stopped, sleeps = Look("T", 1.0), Look("S", 1.0)
    assert not is_missed(0.9, stopped, deadlines)
    assert is_missed(1.0, stopped, deadlines)
    assert not is_missed(59.0, sleeps, deadlines)
    assert not is_missed(59.0, Look("t", 1.0), deadlines)
    assert not is_missed(59.0, None, deadlines)
    assert is_missed(60.0, None, deadlines)
