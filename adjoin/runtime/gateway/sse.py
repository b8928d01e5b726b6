"""Server-sent events: how they are written, and where a reader goes on."""

from __future__ import annotations

from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import StreamingResponse

from adjoin.errors import InputError
from adjoin.runtime.gateway.records import RunRecord

#: Seconds between signs of life, shorter than what proxies wait for.
HEARTBEAT_S = 15.0
_HEARTBEAT = b": still here\n\n"


def last_event_id(request: Request) -> int:
    """Where a reader that comes back goes on: after the event it has seen; 0 is the first.

    Raises:
        InputError: the header ``Last-Event-ID`` is no event's number.
    """
    text = request.headers.get("last-event-id", "").strip()
    if not text:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise InputError("Last-Event-ID is not the number of an event")
    return int(text) + 1


def wants_events(request: Request) -> bool:
    return "text/event-stream" in request.headers.get("accept", "")


def stream(record: RunRecord, position: int = 0, *, owned: bool = False) -> StreamingResponse:
    """A run's events; of one that is ``owned`` by this answer, a reader who leaves ends the run."""
    return StreamingResponse(
        _lines(record, position, owned=owned),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no", "X-Run-Id": record.id},
    )


async def _lines(record: RunRecord, position: int, *, owned: bool) -> AsyncIterator[bytes]:
    try:
        async for number, kind, data in record.events(position, HEARTBEAT_S):
            if not kind:
                yield _HEARTBEAT
            else:
                yield b"id: %d\nevent: %s\ndata: %s\n\n" % (number, kind.encode(), data)
    finally:
        if owned and not record.ended:
            record.cancel("the reader left")
