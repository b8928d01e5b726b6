"""What a replica's engine tells Prometheus, gathered when somebody asks, and not more than that."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import msgspec

from adjoin.functions.engines.families import Family

#: How old it may be, in seconds: gathering takes the engine's interpreter milliseconds.
_AGE_S = 1.0


class Told:
    """Packed as :class:`~adjoin.runtime.wire.Stats` has it."""

    def __init__(
        self,
        gather: Callable[[], tuple[Family, ...]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._gather = gather
        self._clock = clock
        self._gathered = -math.inf
        self._packed = b""

    def packed(self) -> bytes:
        """As of less than a second ago; empty when the engine could not tell, which the service
        counts: what its library stumbles over must not end the replica."""
        now = self._clock()
        if now - self._gathered >= _AGE_S:
            self._gathered = now
            try:
                self._packed = msgspec.msgpack.encode(self._gather())
            except Exception as error:  # noqa: BLE001 - of a library
                self._packed = b""
                print(f"its figures are not told: {error!r}", flush=True)  # noqa: T201 - the log
        return self._packed
