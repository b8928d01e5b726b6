"""How a function is called that reads its arguments, or makes its result, piece by piece."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import aclosing
from typing import Any

from adjoin.dag import Function
from adjoin.errors import Cancelled, InputError
from adjoin.transport.stream import BlockingReader, Pause, Reader, ReaderLeft, Source, Stream


class Piecewise:
    """One call.

    Args:
        stream: takes the pieces as they are made; None when nobody reads it.
        pause: entered while the call waits for another stage.
        seal: makes a piece fit to be shared.
    """

    def __init__(
        self, function: Function, stream: Stream | None, pause: Pause, seal: Callable[[Any], Any]
    ) -> None:
        self._function = function
        self._stream = stream
        self._pause = pause
        self._seal = seal
        self._keeps = stream is None or not stream.passing
        self._pieces: list[Any] = []
        self._stopped = False

    async def call(
        self, positional: tuple[Any, ...], arguments: Mapping[str, Any], threads: Executor
    ) -> Any:
        """The value of the call, or None where all of it was passed on.

        Args:
            arguments: with a :class:`Source` for what is still being made.
            threads: for calls that wait for no other stage. One that does gets a thread of its
                own: if it held one of these, the other stage might wait for that.

        Raises:
            StreamLost: an argument could not be read to its end, whatever the function made of it.
        """
        readers = {
            name: Reader(value, self._pause)
            for name, value in arguments.items()
            if isinstance(value, Source)
        }
        given = {**arguments, **readers}
        try:
            if _is_async(self._function):
                result = await self._on_loop(positional, given)
            else:
                waits = bool(readers) or self._stream is not None
                result = await self._in_thread(positional, given, None if waits else threads)
        finally:
            self._stopped = True
            for reader in readers.values():
                reader.close()
            _raise_lost(readers.values())
        if self._function.streams != "items":
            return result
        return self._pieces if self._keeps else None

    async def _on_loop(self, positional: tuple[Any, ...], given: Mapping[str, Any]) -> Any:
        call: Any = self._function.call
        arguments = dict(given)
        for name in self._function.iterates & given.keys():
            if not isinstance(given[name], Reader):
                arguments[name] = _each(_items(name, given[name]))
        if inspect.iscoroutinefunction(call):
            return await call(*positional, **arguments)
        async with aclosing(call(*positional, **arguments)) as pieces:
            with contextlib.suppress(ReaderLeft):
                async for piece in pieces:
                    await self._put(piece)
        return None

    async def _in_thread(
        self, positional: tuple[Any, ...], given: Mapping[str, Any], threads: Executor | None
    ) -> Any:
        call: Any = self._function.call
        loop = asyncio.get_running_loop()
        arguments = dict(given)
        blocking = []
        for name in self._function.iterates & given.keys():
            if isinstance(value := given[name], Reader):
                arguments[name] = BlockingReader(value, loop)
                blocking.append(arguments[name])
            else:
                arguments[name] = iter(_items(name, value))

        def work() -> Any:
            result = call(*positional, **arguments)
            if self._function.streams == "items":
                self._pump(result, loop)
            return result

        run = contextvars.copy_context().run
        try:
            if threads is not None:
                return await loop.run_in_executor(threads, run, work)
            return await _in_own_thread(lambda: run(work))
        finally:
            for reader in blocking:
                reader.close()

    def _pump(self, pieces: Iterable[Any], loop: asyncio.AbstractEventLoop) -> None:
        """Pass on what a generator yields; it is closed in its thread, however it ends."""
        try:
            for piece in pieces:
                if self._stopped:
                    raise Cancelled("the stage was stopped")
                if self._stream is None:
                    self._pieces.append(self._seal(piece))
                else:
                    asyncio.run_coroutine_threadsafe(self._put(piece), loop).result()
        except ReaderLeft:
            pass
        finally:
            if isinstance(pieces, Generator):
                pieces.close()

    async def _put(self, piece: Any) -> None:
        piece = self._seal(piece)
        if self._keeps:
            self._pieces.append(piece)
        if self._stream is not None:
            with self._pause():
                await self._stream.put(piece)


def is_piecewise(function: Function) -> bool:
    return function.streams == "items" or bool(function.iterates)


def _is_async(function: Function) -> bool:
    call = function.call
    return inspect.iscoroutinefunction(call) or inspect.isasyncgenfunction(call)


def _raise_lost(readers: Iterable[Reader]) -> None:
    for reader in readers:
        if reader.lost is not None:
            raise reader.lost


def _items(name: str, value: Any) -> Sequence[Any]:
    """What an iterating parameter is given of a value that is there as a whole."""
    if value is None:
        return ()
    if isinstance(value, list | tuple):
        return value
    raise InputError(f"must be a list, is {type(value).__name__}", where=f"argument {name!r}")


async def _each(items: Sequence[Any]) -> AsyncIterator[Any]:
    for item in items:
        yield item


async def _in_own_thread(work: Callable[[], Any]) -> Any:
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[Any] = loop.create_future()

    def settle(result: Any, error: BaseException | None) -> None:
        if ended.done():  # cancelled: what the thread made of that is nobody's
            return
        if error is None:
            ended.set_result(result)
        else:
            ended.set_exception(error)

    def run() -> None:
        result: Any = None
        failure: BaseException | None = None
        try:
            result = work()
        except StopIteration as error:  # a future cannot carry it
            failure = RuntimeError(f"the function raised {error!r}")
        except BaseException as error:  # noqa: BLE001  # carried to the task that waits
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=run, name="adjoin-stream", daemon=True).start()
    return await ended
