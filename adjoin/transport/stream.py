"""Values that are read while they are being made: a list of pieces that grows.

Whoever makes the value puts pieces into a :class:`Stream`; readers take from a position on, here
or through a channel, and can begin again. A stream that keeps all its pieces never makes its maker
wait: the whole value is needed anyway. One that passes them on to its only reader does, and drops
what has been taken once that exceeds a few bytes.
"""

from __future__ import annotations

import asyncio
import secrets
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from typing import Any

from adjoin.errors import Cancelled, TransportError

#: Pieces and bytes that a maker may be ahead of its reader; a larger piece passes alone.
WINDOW = 64
WINDOW_BYTES = 32 << 20
#: Bytes of pieces that are kept after they were taken, for a reader that begins again.
REPLAY_BYTES = 1 << 20
#: Bytes that a piece counts beside its own: there may be very many small ones.
_OVERHEAD = 64


class StreamLost(TransportError):
    """A stream that cannot be read to its end; another one may come in its place."""

    @property
    def id(self) -> str:
        """The stream's."""
        return str(self.details["stream"])


def lost(why: str, id: str) -> StreamLost:
    return StreamLost(f"a stream was lost: {why}", stream=id)


class ReaderLeft(Exception):  # not an error: its maker just stops
    """The only reader needs no more pieces."""


class Source(ABC):
    """Where one reader gets a stream from."""

    @abstractmethod
    async def take(self, position: int) -> tuple[list[Any], bool]:
        """The pieces from ``position`` on, at least one, and whether these are the last.

        There may be none when the stream has ended. What is before ``position`` has arrived.

        Raises:
            StreamLost: the stream broke, or what is at ``position`` was dropped.
        """

    @abstractmethod
    async def leave(self) -> None:
        """The reader needs no more."""


class Stream(Source):
    """The maker's end, and the :class:`Source` of readers in the same segment.

    Args:
        passing: there is one reader, and nobody needs the whole value.
        size: bytes of a piece, about.
    """

    def __init__(self, *, passing: bool, size: Callable[[Any], int]) -> None:
        self.id = secrets.token_urlsafe(16)
        self.nbytes = 0
        self.passing = passing
        self._size = size
        self._pieces: list[Any] = []
        self._sizes: list[int] = []
        self._first = 0  # the position of the first piece that is still here
        self._taken = 0  # the reader has the pieces before this position
        self._ahead = 0  # bytes that the reader does not have yet
        self._behind = 0  # bytes that it has, and that are still here
        self._ended = False
        self._left = False
        self._broken = ""
        self._changed = asyncio.Event()

    async def put(self, piece: Any) -> None:
        """Add a piece, once the reader is near enough.

        Raises:
            ReaderLeft: nobody reads any more.
            Cancelled: the stream was broken.
        """
        self._check()
        while self.passing and self._is_full():
            await self._change()
            self._check()
        self.add(piece)

    def add(self, piece: Any) -> None:
        """Add a piece to a stream that keeps them all."""
        size = self._size(piece)
        self.nbytes += size
        size += _OVERHEAD
        self._pieces.append(piece)
        self._sizes.append(size)
        self._ahead += size
        self._tell()

    def end(self) -> None:
        """There are no more pieces."""
        self._ended = True
        self._tell()

    def fail(self, why: str) -> None:
        """Its maker failed or was stopped: readers wait for another stream."""
        if not self._ended:
            self._broken = why
            self._tell()

    async def take(self, position: int) -> tuple[list[Any], bool]:
        if position < self._first:
            raise lost("its first pieces were dropped", self.id)
        self._acknowledge(position)
        while not self._broken and not self._ended and position >= self._next:
            await self._change()
        if self._broken:
            raise lost(self._broken, self.id)
        return self._pieces[position - self._first :], self._ended

    async def leave(self) -> None:
        """The only reader needs no more, so that its maker can stop."""
        if self.passing:
            self._left = True
            self._tell()

    def _acknowledge(self, position: int) -> None:
        if not self.passing:
            return
        position = min(position, self._next)
        low, high = sorted((self._taken - self._first, position - self._first))
        moved = sum(self._sizes[low:high]) * (1 if position > self._taken else -1)
        self._taken = position
        self._ahead -= moved
        self._behind += moved
        dropped = 0
        while self._behind > REPLAY_BYTES and self._first + dropped < self._taken:
            self._behind -= self._sizes[dropped]
            dropped += 1
        del self._pieces[:dropped], self._sizes[:dropped]
        self._first += dropped
        self._tell()

    @property
    def _next(self) -> int:
        return self._first + len(self._pieces)

    def _is_full(self) -> bool:
        ahead = self._next - self._taken
        return ahead >= WINDOW or (ahead > 0 and self._ahead >= WINDOW_BYTES)

    def _check(self) -> None:
        if self._broken:
            raise Cancelled("the stage was stopped")
        if self._left:
            raise ReaderLeft

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _change(self) -> None:
        await self._changed.wait()


#: Entered while a stage waits for another one, which is not its own time.
Pause = Callable[[], AbstractContextManager[None]]


class Reader:
    """One reading of a stream, from its beginning: what an ``async def`` gets as its iterator.

    Attributes:
        lost: why it could not be read to its end.
    """

    def __init__(self, source: Source, pause: Pause) -> None:
        self.lost: StreamLost | None = None
        self._source = source
        self._pause = pause
        self.batch: deque[Any] = deque()
        self._position = 0
        self._ended = False
        self._closed = False

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        while not self.batch:
            if not await self.fetch():
                raise StopAsyncIteration
        return self.batch.popleft()

    async def fetch(self) -> bool:
        """Wait for pieces; returns whether there may be some."""
        if self._closed:
            raise Cancelled("the stage was stopped")
        if self._ended:
            return False
        try:
            with self._pause():
                pieces, self._ended = await self._source.take(self._position)
        except StreamLost as error:
            self.lost = error
            raise
        self._position += len(pieces)
        self.batch.extend(pieces)
        return bool(pieces)

    def close(self) -> None:
        """Stop a thread that still reads, at its next piece."""
        self._closed = True


class BlockingReader:
    """A reader in a thread: what a ``def`` gets as its iterator."""

    def __init__(self, reader: Reader, loop: asyncio.AbstractEventLoop) -> None:
        self._reader = reader
        self._loop = loop
        self._fetching: Future[bool] | None = None

    def __iter__(self) -> BlockingReader:
        return self

    def __next__(self) -> Any:
        while not self._reader.batch:
            self._fetching = asyncio.run_coroutine_threadsafe(self._reader.fetch(), self._loop)
            if not self._fetching.result():
                raise StopIteration
        return self._reader.batch.popleft()

    def close(self) -> None:
        self._reader.close()
        if self._fetching is not None:
            self._fetching.cancel()
