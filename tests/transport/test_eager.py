"""A coroutine that begins before it is awaited behaves as one that is awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest

from adjoin.transport.eager import started


async def test_what_need_not_wait_is_done_before_it_is_awaited() -> None:
    said = []

    async def work() -> int:
        said.append("begun")
        return 3

    begun = started(work())
    assert said == ["begun"]
    assert await begun == 3


async def test_it_goes_on_where_it_waited_with_what_came() -> None:
    first: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    second: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def work() -> list[int]:
        found = [await first]
        await asyncio.sleep(0)
        return [*found, await second]

    begun = started(work())
    rest = asyncio.ensure_future(_awaited(begun))
    first.set_result(1)
    await asyncio.sleep(0)
    assert not rest.done()
    second.set_result(2)
    assert await rest == [1, 2]


@pytest.mark.parametrize("waits", [False, True])
async def test_an_error_is_for_whoever_awaits_it(waits: bool) -> None:
    async def work() -> None:
        if waits:
            await asyncio.sleep(0)
        raise ValueError("no")

    begun = started(work())
    with pytest.raises(ValueError, match="no"):
        await begun


async def test_a_cancellation_reaches_the_place_where_it_waits() -> None:
    said = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            said.append("cancelled")
            raise

    rest = asyncio.ensure_future(_awaited(started(work())))
    await asyncio.sleep(0)
    rest.cancel()
    with pytest.raises(asyncio.CancelledError):
        await rest
    assert said == ["cancelled"]


async def _awaited(begun: Awaitable[Any]) -> Any:
    return await begun
