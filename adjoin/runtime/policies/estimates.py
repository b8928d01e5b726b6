"""Estimates that follow what is observed: linear models and means, with forgetting.

All are frozen; ``observe`` gives a new one. A linear model is fitted by recursive least squares
with exponential forgetting (Ljung, *System Identification*, 1999, chapter 11), in its information
form: sums of products of what was observed, and a prior that stays. Weights are the least squares
solution that is nowhere below zero (after Lawson and Hanson 1974; a weight that was put to zero is
not taken back), since more work never costs less. They are solved anew from the sums each time, so
that no error of one step is carried into the next.

Errors are relative: an observation is divided by the larger of what was seen and what was
predicted, so that a small text counts as much as a large one, and none is off by more than its
whole. An error far outside the usual ones counts for less (Huber 1964), so that a run in which the
machine was busy teaches little; several in a row are a change, and what was known before then
counts for little.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import msgspec

#: How much of what was known is kept with each observation, and when it has changed.
FORGETTING, FORGOTTEN = 0.985, 0.05
#: Variance of the relative error of one observation, against which a prior's doubts count.
NOISE = 0.02
#: Errors beyond this multiple of their usual size count for less.
CUT = 3.0
#: Observations before any is taken for an outlier, and outliers in a row that are a change.
TRUSTED, CHANGED = 8, 4
#: Weight of a new observation in moving means, once there are more than its inverse.
SHARE = 0.1
#: The largest value is a limit when it came so often, and for so many times the least.
_SEEN, _MORE = 3, 1.25
#: An error that is always usual.
_LEAST = 0.02

Rows: TypeAlias = tuple[tuple[float, ...], ...]


class Mean(msgspec.Struct, frozen=True):
    """A moving mean; the first observation replaces the prior."""

    value: float
    count: int = 0

    def observe(self, value: float) -> Mean:
        share = max(SHARE, 1 / (self.count + 1))
        return Mean(self.value + share * (value - self.value), self.count + 1)


class Limit(msgspec.Struct, frozen=True):
    """A largest value that more does not raise, such as a model's longest input.

    Attributes:
        value: the largest one seen.
        count: how often it was.
        least, most: of what it was seen for.
    """

    value: float = 0.0
    count: int = 0
    least: float = 0.0
    most: float = 0.0

    def observe(self, x: float, y: float) -> Limit:
        if y > self.value:
            return Limit(y, 1, x, x)
        if y < self.value:
            return self
        return Limit(y, self.count + 1, min(self.least, x), max(self.most, x))

    @property
    def holds(self) -> bool:
        return self.count >= _SEEN and self.most > _MORE * self.least

    def cap(self, value: float) -> float:
        return min(value, self.value) if self.holds else value


class Linear(msgspec.Struct, frozen=True):
    """``y ≈ weights · x``, all weights at least zero.

    Attributes:
        guess: the weights before anything was seen.
        trust: in each of them, as if so much had been observed; infinite for one that is fixed.
        products: sums of ``x xᵀ``, row by row, and ``moments`` of ``x y``, of scaled observations.
        floor: values below it count as this large when errors are compared.
        spread: the usual relative error.
        strange: outliers that came last.
    """

    weights: tuple[float, ...]
    guess: tuple[float, ...]
    trust: tuple[float, ...]
    products: Rows
    moments: tuple[float, ...]
    floor: float
    spread: float = 1.0
    strange: int = 0
    count: int = 0

    @classmethod
    def prior(cls, weights: Sequence[float], doubts: Sequence[float], floor: float) -> Linear:
        """A first guess, and how far off (standard deviation) each weight may be; 0: fixed."""
        guess = tuple(map(float, weights))
        trust = tuple(NOISE / doubt**2 if doubt else float("inf") for doubt in doubts)
        zeros = (0.0,) * len(guess)
        return cls(guess, guess, trust, (zeros,) * len(guess), zeros, floor)

    def at(self, x: Sequence[float]) -> float:
        return sum(weight * value for weight, value in zip(self.weights, x, strict=True))

    def observe(self, x: Sequence[float], y: float, trust: float = 1.0) -> Linear:
        """The model after one observation of ``y`` at ``x``; one with less trust counts less."""
        if all(each == float("inf") for each in self.trust):
            return self
        predicted = self.at(x)
        scale = max(abs(y), predicted, self.floor)
        error = abs(y - predicted) / scale
        usual = CUT * max(self.spread, _LEAST)
        strange = self.strange + 1 if self.count >= TRUSTED and error > usual else 0
        changed = strange >= CHANGED
        worth = trust * (usual / error if strange and not changed else 1.0)
        kept = FORGOTTEN if changed else FORGETTING
        each = worth / scale**2
        products = tuple(
            tuple(kept * value + each * x[r] * x[c] for c, value in enumerate(row))
            for r, row in enumerate(self.products)
        )
        moments = tuple(kept * value + each * x[r] * y for r, value in enumerate(self.moments))
        share = max(SHARE, 1 / (self.count + 1))
        return Linear(
            _solved(products, moments, self.guess, self.trust),
            self.guess,
            self.trust,
            products,
            moments,
            self.floor,
            self.spread + share * (min(error, usual) - self.spread),
            0 if changed else strange,
            0 if changed else self.count + 1,
        )


def _solved(
    products: Rows, moments: Sequence[float], guess: Sequence[float], trust: Sequence[float]
) -> tuple[float, ...]:
    """The weights that fit best and are not negative."""
    fixed = [at for at, each in enumerate(trust) if each == float("inf")]
    free = [at for at in range(len(guess)) if at not in fixed]
    weights = [value if at in fixed else 0.0 for at, value in enumerate(guess)]
    while free:
        rows = [
            [products[r][c] + (trust[r] if r == c else 0.0) for c in free]
            + [moments[r] + trust[r] * guess[r] - sum(products[r][at] * guess[at] for at in fixed)]
            for r in free
        ]
        found = _eliminated(rows)
        lowest = min(range(len(free)), key=found.__getitem__)
        if found[lowest] >= 0:
            for at, value in zip(free, found, strict=True):
                weights[at] = value
            break
        del free[lowest]
    return tuple(weights)


def _eliminated(rows: list[list[float]]) -> list[float]:
    """Solve a symmetric positive definite system, its right side in the last column."""
    size = len(rows)
    scale = [rows[at][at] ** -0.5 for at in range(size)]  # units differ by many powers of ten
    rows = [
        [value * scale[r] * scale[c] for c, value in enumerate(row[:-1])] + [row[-1] * scale[r]]
        for r, row in enumerate(rows)
    ]
    for at, pivot in enumerate(rows):
        for below in rows[at + 1 :]:
            factor = below[at] / pivot[at]
            for column in range(at, size + 1):
                below[column] -= factor * pivot[column]
    found = [0.0] * size
    for at in reversed(range(size)):
        known = sum(rows[at][c] * found[c] for c in range(at + 1, size))
        found[at] = (rows[at][-1] - known) / rows[at][at]
    return [value * each for value, each in zip(found, scale, strict=True)]
