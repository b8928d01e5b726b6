"""Who may run now, who waits, who is refused: decided from counts, without a clock."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

#: How much the newest run weighs in a mean.
_WEIGHT = 0.2
#: What a run is taken to last before the first one has ended, in seconds.
_UNKNOWN_S = 1.0
_LONGEST_S = 86_400
#: Nobody is refused for less of a wait: of quick runs a few more may wait than run.
_LEAST_WAIT_S = 0.5
#: By how much the quickest run is forgotten with each further one.
_FORGETTING = 0.05


@dataclass(frozen=True)
class Limits:
    """Of one workflow: runs at once, and runs that wait for their turn.

    Attributes:
        patience: how long one that somebody waits for may wait, in multiples of how long a run
            takes; None as long as the queue is.
    """

    concurrency: int
    queue: int
    patience: float | None = None


@dataclass(frozen=True)
class Load:
    """What a workflow has now.

    Attributes:
        seconds, cost: how long its runs take, and what they cost, as moving means; None before the
            first has ended.
        quickest: how long its quickest run of late took, in seconds.
    """

    running: int = 0
    waiting: int = 0
    seconds: float | None = None
    cost: float | None = None
    quickest: float = 0.0

    def after(self, seconds: float, cost: float) -> Load:
        """With what one more run teaches."""
        mean = learned(self.seconds, seconds)
        slower = self.quickest + _FORGETTING * (mean - self.quickest)
        quickest = seconds if self.seconds is None else min(seconds, slower)
        return replace(self, seconds=mean, cost=learned(self.cost, cost), quickest=quickest)


@dataclass(frozen=True)
class Crowd:
    """What of other workflows is before a run, where it needs a model that others use too.

    Attributes:
        runs: those that would start before it by fair shares, as many as their cost comes to.
        slots: how many run at once.
        seconds: how long they take, as a moving mean; None before the first has ended.
    """

    runs: float
    slots: float
    seconds: float | None


@dataclass(frozen=True)
class Admission:
    """``wait`` is the predicted seconds until the run starts, or for one that is refused, until it
    is worth trying again."""

    verdict: Literal["wait", "refuse"]
    wait: float = 0.0


def admit(
    load: Load,
    limits: Limits,
    timeout: float | None = None,
    *,
    crowd: Crowd | None = None,
    attended: bool = True,
) -> Admission:
    """Decide on one more run, which cannot start at once.

    Args:
        timeout: how many seconds its caller gives it in all.
        crowd: None where it only waits for its own workflow.
        attended: whether somebody waits for it.
    """
    wait = expected_wait(load, limits, crowd)
    full = load.waiting >= limits.queue
    late = timeout is not None and wait + load.quickest >= timeout
    bound = longest_wait(load, limits) if attended else math.inf
    return Admission("refuse" if full or late or wait > bound else "wait", wait)


def expected_wait(load: Load, limits: Limits, crowd: Crowd | None = None) -> float:
    """Seconds until a run that comes now would start: the runs before it, over the rate at which
    they end (Little's law), where it waits longest."""
    wait = 0.0
    if load.running >= limits.concurrency:
        ahead = load.waiting + 1 + load.running - limits.concurrency
        wait = ahead * mean_seconds(load.seconds) / limits.concurrency
    if crowd is not None:
        wait = max(wait, (crowd.runs + 1) * mean_seconds(crowd.seconds) / crowd.slots)
    return wait


def longest_wait(load: Load, limits: Limits) -> float:
    """Seconds that a run may wait which somebody waits for. A queue that is longer than a run takes
    only makes all of them late: what comes then is better off when it is told so at once."""
    if limits.patience is None:
        return math.inf
    return max(_LEAST_WAIT_S, limits.patience * mean_seconds(load.seconds))


def hopeless(load: Load, left: float) -> bool:
    """Whether a run whose turn it is cannot end in the seconds that are left."""
    return left <= load.quickest


def mean_seconds(mean: float | None) -> float:
    return _UNKNOWN_S if mean is None else mean


def learned(mean: float | None, value: float) -> float:
    """The moving mean after one more value."""
    return value if mean is None else mean + _WEIGHT * (value - mean)


def retry_after(seconds: float) -> int:
    """What ``Retry-After`` says: whole seconds, at least one and at most a day."""
    return min(_LONGEST_S, max(1, math.ceil(seconds)))
