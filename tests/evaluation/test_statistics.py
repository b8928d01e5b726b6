from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adjoin.evaluation import statistics
from adjoin.evaluation.statistics import (
    bootstrap,
    compare,
    interval,
    mcnemar,
    percentile,
    wilson,
)


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    # the first two from Newcombe, 1998 (table I, method 3)
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 1, 0.2065, 1)],
)
def test_wilsons_interval(successes: int, trials: int, low: float, high: float) -> None:
    found = wilson(successes, trials)
    assert found == pytest.approx((successes / trials, low, high), abs=5e-5)


@given(st.integers(0, 500), st.integers(1, 500))
def test_an_interval_has_the_share_and_is_mirrored(successes: int, more: int) -> None:
    trials = successes + more
    found, mirrored = wilson(successes, trials), wilson(trials - successes, trials)
    assert 0 <= found.low <= found.mean <= found.high <= 1
    assert found.low == pytest.approx(1 - mirrored.high)


def test_a_bootstrap_is_near_the_normal_interval_of_many_values() -> None:
    values = [math.sin(at) for at in range(1000)]
    found = bootstrap(values)
    mean = sum(values) / 1000
    half = 1.96 * math.sqrt(sum((each - mean) ** 2 for each in values) / 999 / 1000)
    assert found.mean == pytest.approx(mean)
    assert (found.low, found.high) == pytest.approx((mean - half, mean + half), abs=half / 20)
    assert bootstrap(values) == found


@settings(max_examples=20)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_a_bootstrap_stays_among_its_values(values: list[float]) -> None:
    found = bootstrap(values)
    slack = 1e-12
    assert min(values) - slack <= found.low <= found.mean + slack
    assert found.mean - slack <= found.high <= max(values) + slack


def test_resamples_are_drawn_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    values = [0.0, 1.0, 0.5, 0.25] * 10
    whole = bootstrap(values)
    monkeypatch.setattr(statistics, "_CHUNK", 1000)
    assert bootstrap(values) == whole


@pytest.mark.parametrize(
    ("wins", "losses", "p"),
    [(0, 0, 1.0), (5, 5, 1.0), (10, 0, 2 / 1024), (0, 10, 2 / 1024), (1, 7, 18 / 256)],
)
def test_mcnemar(wins: int, losses: int, p: float) -> None:
    assert mcnemar(wins, losses) == pytest.approx(p)


def test_mcnemar_of_many_is_a_number() -> None:
    assert mcnemar(5000, 1) == pytest.approx(0.0)
    assert mcnemar(5000, 5000) == 1.0
    assert 0.04 < mcnemar(5098, 4902) < 0.06


@given(st.lists(st.tuples(st.sampled_from([0.0, 1.0]), st.sampled_from([0.0, 1.0])), min_size=1))
@settings(max_examples=20)
def test_a_comparison_turned_round(pairs: list[tuple[float, float]]) -> None:
    a, b = map(list, zip(*pairs, strict=True))
    there, back = compare(a, b, binary=True), compare(b, a, binary=True)
    assert there.difference.mean == pytest.approx(sum(b) / len(b) - sum(a) / len(a))
    assert there.difference.mean == -back.difference.mean
    assert (there.wins, there.losses, there.ties) == (back.losses, back.wins, back.ties)
    assert there.wins + there.losses + there.ties == len(pairs)
    assert there.p == back.p


def test_pairs_see_what_means_hide() -> None:
    """The same gain on each question is certain, however much the questions differ."""
    a = [at / 100 for at in range(100)]
    b = [each + 0.01 for each in a]
    found = compare(a, b, binary=False)
    assert found.difference == pytest.approx((0.01, 0.01, 0.01))
    assert (found.wins, found.p) == (100, None)


def test_binary_scores_have_wilsons_interval() -> None:
    assert interval([1.0, 0.0, 1.0], binary=True) == wilson(2, 3)
    assert interval([1.0, 0.0, 1.0], binary=False) == bootstrap([1.0, 0.0, 1.0])


def test_percentiles() -> None:
    assert percentile([4.0, 1.0, 3.0, 2.0], 50) == 2.5
    assert math.isnan(percentile([], 50))
