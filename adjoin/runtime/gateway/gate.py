"""The queue of one workflow: :mod:`adjoin.runtime.policies.admission` decides, this waits."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from adjoin.errors import DeadlineExceeded, Overloaded
from adjoin.runtime.policies.admission import Limits, Load, admit, learned


class Gate:
    """Lets runs of a workflow start in the order in which they came, so many at once.

    Everything happens on one loop, and taking a place never waits: between looking at the counts
    and changing them nobody else can come.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.load = Load()
        self._waiting: deque[asyncio.Future[None]] = deque()

    def enter(self, patience: float | None = None) -> asyncio.Future[None]:
        """Take a place. The future resolves when the run may start; whoever does not want its turn
        any more says so with :meth:`leave`.

        Raises:
            Overloaded: the queue is full, or the run could not start within ``patience`` seconds.
        """
        decided = admit(self.load, self.limits, patience)
        if decided.verdict == "refuse":
            raise Overloaded(
                f"{self.load.running} runs of this workflow are running and "
                f"{self.load.waiting} are waiting",
                hint="try again when Retry-After says",
                retry_after=decided.wait,
            )
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if decided.verdict == "start":
            self.load = replace(self.load, running=self.load.running + 1)
            turn.set_result(None)
        else:
            self.load = replace(self.load, waiting=self.load.waiting + 1)
            self._waiting.append(turn)
        return turn

    def leave(self, turn: asyncio.Future[None], seconds: float | None = None) -> None:
        """Give the place back; ``seconds`` is how long the run took, if it ran to its end."""
        if not turn.done():
            self._waiting.remove(turn)
            turn.cancel()
            self.load = replace(self.load, waiting=self.load.waiting - 1)
            return
        mean = self.load.seconds if seconds is None else learned(self.load.seconds, seconds)
        self.load = replace(self.load, running=self.load.running - 1, seconds=mean)
        self._call_next()

    def resize(self, limits: Limits) -> None:
        """New limits; runs that are there already stay."""
        self.limits = limits
        self._call_next()

    def _call_next(self) -> None:
        while self._waiting and self.load.running < self.limits.concurrency:
            self._waiting.popleft().set_result(None)
            load = self.load
            self.load = replace(load, running=load.running + 1, waiting=load.waiting - 1)


@asynccontextmanager
async def place(gate: Gate) -> AsyncIterator[None]:
    """A place while something is done that is no run; raises :class:`Overloaded`."""
    turn = gate.enter()
    began = None
    try:
        await wait_turn(turn, None)
        began = time.monotonic()
        yield
    finally:
        gate.leave(turn, None if began is None else time.monotonic() - began)


async def wait_turn(turn: asyncio.Future[None], patience: float | None) -> None:
    """Wait for one's turn; raises :class:`DeadlineExceeded` when it does not come in time."""
    try:
        async with asyncio.timeout(patience):
            await asyncio.shield(turn)
    except TimeoutError:
        raise DeadlineExceeded(
            f"the run did not start within {patience:g} s", hint="there is much to do just now"
        ) from None
