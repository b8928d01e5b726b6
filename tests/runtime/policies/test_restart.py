from __future__ import annotations

from adjoin.errors import EngineError
from adjoin.runtime.policies.restart import PROCESSES, Failures, refusal

_ERROR = EngineError("it died")


def failures(count: int, now: float = 100.0) -> Failures:
    found = Failures()
    for _ in range(count):
        found = found.after(_ERROR, now)
    return found


def test_two_failures_are_answered_by_trying_again() -> None:
    assert refusal(failures(2), 100.0) is None


def test_the_third_pauses_and_says_for_how_long_and_why() -> None:
    refused = refusal(failures(3), 104.0)
    assert refused is not None
    assert "it died" in str(refused)
    assert refused.details["retry_after"] == 6.0
    assert refusal(failures(3), 110.0) is None


def test_pauses_double_up_to_a_bound() -> None:
    assert [failures(count).pause(100.0) for count in (3, 4, 5, 30)] == [10, 20, 40, 300]


def test_a_process_that_had_settled_is_started_again_at_once() -> None:
    crashing = Failures()
    for _ in range(4):
        crashing = crashing.after_life(0.5, _ERROR, 100.0)
    assert crashing.pause(100.0, PROCESSES) == 2.0
    assert crashing.after_life(60.0, _ERROR, 100.0).pause(100.0, PROCESSES) == 0.0
