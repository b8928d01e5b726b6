"""What a run knows of its stages and segments."""

from __future__ import annotations

import enum

from adjoin.runtime.moves import Outcome
from adjoin.runtime.protocol import StreamRef
from adjoin.types import Usage


class Status(enum.Enum):
    WAITING = "waiting"  # not placed
    PLACED = "placed"  # in a segment that has not been opened
    OPEN = "open"  # its agent decides when it starts
    DONE = "done"


class StageRecord:
    """What is known of one stage; ``attempt`` counts dispatches, news of older ones is void."""

    __slots__ = (
        *("asked", "attempt", "deaths", "finished", "former", "lost", "losses", "misses"),
        *("recording", "segment", "skipped", "status", "stream", "tokens_seen", "usage"),
        *("value", "warned"),
    )

    def __init__(self) -> None:
        self.status = Status.WAITING
        self.attempt = 0
        self.losses = 0  # workers and results that went while it ran or after
        self.deaths = 0  # of these, the workers that were lost while it could be running
        self.misses = 0  # workers that were gone before it could begin, streams that broke
        self.segment = -1
        self.tokens_seen = False
        self.warned: set[str] = set()
        self.skipped = False
        self.usage = Usage()
        self.value: Outcome | None = None
        self.finished: float | None = None  # seconds since the run began
        self.recording = False  # done, and on its way into the journal
        self.asked = False  # so, and the driver was told to put it there
        self.lost = False  # so, and its owner is gone: the journal has it, or nobody
        self.former = ""  # where its value was before it was recorded
        self.stream: StreamRef | None = None


class SegmentRecord:
    __slots__ = ("fed", "open", "stages", "worker")

    def __init__(self, worker: str, stages: tuple[str, ...]) -> None:
        self.worker = worker
        self.stages = frozenset(stages)
        self.open = False
        self.fed: set[tuple[str, str]] = set()  # a stage, and the stream that it was; or nothing
