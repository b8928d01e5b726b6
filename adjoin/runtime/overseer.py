"""Watches replicas from the host, and kills one whose engine makes no progress.

Who waits for it is told by the end of its connection, as when it dies by itself.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Protocol

from adjoin.runtime import process
from adjoin.runtime.policies.liveness import Deadlines, Look, Progress, condition, stalled
from adjoin.runtime.wire import Stats


class Watched(Protocol):
    """What is looked at: a replica."""

    id: str
    log: str
    pid: int

    @property
    def loading(self) -> bool: ...

    async def stats(self) -> Stats | None:
        """None when it does not answer, after a while."""
        ...

    def kill(self) -> None: ...


class Overseer:
    """Looks at one replica until it has ended."""

    def __init__(self, replica: Watched, deadlines: Deadlines) -> None:
        self._replica = replica
        self._deadlines = deadlines
        self._progress = Progress(loading=True)
        self._heard = self._since = time.monotonic()
        #: As it was in the beginning of its present step.
        self._before: Look | None = None

    async def watch(self) -> None:
        while True:
            await asyncio.sleep(self._deadlines.beat_s)
            if why := await self._look():
                _tell(self._replica, why)
                self._replica.kill()
                return

    async def _look(self) -> str:
        """Why it has to be killed; empty when it need not."""
        if (stats := await self._replica.stats()) is not None:
            self._heard = time.monotonic()
            self._progress = Progress(
                loading=self._replica.loading, step_s=stats.step_s, longest_s=stats.longest_s
            )
        now = time.monotonic()
        seen = process.look(self._replica.pid)
        another = self._progress.step_s + self._deadlines.beat_s < now - self._since
        if stats is not None and (another or self._before is None):
            self._before, self._since = seen, now - self._progress.step_s
        found = condition(self._before, seen, now - self._since)
        return stalled(self._progress, now - self._heard, found, self._deadlines)


def _tell(replica: Watched, why: str) -> None:
    """To the host's log, and to the replica's, which errors name."""
    line = f"killed by the host: replica {replica.id} (process {replica.pid}) {why}"
    print(line, flush=True)  # noqa: T201 - this is the log
    with Path(replica.log).open("a") as log:
        log.write(line + "\n")
