"""Estimates that follow what is observed: linear models and means, with forgetting.

All are frozen; ``observe`` gives a new one. A linear model is fitted by recursive least squares
with exponential forgetting (Ljung, *System Identification*, 1999, chapter 11) on relative errors:
each observation is divided by its own value, so that a small text counts as much as a large one.
An error far outside the usual ones is cut to a multiple of their size (Huber 1964), so that one
run in which the machine was busy teaches little; several in a row are a change, and the model
starts to learn again as if it knew little.
Coefficients are kept from below zero: more work never costs less.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import msgspec

#: How much of what was known is kept with each observation.
FORGETTING = 0.985
#: Variance of the relative error of one observation.
NOISE = 0.02
#: Errors are cut to this multiple of their usual size.
CUT = 3.0
#: Observations before any is taken for an outlier, and outliers in a row that are a change.
TRUSTED, CHANGED = 8, 4
#: Weight of a new observation in moving means, once there are more than its inverse.
SHARE = 0.1


Rows: TypeAlias = tuple[tuple[float, ...], ...]


class Mean(msgspec.Struct, frozen=True):
    """A moving mean; the first observation replaces the prior."""

    value: float
    count: int = 0

    def observe(self, value: float) -> Mean:
        share = max(SHARE, 1 / (self.count + 1))
        return Mean(self.value + share * (value - self.value), self.count + 1)


class Linear(msgspec.Struct, frozen=True):
    """``y ≈ weights · x``, all weights at least zero.

    Attributes:
        covariance: of the weights, row by row.
        limit: what each variance was at first, and does not exceed.
        floor: values below it count as this large when errors are compared.
        spread: the usual relative error.
        strange: outliers that came last.
    """

    weights: tuple[float, ...]
    covariance: tuple[tuple[float, ...], ...]
    limit: tuple[float, ...]
    floor: float
    spread: float = 1.0
    strange: int = 0
    count: int = 0

    @classmethod
    def prior(cls, weights: Sequence[float], doubts: Sequence[float], floor: float) -> Linear:
        """A first guess, and how far off (standard deviation) each weight may be."""
        limit = tuple(doubt * doubt for doubt in doubts)
        return cls(tuple(map(float, weights)), _diagonal(limit), limit, floor)

    def at(self, x: Sequence[float]) -> float:
        return sum(weight * value for weight, value in zip(self.weights, x, strict=True))

    def observe(self, x: Sequence[float], y: float) -> Linear:
        """The model after one observation of ``y`` at ``x``."""
        scale = max(abs(y), self.floor)
        x = [value / scale for value in x]
        error = y / scale - self.at(x)
        usual = CUT * max(self.spread, 0.02)
        strange = self.strange + 1 if self.count >= TRUSTED and abs(error) > usual else 0
        changed = strange >= CHANGED
        if strange and not changed:
            error = max(-usual, min(usual, error))
        covariance = _diagonal(self.limit) if changed else self.covariance
        moved = [sum(a * b for a, b in zip(row, x, strict=True)) for row in covariance]
        gain_of = NOISE * FORGETTING + sum(a * b for a, b in zip(moved, x, strict=True))
        weights = tuple(
            max(0.0, weight + each / gain_of * error)
            for weight, each in zip(self.weights, moved, strict=True)
        )
        share = max(SHARE, 1 / (self.count + 1))
        return Linear(
            weights,
            self._shrunk(covariance, moved, gain_of),
            self.limit,
            self.floor,
            self.spread + share * (abs(error) - self.spread),
            0 if changed else strange,
            0 if changed else self.count + 1,
        )

    def _shrunk(self, covariance: Rows, moved: Sequence[float], gain_of: float) -> Rows:
        """The covariance after an observation; directions that are not seen do not wind up."""
        rows = [
            [(value - moved[r] * moved[c] / gain_of) / FORGETTING for c, value in enumerate(row)]
            for r, row in enumerate(covariance)
        ]
        excess = [
            (most / rows[at][at]) ** 0.5 if rows[at][at] > most > 0 else 1.0
            for at, most in enumerate(self.limit)
        ]
        return tuple(
            tuple(value * excess[r] * excess[c] for c, value in enumerate(row))
            for r, row in enumerate(rows)
        )


def _diagonal(variances: Sequence[float]) -> Rows:
    return tuple(
        tuple(variance if row == column else 0.0 for column in range(len(variances)))
        for row, variance in enumerate(variances)
    )
