"""What a run knows of its stages and segments."""

from __future__ import annotations

import enum
from collections.abc import Iterable

from adjoin.dag import Graph
from adjoin.errors import StateError
from adjoin.runtime.moves import Outcome
from adjoin.runtime.protocol import Ref, StreamRef
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


class Progress:
    """What is known of all stages and segments, and what follows from it for a stage.

    Args:
        durable: whether results go into a journal.
        before: attempts that earlier lives of the run may have counted.
    """

    def __init__(self, graph: Graph, *, durable: bool, before: int) -> None:
        self.graph = graph
        self.durable = durable
        self.before = before
        self.stages = {stage.id: StageRecord() for stage in graph.stages}
        self.segments: list[SegmentRecord] = []
        self.outputs = graph.output_stages()

    @property
    def all_done(self) -> bool:
        for stage in self.stages.values():
            if stage.status is not Status.DONE or stage.recording:
                return False
        return True

    def current(self, segment: int, name: str, attempt: int, *, ended: bool = False) -> bool:
        stage = self.stages.get(name)
        return (
            stage is not None
            and (stage.status is Status.OPEN or (ended and stage.status is Status.DONE))
            and stage.segment == segment
            and stage.attempt == attempt
        )

    def holds(self, name: str, index: int, status: Status) -> bool:
        stage = self.stages[name]
        return stage.segment == index and stage.status is status

    def can_start(self, segment: SegmentRecord, index: int) -> bool:
        return any(
            self.holds(name, index, Status.PLACED)
            and all(self.reaches(before, name) for before in self.graph.dependencies(name))
            for name in segment.stages
        )

    def may_have_begun(self, name: str) -> bool:
        """Whether a stage has all that it needs; its start may not have been heard of."""
        return all(self.reaches(before, name) for before in self.graph.dependencies(name))

    def reaches(self, before: str, name: str) -> bool:
        """Whether a stage can be given the result of one before it, or its stream."""
        if self.available(before):
            return True
        stage = self.stages[before]
        flows = stage.stream is not None and self.graph.reads(name, before)
        return flows and self.segments[stage.segment].open

    def offer(self, before: str, name: str, segment: SegmentRecord) -> Outcome | StreamRef | None:
        """What a stage is given of one before it: its result, or its stream while there is none.

        Who reads the stream already goes on with that.
        """
        stage = self.stages[before]
        value = stage.value if stage.status is Status.DONE and not stage.lost else None
        stream = stage.stream if self.graph.reads(name, before) else None
        if stream is not None and (value is None or (before, stream.id) in segment.fed):
            return stream
        return value

    def readers(self, name: str) -> tuple[str, ...]:
        """The stages that have yet to read a stage's stream."""
        readers = self.graph.readers.get(name, ())
        return tuple(sorted(n for n in readers if self.stages[n].status is not Status.DONE))

    def available(self, name: str) -> bool:
        """Whether a stage's result can be given to any other segment."""
        stage = self.stages[name]
        return stage.status is Status.DONE and stage.value is not None and self.recorded(name)

    def recorded(self, name: str) -> bool:
        """Whether the result survives the loss of its segment, or its segment is still there."""
        stage = self.stages[name]
        if stage.segment < 0 or self.segments[stage.segment].open:
            return True
        if stage.recording and stage.value is not None:
            return True  # it is not known yet whether it was lost
        return stage.value is not None and not isinstance(stage.value, Ref)

    def recording(self, name: str, attempt: int) -> bool:
        stage = self.stages.get(name)
        return stage is not None and stage.recording and stage.attempt == attempt

    def asked(self, name: str) -> bool:
        stage = self.stages[name]
        return stage.status is Status.DONE and (stage.asked or not stage.recording)

    def needed(self, name: str) -> bool:
        return name in self.outputs or any(
            self.stages[after].status is not Status.DONE for after in self.graph.consumers(name)
        )

    def leaves(self, name: str, segment: SegmentRecord) -> bool:
        outside = self.graph.consumers(name) - segment.stages
        if self.durable and name not in self.graph.passing and name not in self.graph.confined:
            return True  # into the journal
        return name in self.outputs or any(not self.graph.reads(n, name) for n in outside)

    def unreachable(self, names: Iterable[str]) -> set[str]:
        """Of what these take the results that were made, and can no longer be had."""
        return {
            before
            for name in names
            for before in self.graph.dependencies(name)
            if self.stages[before].status is Status.DONE and not self.reaches(before, name)
        }

    def ties(self, again: set[str]) -> set[str]:
        """What has to go along, since a value that cannot leave its worker ties it to the rest."""
        tied = {other for name in again for other in self.graph.bound.get(name, ())} - again
        return {
            name
            for name in tied
            if self.stages[name].status is not Status.DONE
            or (name in self.graph.confined and self.needed(name))
        }

    def value(self, name: str) -> Outcome:
        value = self.stages[name].value
        if value is None:
            raise StateError(f"stage {name!r} was recorded without its result")
        return value

    def reset(self, name: str, reached: bool = True) -> None:
        stage = self.stages[name]
        stage.status = Status.WAITING
        stage.losses += reached
        stage.misses += not reached
        stage.value = None
        stage.stream = None
        stage.usage = Usage()
        stage.recording = stage.lost = stage.asked = False
        if stage.attempt < self.before:  # recorded in an earlier life, and damaged since
            stage.attempt = self.before
        self.unfeed(name)

    def unfeed(self, name: str) -> None:
        for segment in self.segments:
            segment.fed = {key for key in segment.fed if key[0] != name}
