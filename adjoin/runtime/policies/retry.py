"""Whether a failed stage is tried again, and when. Retries happen here and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass

from adjoin.errors import (
    AdjoinError,
    DeadlineExceeded,
    EngineError,
    FunctionError,
    Overloaded,
    TransportError,
)

#: Attempts of a stage whose process, worker or link died, when its policy asks for fewer.
INFRASTRUCTURE_ATTEMPTS = 3
#: Workers that may die while a stage runs on them, before it is held to be why.
MOST_DEATHS = 2
#: Workers in a row that may turn out to be gone before a stage has begun.
MOST_MISSES = 10
_FIRST_DELAY_S = 0.05
_LONGEST_DELAY_S = 2.0
#: Retries for each stage that begins.
_SHARE = 0.1
#: Retries that may come at once: as many as runs of a workflow usually are under way.
_RESERVE = 100


def may_retry(error: AdjoinError, attempt: int, attempts: int, *, tokens_seen: bool) -> bool:
    """Decide about attempt ``attempt`` (from 1) of a stage that allows ``attempts``.

    What the caller got wrong (bad input, unknown model) is never retried. What broke beneath the
    stage is, even when the stage asks for one attempt. What the function itself raised, or its
    timeout, only when the stage asks for more. After a reader saw tokens nothing is.
    """
    if tokens_seen:
        return False
    if isinstance(error, EngineError | TransportError | Overloaded):
        return attempt < max(attempts, INFRASTRUCTURE_ATTEMPTS)
    if isinstance(error, FunctionError | DeadlineExceeded):
        return attempt < attempts
    return False


def delay_before(attempt: int) -> float:
    """Seconds to wait before an attempt: exponential, without jitter since runs are independent."""
    return float(min(_LONGEST_DELAY_S, _FIRST_DELAY_S * 2 ** max(0, attempt - 2)))


@dataclass(frozen=True)
class RetryBudget:
    """How many stages of a workflow may still be tried again, over all of its runs.

    Each stage that begins adds a tenth of a retry, each retry takes a whole one, and no more than
    :data:`_RESERVE` are saved up: where everything fails, retries add a tenth to the load and
    not a multiple of it, while what a replica that died takes down with it is tried again at once.
    The scheme is that of Finagle's ``RetryBudget`` and of gRPC's retry throttling (gRFC A6).
    """

    left: float = float(_RESERVE)

    def earn(self, stages: int) -> RetryBudget:
        """So many stages begin."""
        return RetryBudget(min(float(_RESERVE), self.left + _SHARE * stages))

    def spend(self) -> RetryBudget | None:
        """One more retry; None when there is none left."""
        return RetryBudget(self.left - 1) if self.left >= 1 else None
