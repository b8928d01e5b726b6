"""A client that leaves while it waits for its answer: nothing else tells a plain POST."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from starlette.requests import Request

from adjoin.errors import Cancelled
from adjoin.runtime.gateway.records import RunRecord
from adjoin.types import RunCompleted

_T = TypeVar("_T")


async def outcome(request: Request, record: RunRecord) -> RunCompleted:
    """What the run returns, unless the client leaves, which cancels it. The body has been read.

    Raises:
        Cancelled: it left; nobody reads the answer.
        AdjoinError: what the run failed with.
    """
    result = asyncio.ensure_future(record.outcome())
    gone = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait((result, gone), return_when=asyncio.FIRST_COMPLETED)
        if result.done():
            return result.result()
        raise Cancelled("the client left")
    finally:
        gone.cancel()
        if not result.done():
            record.cancel("the client left")
            result.cancel()


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
