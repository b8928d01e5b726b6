"""When something was last heard, and what that says of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from adjoin.runtime import process
from adjoin.runtime.policies.liveness import (
    Condition,
    Deadlines,
    Look,
    Verdict,
    condition,
    judge,
)


@dataclass
class Pulse:
    """Of one process: when it was last heard, in seconds of the monotonic clock.

    Attributes:
        pid: where it is a process of this machine, else 0.
        first, looked: the first look at it in its silence, and when that was.
    """

    heard: float
    pid: int = 0
    verdict: Verdict = Verdict.ALIVE
    first: Look | None = None
    looked: float = 0.0

    def judged(self, now: float, deadlines: Deadlines) -> Verdict:
        silent = now - self.heard
        found = Condition.UNKNOWN
        if silent < deadlines.suspect_s:
            self.looked = 0.0
        else:
            seen = process.look(self.pid) if self.pid else None
            if not self.looked:
                self.first, self.looked = seen, now
            found = condition(self.first, seen, now - self.looked)
        return judge(silent, found, deadlines)

    def forgive(self, late_s: float, now: float) -> None:
        """It was us who did not listen, for so long."""
        self.heard = min(now, self.heard + late_s)


async def beats(every_s: float) -> AsyncIterator[tuple[float, float]]:
    """Every so many seconds the time, and for how long nobody here could have heard anything: 0
    unless this process was late by more than a whole beat."""
    last = time.monotonic()
    while True:
        await asyncio.sleep(every_s)
        now = time.monotonic()
        late = now - last - every_s
        last = now
        yield now, late if late > every_s else 0.0
