"""How long a model that failed to load, or a process that died, is left alone. Pure."""

from __future__ import annotations

import msgspec

from adjoin.errors import AdjoinError, EngineError

#: So many failures in a row are answered by trying again.
_PATIENCE = 3
#: A process that lived so long, in seconds, died of something new.
_SETTLED = 10.0


class Pauses(msgspec.Struct, frozen=True):
    """Seconds; each is twice the one before."""

    first: float
    longest: float


LOADS = Pauses(first=10.0, longest=300.0)
PROCESSES = Pauses(first=1.0, longest=30.0)


class Failures(msgspec.Struct, frozen=True, kw_only=True):
    """Failures in a row: how many, when the last was (seconds, monotonic), and how it ended."""

    count: int = 0
    last: float = 0.0
    error: str = ""

    def after(self, error: AdjoinError, now: float) -> Failures:
        return Failures(count=self.count + 1, last=now, error=str(error))

    def after_life(self, lived: float, error: AdjoinError, now: float) -> Failures:
        """A process died that had been ready for ``lived`` seconds."""
        return (Failures() if lived >= _SETTLED else self).after(error, now)

    def pause(self, now: float, pauses: Pauses = LOADS) -> float:
        """Seconds for which nothing is tried; 0 when it may be."""
        if self.count < _PATIENCE:
            return 0.0
        pause = min(pauses.first * 2.0 ** (self.count - _PATIENCE), pauses.longest)
        return max(0.0, self.last + pause - now)


def refusal(failures: Failures, now: float) -> EngineError | None:
    """Why a load is not even tried, or None."""
    pause = failures.pause(now)
    if pause == 0:
        return None
    return EngineError(
        f"it failed to load {failures.count} times in a row, the last time with: {failures.error}",
        hint=f"the next try is in {pause:.0f} s",
        retry_after=pause,
    )
