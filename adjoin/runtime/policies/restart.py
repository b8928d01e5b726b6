"""How long a model that failed to load is left alone. Pure."""

from __future__ import annotations

import msgspec

from adjoin.errors import AdjoinError, EngineError

#: So many failed loads in a row are answered by trying again.
_PATIENCE = 3
_FIRST_PAUSE = 10.0
_LONGEST_PAUSE = 300.0


class Failures(msgspec.Struct, frozen=True, kw_only=True):
    """Failed loads in a row: how many, when the last was (seconds, monotonic), and how it ended."""

    count: int = 0
    last: float = 0.0
    error: str = ""

    def after(self, error: AdjoinError, now: float) -> Failures:
        return Failures(count=self.count + 1, last=now, error=str(error))

    def pause(self, now: float) -> float:
        """Seconds for which no further load is tried; 0 when one may be."""
        if self.count < _PATIENCE:
            return 0.0
        pause = min(_FIRST_PAUSE * 2.0 ** (self.count - _PATIENCE), _LONGEST_PAUSE)
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
