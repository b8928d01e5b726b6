"""The watchdog finds which stage blocks the loop, and the stage tells before it is over."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from adjoin.runtime.watchdog import Watchdog, watched
from adjoin.types import Body, StageWarning

REACHED, GATE, CLOSED = threading.Event(), threading.Event(), threading.Condition()


async def blocks(text: str) -> str:
    REACHED.set()
    GATE.wait(10)
    return text


async def blocks_in_a_task(text: str) -> str:
    return await asyncio.create_task(blocks(text))


async def blocks_below(text: str) -> str:
    REACHED.set()
    with CLOSED:
        CLOSED.wait_for(GATE.is_set, 10)  # the standard library, in several frames
    return text


async def waits(text: str) -> str:
    REACHED.set()
    await asyncio.get_running_loop().run_in_executor(None, GATE.wait, 10)
    return text


def looking(looks: int, *, between: Callable[[], Any] = bool) -> threading.Thread:
    """A thread that looks so many times, a quarter of the limit apart, once something runs."""
    dog = Watchdog(1.0)
    REACHED.clear()
    GATE.clear()

    def watch() -> None:
        REACHED.wait(10)
        for at in range(looks):
            between()
            dog.look(at / 4)
        GATE.set()
        with CLOSED:
            CLOSED.notify_all()

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


async def told(
    function: Callable[[str], Awaitable[str]], looks: int, between: Callable[[], Any] = bool
) -> list[StageWarning]:
    """What a call tells until it is over."""
    thread = looking(looks, between=between)
    found: list[Body] = []
    with watched(function, found.append):
        await function("a")
    before = list(found)
    await asyncio.to_thread(thread.join)
    await asyncio.sleep(0)
    assert found == before  # all was said before the stage was over
    return [body for body in found if isinstance(body, StageWarning)]


@pytest.mark.parametrize("function", [blocks, blocks_in_a_task])
async def test_it_names_the_function_and_its_line(function: Any) -> None:
    (warning,) = await told(function, looks=9)
    first = blocks.__code__.co_firstlineno
    place, _, name = warning.where.partition(", in ")
    assert name == "blocks"
    # the thread may look when the first line is not over yet
    assert place in {f"{__file__}:{first + 1}", f"{__file__}:{first + 2}"}
    assert warning.what.startswith(f"the async function {function.__name__!r} blocks")
    assert "declare it with def" in str(warning)


async def test_of_a_library_it_names_the_line_that_calls_it() -> None:
    (warning,) = await told(blocks_below, looks=9)
    assert warning.where.endswith(", in blocks_below")


async def test_a_short_block_is_not_told() -> None:
    assert not await told(blocks, looks=4)


async def test_who_awaits_is_not_told() -> None:
    """However long: between two looks the loop comes round."""
    loop = asyncio.get_running_loop()

    def come_round() -> None:
        round = threading.Event()
        loop.call_soon_threadsafe(round.set)
        assert round.wait(10)

    assert not await told(waits, looks=9, between=come_round)


async def test_what_runs_beside_a_stage_is_not_its_fault() -> None:
    """A callback that was there before the stage has another context."""
    over = asyncio.get_running_loop().create_future()
    found: list[Body] = []
    looking(9)

    def callback() -> None:
        REACHED.set()
        GATE.wait(10)
        over.set_result(None)

    asyncio.get_running_loop().call_soon(callback)
    with watched(waits, found.append):
        await over
    assert not found
