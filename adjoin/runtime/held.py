"""What the segments of a process hold for others of their run, found by its reference."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from adjoin.errors import TransportError
from adjoin.runtime.protocol import Leave, Ref, Take
from adjoin.runtime.segment import SegmentRun
from adjoin.transport.codec import Encoded


def find_held(segments: Iterable[SegmentRun], name: str) -> Encoded:
    """The value that one of the segments handed out, for the run that asks for it by this name.

    Raises:
        TransportError: it is gone, or belongs to another run.
    """
    run, _, id = name.partition("/")
    for segment in segments:
        if (value := segment.held(id)) is None:
            continue
        _check_run(segment, run)
        return value
    raise TransportError("the value is gone: its segment was closed")


def find_kept(segments: Iterable[SegmentRun], ref: Ref, run: str) -> Any:
    """A value that cannot leave this process, for the run that made it.

    Raises:
        TransportError: it is gone, or was never here.
    """
    for segment in segments:
        if segment.run == run and ref.id in segment.kept:
            return segment.kept[ref.id]
    raise TransportError("the value is gone: its segment was closed", where=ref.owner)


def find_lender(segments: Iterable[SegmentRun], request: Take | Leave) -> SegmentRun:
    """The segment that makes a stream, for a reader of the same run.

    Raises:
        TransportError: it is gone, or belongs to another run.
    """
    for segment in segments:
        if segment.lends(request.ref):
            _check_run(segment, request.run)
            return segment
    raise TransportError("the stream is gone: its segment was closed")


def _check_run(segment: SegmentRun, run: str) -> None:
    if segment.run != run:
        raise TransportError(
            "the value belongs to another run",
            where=f"run {run[:40]!r}",
            hint="references are of one run; return the value and give it as an input",
        )
