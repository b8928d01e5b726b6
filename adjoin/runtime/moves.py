"""What happens to a run and what it wants done: the words between state machine and driver."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import msgspec

from adjoin.errors import AdjoinError
from adjoin.runtime.policies.placement import Plan
from adjoin.runtime.protocol import Ref, StreamRef, Value
from adjoin.transport.codec import Encoded
from adjoin.types import Body, Usage


class Stored(msgspec.Struct, frozen=True, tag=True):
    """A result that the journal keeps, by the sha256 of its bytes."""

    digest: bytes
    nbytes: int


#: The result of a stage as a run knows it: here, with a worker, or in the journal.
Outcome: TypeAlias = Value | Stored


def place_of(value: Outcome | None) -> str:
    """Where a value is, as :class:`ValueLost` names it; nothing for one that cannot be lost."""
    if isinstance(value, Ref):
        return value.id
    return value.digest.hex() if isinstance(value, Stored) else ""


class Result(msgspec.Struct, frozen=True):
    """What the journal has of a stage; ``value`` is None when nobody elsewhere can be given it."""

    attempt: int
    usage: Usage
    value: Encoded | Stored | None = None
    skipped: bool = False


class Past(msgspec.Struct, frozen=True):
    """What the journal has of a run that an earlier service began.

    Attributes:
        life: which service this is for the run, from 0. Each counts the attempts of stages in a
            range of its own, so that news of attempts that no journal has seen are void, too.
        results: of the stages that were recorded.
        shown: the stages of whose attempts a reader has been sent tokens.
    """

    life: int = 0
    results: Mapping[str, Result] = {}
    shown: frozenset[str] = frozenset()


# --- Facts: what the driver saw. ---


class Fact(msgspec.Struct, frozen=True):
    """Base of what can happen to a run."""


class Planned(Fact, frozen=True):
    """A plan for the stages of the last :class:`MakePlan`."""

    plan: Plan


class Seen(Fact, frozen=True):
    """Something happened in a stage, or at a call below it: ``place``, at its attempt ``tries``.

    ``at`` is when, in seconds since the run began; None is now.
    """

    segment: int
    stage: str
    attempt: int
    body: Body
    place: str = ""
    tries: int = 0
    at: float | None = None


class Flows(Fact, frozen=True):
    """A stage makes its result piece by piece, and this is where others read them."""

    segment: int
    stage: str
    attempt: int
    ref: StreamRef


class Finished(Fact, frozen=True):
    segment: int
    stage: str
    attempt: int
    usage: Usage
    value: Value | None = None
    skipped: bool = False
    at: float | None = None


class Broke(Fact, frozen=True):
    segment: int
    stage: str
    attempt: int
    error: AdjoinError


class SegmentLost(Fact, frozen=True):
    """The segment's connection ended; ``reached`` is False when it could not be made at all."""

    segment: int
    reached: bool = True


class SegmentEnded(Fact, frozen=True):
    """The agent has closed the segment by itself: all its stages are done, and it holds nothing."""

    segment: int


class ValueLost(Fact, frozen=True):
    """The result of a stage, or its stream, can no longer be had; ``ref`` is the id of where it
    was, or the digest, in hexadecimal, of what the journal had."""

    stage: str
    ref: str


class Recorded(Fact, frozen=True):
    """The journal has the result of a stage, and this is how it is had from now on."""

    stage: str
    attempt: int
    value: Encoded | Stored | None = None


class RecordFailed(Fact, frozen=True):
    """The result of a stage was gone before it could be recorded."""

    stage: str
    attempt: int


class Collected(Fact, frozen=True):
    """All outputs are with the driver."""


class Stop(Fact, frozen=True):
    """Cancelled, out of time, or impossible: ``error`` says which."""

    error: AdjoinError


# --- Commands: what the driver does. ---


class Command(msgspec.Struct, frozen=True):
    """Base of what a run wants done."""


class MakePlan(Command, frozen=True):
    """After ``delay`` seconds, place these stages on living workers; answer: :class:`Planned`."""

    stages: frozenset[str]
    delay: float = 0.0


class OpenSegment(Command, frozen=True):
    segment: int
    worker: str
    attempts: Mapping[str, int]
    exports: tuple[str, ...]
    readers: Mapping[str, tuple[str, ...]] = {}


class FeedSegment(Command, frozen=True):
    segment: int
    stage: str
    value: Outcome | StreamRef
    skipped: bool = False


class RetryStage(Command, frozen=True):
    """``readers`` are the stages that will read its result while it is made."""

    segment: int
    stage: str
    attempt: int
    delay: float
    readers: tuple[str, ...] = ()


class Record(Command, frozen=True):
    """Put a stage's result into the journal, after those that were commanded before; answer:
    Recorded or RecordFailed."""

    stage: str
    attempt: int
    usage: Usage
    value: Value | None
    skipped: bool


class Announce(Command, frozen=True):
    """Show a plan to those who follow the run, with what it is predicted to take. It comes after
    what the plan has opened: nothing waits for it."""

    plan: Plan


class CloseSegment(Command, frozen=True):
    segment: int


class Emit(Command, frozen=True):
    """``at`` is when it happened, in seconds since the run began; None is now."""

    body: Body
    stage: str = ""
    attempt: int = 0
    at: float | None = None


class Collect(Command, frozen=True):
    """Every stage is recorded: fetch the outputs; answer Collected or ValueLost."""

    values: Mapping[str, Outcome]


class End(Command, frozen=True):
    """``error`` is None when the run succeeded."""

    error: AdjoinError | None
    usage: Usage
