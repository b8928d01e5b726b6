"""Whether a failed stage is tried again, and when. Retries happen here and nowhere else."""

from __future__ import annotations

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
