"""The budget of retries."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from adjoin.runtime.policies.retry import RetryBudget


@given(st.lists(st.integers(0, 20)))
def test_retries_are_a_tenth_of_what_begins_and_a_reserve(begun: list[int]) -> None:
    budget, retries = RetryBudget(), 0
    for stages in begun:
        budget = budget.earn(stages)
        for _ in range(stages):  # everything fails, once
            if (left := budget.spend()) is not None:
                budget = left
                retries += 1
    assert retries <= 100 + 0.1 * sum(begun) + 1e-6
    assert retries >= min(sum(begun), 100)


def test_what_a_replica_takes_down_with_it_is_tried_again_at_once() -> None:
    budget: RetryBudget | None = RetryBudget()
    for _ in range(100):
        assert budget is not None
        budget = budget.spend()
    assert budget is not None and budget.spend() is None
    assert budget.earn(9).spend() is None
    assert budget.earn(10).spend() is not None
