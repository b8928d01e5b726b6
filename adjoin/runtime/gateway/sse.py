"""Server-sent events: how they are written, and where a reader goes on."""

from __future__ import annotations

from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from adjoin.errors import InputError
from adjoin.runtime.gateway.records import RunRecord

#: Seconds between signs of life, shorter than what proxies wait for.
HEARTBEAT_S = 15.0
HEARTBEAT = b": still here\n\n"


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


class EventStream(StreamingResponse):
    """A run's events; of one that is ``owned`` by this answer, a reader who leaves ends the run."""

    def __init__(self, record: RunRecord, position: int = 0, *, owned: bool = False) -> None:
        super().__init__(
            _lines(record, position),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no", "X-Run-Id": record.id},
        )
        self._record = record
        self._owned = owned

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            if self._owned and not self._record.ended:
                self._record.left("the reader left")


async def _lines(record: RunRecord, position: int) -> AsyncIterator[bytes]:
    async for number, kind, data in record.events(position, HEARTBEAT_S):
        if kind:
            yield b"id: %d\nevent: %s\ndata: %s\n\n" % (number, kind.encode(), data)
        else:
            yield HEARTBEAT
