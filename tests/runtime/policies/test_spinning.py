"""When a model's threads spin and when they sleep, by what the kernel counted on two cores."""

import pytest

from adjoin.runtime.policies.spinning import PATIENT_MS, patience

#: Seconds waited and run in one second, two threads, as measured: what else ran, and the patience.
ALONE = {0: (0.072, 1.27), PATIENT_MS: (0.048, 1.98)}
A_FIFTH = {0: (0.331, 1.19), PATIENT_MS: (0.235, 1.80)}
BUSY = {0: (0.545, 0.99), PATIENT_MS: (0.953, 1.09)}


@pytest.mark.parametrize("current", [0, PATIENT_MS])
@pytest.mark.parametrize(
    ("beside", "wanted"), [(ALONE, PATIENT_MS), (A_FIFTH, PATIENT_MS), (BUSY, 0)]
)
def test_threads_spin_unless_something_takes_a_core(
    current: int, beside: dict[int, tuple[float, float]], wanted: int
) -> None:
    waited, ran = beside[current]
    assert patience(current, waited, ran, threads=2) == wanted


@pytest.mark.parametrize("current", [0, PATIENT_MS])
def test_an_idle_model_tells_nothing(current: int) -> None:
    assert patience(current, waited=0.0, ran=0.0, threads=2) == current


def test_what_is_between_the_bounds_changes_nothing() -> None:
    for current in (0, PATIENT_MS):
        assert patience(current, waited=0.45, ran=1.0, threads=2) == current


def test_a_wait_of_the_same_length_weighs_more_among_many_threads() -> None:
    assert patience(PATIENT_MS, waited=0.4, ran=1.6, threads=2) == PATIENT_MS
    assert patience(PATIENT_MS, waited=0.4, ran=1.6, threads=8) == 0
