"""Who may run now, who waits, who is refused: decided from counts, without a clock."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

#: How much the newest run weighs in the mean of how long runs take.
_WEIGHT = 0.2
#: What a run is taken to last before the first one has ended, in seconds.
_UNKNOWN_S = 1.0
_LONGEST_S = 600


@dataclass(frozen=True)
class Limits:
    """Of one workflow: runs at once, and runs that wait for their turn."""

    concurrency: int
    queue: int


@dataclass(frozen=True)
class Load:
    """What a workflow has now.

    Attributes:
        seconds: how long its runs take, as a moving mean; None before the first has ended.
    """

    running: int = 0
    waiting: int = 0
    seconds: float | None = None


@dataclass(frozen=True)
class Admission:
    """``wait`` is the predicted seconds until the run starts, or for one that is refused, until it
    is worth trying again."""

    verdict: Literal["start", "wait", "refuse"]
    wait: float = 0.0


def admit(load: Load, limits: Limits, patience: float | None = None) -> Admission:
    """Decide on one more run; ``patience`` is how many seconds its caller gives it in all."""
    if load.running < limits.concurrency and not load.waiting:
        return Admission("start")
    wait = expected_wait(load, limits)
    if load.waiting >= limits.queue or (patience is not None and wait >= patience):
        return Admission("refuse", wait)
    return Admission("wait", wait)


def expected_wait(load: Load, limits: Limits) -> float:
    """Seconds until a run that comes now would start: the runs before it, over the rate at which
    they end (Little's law)."""
    ahead = load.waiting + 1 + max(0, load.running - limits.concurrency)
    return ahead * mean_seconds(load) / limits.concurrency


def mean_seconds(load: Load) -> float:
    return _UNKNOWN_S if load.seconds is None else load.seconds


def learned(mean: float | None, seconds: float) -> float:
    """The moving mean after one more run."""
    return seconds if mean is None else mean + _WEIGHT * (seconds - mean)


def retry_after(seconds: float) -> int:
    """What ``Retry-After`` says: whole seconds, at least one and at most ten minutes."""
    return min(_LONGEST_S, max(1, math.ceil(seconds)))
