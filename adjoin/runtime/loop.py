"""The one place where synchronous code meets the asynchronous core."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Generator
from concurrent.futures import Future
from typing import Any, TypeVar

_T = TypeVar("_T")


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

    async def bridge(self, work: Coroutine[Any, Any, _T]) -> _T:
        return await asyncio.wrap_future(self._submit(work))

    def iterate(self, source: AsyncIterator[_T]) -> Generator[_T]:
        """Pull from an asynchronous iterator; closing this one closes that one."""
        try:
            while (item := self.call(_next(source))) is not _END:
                yield item  # type: ignore[misc]
        finally:
            self.call(_close(source))

    async def bridge_iterate(self, source: AsyncIterator[_T]) -> AsyncGenerator[_T]:
        try:
            while (item := await self.bridge(_next(source))) is not _END:
                yield item  # type: ignore[misc]
        finally:
            await self.bridge(_close(source))

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


_END = object()


async def _next(source: AsyncIterator[_T]) -> _T | object:
    return await anext(source, _END)


async def _close(source: AsyncIterator[Any]) -> None:
    close = getattr(source, "aclose", None)
    if close is not None:
        await close()
