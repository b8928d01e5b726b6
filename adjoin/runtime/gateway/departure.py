"""A client that leaves while it waits for its answer: nothing else tells a plain request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from starlette.requests import Request

from adjoin.errors import Cancelled

_T = TypeVar("_T")


async def unless_left(
    request: Request, work: Coroutine[Any, Any, _T], left: Callable[[], None] = lambda: None
) -> _T:
    """What the work gives; when the client leaves before, the work is cancelled and ``left``
    called. The request's body has been read.

    Raises:
        Cancelled: the client left; nobody reads the answer.
    """
    result = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait((result, gone), return_when=asyncio.FIRST_COMPLETED)
        if result.done():
            return result.result()
        raise Cancelled("the client left")
    finally:
        gone.cancel()
        if not result.done():
            left()
            result.cancel()


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
