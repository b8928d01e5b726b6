"""When a step of an event loop counts as blocking it, and which one is to blame.

A loop that has to do answers: it ticks when it is asked to. One that has not ticked for a while may
be blocked by what runs on it, or may only be busy with many short steps, or the whole process may
have stood still. Only a step that was seen twice in a row, while the looks came on time, is blamed.
"""

from __future__ import annotations

import msgspec

#: Looks in the time after which a step counts as blocking.
LOOKS = 4


class Look(msgspec.Struct, frozen=True):
    """What a look at a loop has found.

    Attributes:
        at: when, in seconds of a clock that does not go back.
        ticks: how often the loop has ticked so far.
        step: which step of a stage runs on the loop, by a number that no other has; 0 for none.
    """

    at: float
    ticks: int
    step: int = 0


class Pulse(msgspec.Struct, frozen=True):
    """What is known after a look: since when the loop has not ticked, and that look."""

    since: float
    last: Look

    def blocked(self, limit: float) -> float:
        """Seconds for which the step of the last look has blocked the loop; 0 when it has not."""
        waited = self.last.at - self.since
        return waited if self.last.step and waited >= limit else 0.0


def looked(before: Pulse | None, look: Look, limit: float) -> Pulse:
    """What is known after a look. A step counts from the first look that has seen it."""
    if before is None or before.last.ticks != look.ticks or before.last.step != look.step:
        return Pulse(look.at, look)
    if look.at - before.last.at >= limit:  # we, too, stood still
        return Pulse(look.at, look)
    return Pulse(before.since, look)
