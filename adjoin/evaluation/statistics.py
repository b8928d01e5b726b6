"""How far means can be trusted: intervals, and tests of pairs. Everything here is deterministic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

#: Of the standard normal distribution, for 95 %.
_Z = 1.959963984540054
_RESAMPLES = 10_000
_SEED = 20_240_229
#: Numbers drawn at once, which bounds the memory to some MB.
_CHUNK = 1_000_000


class Interval(NamedTuple):
    """A mean and its 95 % confidence interval."""

    mean: float
    low: float
    high: float


class Comparison(NamedTuple):
    """Of ``b`` against ``a`` on the same questions.

    Attributes:
        difference: mean of ``b`` minus mean of ``a``, with the interval of a paired bootstrap.
        wins: questions on which ``b`` is better; ``losses``, where ``a`` is.
        p: exact, two-sided p-value of McNemar's test; None where scores are not all 0 or 1.
    """

    difference: Interval
    wins: int
    losses: int
    ties: int
    p: float | None


def interval(scores: Sequence[float], *, binary: bool) -> Interval:
    """The mean of scores: Wilson's interval where they are 0 or 1, else a bootstrap's."""
    return wilson(scores.count(1.0), len(scores)) if binary else bootstrap(scores)


def wilson(successes: int, trials: int) -> Interval:
    """Wilson's score interval of a proportion (Wilson, 1927). Without trials it is all there is."""
    if trials == 0:
        return Interval(math.nan, 0.0, 1.0)
    share = successes / trials
    centre = (share + _Z**2 / (2 * trials)) / (1 + _Z**2 / trials)
    spread = math.sqrt(share * (1 - share) / trials + _Z**2 / (4 * trials**2))
    half = _Z * spread / (1 + _Z**2 / trials)
    # At the ends rounding must not put the share itself outside.
    return Interval(share, min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half)))


def bootstrap(values: Sequence[float]) -> Interval:
    """Percentiles of the means of 10,000 resamples with a fixed seed (Efron, 1979)."""
    count = len(values)
    if count == 0:
        return Interval(math.nan, math.nan, math.nan)
    data = np.asarray(values, dtype=np.float64)
    random = np.random.default_rng(_SEED)
    rows = max(1, _CHUNK // count)
    means = np.concatenate(
        [
            data[random.integers(0, count, (min(rows, _RESAMPLES - start), count))].mean(axis=1)
            for start in range(0, _RESAMPLES, rows)
        ]
    )
    low, high = np.percentile(means, (2.5, 97.5))
    return Interval(float(data.mean()), float(low), float(high))


def compare(a: Sequence[float], b: Sequence[float], *, binary: bool) -> Comparison:
    """``b`` against ``a``, whose scores belong to the same questions in the same order."""
    differences = [after - before for before, after in zip(a, b, strict=True)]
    wins = sum(each > 0 for each in differences)
    losses = sum(each < 0 for each in differences)
    p = mcnemar(wins, losses) if binary else None
    return Comparison(bootstrap(differences), wins, losses, len(differences) - wins - losses, p)


def mcnemar(wins: int, losses: int) -> float:
    """How likely wins and losses are to be at least so uneven by chance (McNemar, 1947; exact)."""
    count = wins + losses
    tail = chosen = 1  # subsets of up to so many, and of just so many
    for at in range(min(wins, losses)):
        chosen = chosen * (count - at) // (at + 1)
        tail += chosen
    # Integers of any length, since 2**count may be no float any more; their quotient is one.
    return min(1.0, 2 * tail / (1 << count))


def percentile(values: Sequence[float], percent: float) -> float:
    """Linear between the nearest values; NaN of none."""
    if not values:
        return math.nan
    return float(np.percentile(np.asarray(values, dtype=np.float64), percent))
