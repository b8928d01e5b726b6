"""Which waiting requests enter an engine, and which are refused at the queue's door. Pure.

The backlog waits in the replica's queue, never inside the engine: there it can be withdrawn for
nothing, and every request sees the same few neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from adjoin.errors import Overloaded
from adjoin.functions.engines.base import GenerateRequest, Request


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """``capacity``: sequences in the engine at once. ``queue``: requests that may wait."""

    capacity: int
    queue: int = 1024


def weight(request: Request) -> int:
    """Sequences that a request occupies: its samples, or its texts."""
    if isinstance(request, GenerateRequest):
        return max(1, request.sampling.n)
    return max(1, len(request.texts))


def admit(waiting: Sequence[int], running: int, limits: Limits) -> int:
    """How many requests from the head of the queue enter now.

    ``waiting`` are the weights in order of arrival, ``running`` the weight inside. Strictly first
    come, first served: a wide request is not overtaken for ever by narrow ones. One that is wider
    than the whole engine enters when it has the engine to itself.
    """
    count = 0
    for size in waiting:
        if running and running + size > limits.capacity:
            break
        running += size
        count += 1
    return count


def refusal(waiting: int, limits: Limits) -> Overloaded | None:
    """Why one more request may not wait, or None when it may."""
    if waiting < limits.queue:
        return None
    return Overloaded(
        f"{waiting} requests wait for this model, which is the most allowed",
        hint="try again later, or run fewer at once",
        waiting=waiting,
    )
