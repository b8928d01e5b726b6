"""The queue of one workflow: :mod:`adjoin.runtime.policies` decides, this waits."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from adjoin.errors import DeadlineExceeded, Overloaded
from adjoin.runtime.gateway.lanes import Lane
from adjoin.runtime.policies.admission import Crowd, Limits, Load, admit, expected_wait
from adjoin.runtime.policies.fair_share import Claim, Waiting

_ids = itertools.count()
_ONE = Claim()


@dataclass
class _Place:
    """Of one run: where it waits or runs, and as what."""

    lane: Lane
    run: Waiting


class Gate:
    """Lets runs of a workflow start, so many at once: in the order in which they came, and where
    they need a model that others use too, by fair shares between the tenants.

    Everything happens on one loop, and taking a place never waits: between looking at the counts
    and changing them nobody else can come.
    """

    def __init__(self, limits: Limits, lane: Lane | None = None) -> None:
        self.limits = limits
        self.load = Load()
        #: Where runs that come from now on wait.
        self.lane = Lane() if lane is None else lane
        self._id = next(_ids)
        self._places: dict[asyncio.Future[None], _Place] = {}

    def enter(
        self, timeout: float | None = None, claim: Claim = _ONE, *, attended: bool = True
    ) -> asyncio.Future[None]:
        """Take a place. The future resolves when the run may start; whoever does not want its turn
        any more says so with :meth:`leave`.

        Args:
            timeout: how many seconds the run has in all.
            attended: whether somebody waits for it.

        Raises:
            Overloaded: the queue is full, or the run would start too late.
        """
        lane = self.lane
        crowd = lane.crowd(claim)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        before = self.load
        self.load = replace(before, waiting=before.waiting + 1)
        run = lane.arrive(self._id, claim, lambda run: self._start(turn, run), self._has_room)
        self._places[turn] = _Place(lane, run)
        lane.call_next()
        if turn.done():
            return turn
        decided = admit(before, self.limits, timeout, crowd=crowd, attended=attended)
        if decided.verdict == "refuse":
            self.leave(turn)
            raise _overloaded(before, crowd, decided.wait)
        return turn

    def check_queue(self) -> None:
        """Raises :class:`Overloaded` when one more run could neither start nor wait."""
        load = self.load
        if load.running >= self.limits.concurrency and load.waiting >= self.limits.queue:
            raise _overloaded(load, None, expected_wait(load, self.limits))

    def leave(
        self, turn: asyncio.Future[None], seconds: float | None = None, cost: float = 0.0
    ) -> None:
        """Give the place back.

        Args:
            seconds: how long the run took, if it ran to its end.
            cost: what it took in all, in the lane's measure.
        """
        place = self._places.pop(turn)
        if not turn.done():
            place.lane.leave(place.run)
            turn.cancel()
            self.load = replace(self.load, waiting=self.load.waiting - 1)
            place.lane.call_next()  # who stood behind it may fit where it did not
            return
        place.lane.ended(place.run, seconds, cost)
        load = self.load if seconds is None else self.load.after(seconds, cost)
        self.load = replace(load, running=load.running - 1)
        self._call_next(place.lane)

    def resize(self, limits: Limits) -> None:
        """New limits; runs that are there already stay."""
        self.limits = limits
        self._call_next(self.lane)

    def _has_room(self) -> bool:
        return self.load.running < self.limits.concurrency

    def _start(self, turn: asyncio.Future[None], run: Waiting) -> None:
        load = self.load
        self.load = replace(load, running=load.running + 1, waiting=load.waiting - 1)
        self._places[turn].run = run
        turn.set_result(None)

    def _call_next(self, lane: Lane) -> None:
        lane.call_next()
        if self.lane is not lane:
            self.lane.call_next()


def _overloaded(load: Load, crowd: Crowd | None, wait: float) -> Overloaded:
    others = "" if crowd is None else f", and about {crowd.runs:.0f} of this model are before it"
    return Overloaded(
        f"{load.running} runs of this workflow are running and {load.waiting} are waiting{others}",
        hint="try again when Retry-After says",
        retry_after=wait,
    )


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
