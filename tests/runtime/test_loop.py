from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from adjoin.runtime import loop as loop_module
from adjoin.runtime.loop import LoopThread


@pytest.fixture
def loop() -> Iterator[LoopThread]:
    made = LoopThread("test")
    yield made
    made.stop()


class Source:
    """Gives one item, then waits; it ends only when somebody has begun to close it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.waiting = threading.Event()
        self.closed = threading.Event()
        self._closing = asyncio.Event()
        close = loop_module._close

        async def closing(*arguments: Any) -> None:
            self._closing.set()
            await close(*arguments)

        monkeypatch.setattr(loop_module, "_close", closing)

    async def items(self) -> AsyncIterator[int]:
        try:
            yield 1
            self.waiting.set()
            await asyncio.Event().wait()
        finally:
            await self._closing.wait()
            self.closed.set()


def interrupted(waiting: threading.Event) -> Callable[[Future[Any]], Any]:
    def result(_: Future[Any]) -> Any:
        waiting.wait()
        raise KeyboardInterrupt

    return result


def test_an_interrupt_while_the_next_item_is_waited_for(
    loop: LoopThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Source(monkeypatch)
    items = loop.iterate(source.items())
    assert next(items) == 1
    with monkeypatch.context() as patch:
        real = Future.result
        interrupt = interrupted(source.waiting)

        def once(self: Future[Any], timeout: float | None = None) -> Any:
            patch.setattr(Future, "result", real)
            return interrupt(self)

        patch.setattr(Future, "result", once)
        with pytest.raises(KeyboardInterrupt):
            next(items)
    assert source.closed.is_set()


async def test_a_cancelled_task_while_the_next_item_is_waited_for(
    loop: LoopThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Source(monkeypatch)

    async def read() -> None:
        async for _ in loop.bridge_iterate(source.items()):
            pass

    task = asyncio.create_task(read())
    await asyncio.to_thread(source.waiting.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.to_thread(source.closed.wait)


def test_closing_closes_the_source(loop: LoopThread, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Source(monkeypatch)
    items = loop.iterate(source.items())
    next(items)
    items.close()
    assert source.closed.is_set()


class Working:
    """Something that goes on by itself on a loop."""

    def __init__(self) -> None:
        self.done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.cancelled = threading.Event()

    def cancel(self) -> None:
        self.cancelled.set()


def test_what_goes_on_by_itself_is_waited_for(loop: LoopThread) -> None:
    def begin() -> Working:
        working = Working()
        asyncio.get_running_loop().call_soon(working.done.set_result, 7)
        return working

    assert loop.follow(begin) == 7


def test_what_cannot_begin_or_fails_raises_at_the_caller(loop: LoopThread) -> None:
    def refuses() -> Working:
        raise ValueError("refused")

    def fails() -> Working:
        working = Working()
        working.done.set_exception(KeyError("failed"))
        return working

    with pytest.raises(ValueError, match="refused"):
        loop.follow(refuses)
    with pytest.raises(KeyError, match="failed"):
        loop.follow(fails)


def test_an_interrupted_caller_cancels_what_it_waited_for(
    loop: LoopThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = threading.Event()
    made: list[Working] = []

    def begin() -> Working:
        made.append(Working())
        begun.set()
        return made[0]

    def interrupt(future: Future[Any], timeout: float | None = None) -> Any:
        begun.wait()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Future, "result", interrupt)
        with pytest.raises(KeyboardInterrupt):
            loop.follow(begin)
    assert made[0].cancelled.wait(10)
