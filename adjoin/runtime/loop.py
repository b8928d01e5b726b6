"""The one place where synchronous code meets the asynchronous core."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Generator
from concurrent.futures import Future
from typing import Any, Protocol, TypeAlias, TypeVar

from adjoin.errors import InputError

_T = TypeVar("_T")


class Work(Protocol[_T]):
    """What goes on by itself; ``done`` is what it comes to. Both are of the loop."""

    done: asyncio.Future[_T]

    def cancel(self) -> None: ...


class LoopThread:
    """An event loop in a thread of its own.

    ``call`` blocks the calling thread, ``bridge`` awaits from another loop; either way a caller
    that is interrupted or cancelled cancels the work.
    """

    def __init__(self, name: str) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def call(self, work: Coroutine[Any, Any, _T]) -> _T:
        future = self._submit(work)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def follow(self, begin: Callable[[], Work[_T]]) -> _T:
        """Begin something on the loop and wait for what it comes to, without a task of its own.

        An interrupted caller does not wait, and cancels it.
        """
        future: Future[_T] = Future()
        begun: list[Work[_T]] = []

        def on_loop() -> None:
            try:
                work = begin()
            except BaseException as error:  # noqa: BLE001  # the caller's to see
                future.set_exception(error)
                return
            begun.append(work)
            work.done.add_done_callback(lambda done: _copy(done, future))

        def abandon() -> None:
            for work in begun:
                work.cancel()

        self.loop.call_soon_threadsafe(on_loop)
        try:
            return future.result()
        except BaseException:
            if not future.done():
                self.loop.call_soon_threadsafe(abandon)
            raise

    async def bridge(self, work: Coroutine[Any, Any, _T]) -> _T:
        return await asyncio.wrap_future(self._submit(work))

    def iterate(self, source: AsyncIterator[_T]) -> Generator[_T]:
        """Pull from an asynchronous iterator; closing this one closes that one."""
        turn = asyncio.Lock()
        try:
            while (item := self.call(_next(source, turn))) is not _END:
                yield item  # type: ignore[misc]
        finally:
            self.call(_close(source, turn))

    async def bridge_iterate(self, source: AsyncIterator[_T]) -> AsyncGenerator[_T]:
        turn = asyncio.Lock()
        try:
            while (item := await self.bridge(_next(source, turn))) is not _END:
                yield item  # type: ignore[misc]
        finally:
            await self.bridge(_close(source, turn))

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()

    def _submit(self, work: Coroutine[Any, Any, _T]) -> Future[_T]:
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def _work(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
            left = asyncio.all_tasks(self.loop)
            for task in left:
                task.cancel()
            self.loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        finally:
            self.loop.close()


class LastingLoop(LoopThread):
    """One that several share, until the process ends."""

    def stop(self) -> None:
        """Others may use it."""


@functools.cache
def ucx_loop() -> LoopThread:
    """Where this process speaks UCX: its library serves one event loop a process."""
    return LastingLoop("adjoin-ucx")


class CallersLoop:
    """The loop that the caller runs on, where everything is awaited directly and nothing blocks.

    For programs that are asynchronous as a whole, such as a server: no thread, no hop.
    """

    def call(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Raises :class:`InputError`: blocking would stop the loop that does the work."""
        work.close()
        raise InputError(
            "this runtime lives on an event loop and cannot block it",
            hint="use the method with an 'a' before its name",
        )

    def follow(self, begin: Callable[[], Work[_T]]) -> _T:
        """Raises :class:`InputError`, as ``call`` does."""
        return self.call(_refused())  # type: ignore[no-any-return]

    async def bridge(self, work: Coroutine[Any, Any, _T]) -> _T:
        return await work

    def iterate(self, source: AsyncIterator[_T]) -> Generator[_T]:
        """Raises :class:`InputError`, as ``call`` does."""
        return self.call(_refused())

    async def bridge_iterate(self, source: AsyncIterator[_T]) -> AsyncGenerator[_T]:
        async with contextlib.aclosing(source) as items:  # type: ignore[type-var]
            async for item in items:
                yield item

    def stop(self) -> None:
        """The loop is not ours to stop."""


#: Where the asynchronous core runs: a loop of its own, or the caller's.
Loop: TypeAlias = LoopThread | CallersLoop


_END = object()


def _copy(done: asyncio.Future[_T], into: Future[_T]) -> None:
    if done.cancelled():
        into.cancel()
    elif (error := done.exception()) is not None:
        into.set_exception(error)
    else:
        into.set_result(done.result())


async def _refused() -> Any:
    """Never awaited."""


async def _next(source: AsyncIterator[_T], turn: asyncio.Lock) -> _T | object:
    async with turn:
        return await anext(source, _END)


async def _close(source: AsyncIterator[Any], turn: asyncio.Lock) -> None:
    """Close it when the step before has really ended: an interrupted caller does not wait for that,
    and a generator that runs cannot be closed."""
    close = getattr(source, "aclose", None)
    if close is not None:
        async with turn:
            await close()
