"""Typed messages over Unix sockets: a length of four bytes, then msgpack of a tagged structure.

Nothing here ever unpickles, a frame's size is bounded before it is read, and only processes of the
same user are talked to.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from adjoin.errors import TransportError

T = TypeVar("T")

#: Largest frame. The largest legitimate one is a batch of texts or of their vectors.
MAX_FRAME = 64 * 1024 * 1024
#: A peer that leaves this much unread is cut off.
MAX_UNREAD = 2 * MAX_FRAME
_LENGTH = struct.Struct(">I")
_CREDENTIALS = struct.Struct("3i")
#: ``sockaddr_un`` holds 108 bytes.
_MAX_PATH = 100
_encoder = msgspec.msgpack.Encoder()


def pack(message: Any) -> bytes:
    """One frame.

    Raises:
        TransportError: the message is larger than :data:`MAX_FRAME`.
    """
    body = _encoder.encode(message)
    if len(body) > MAX_FRAME:
        raise TransportError(
            f"a message of {len(body)} bytes, more than the {MAX_FRAME} allowed",
            hint="send less text at once",
        )
    return _LENGTH.pack(len(body)) + body


class Frames(Generic[T]):
    """One end of a connection that receives messages of type ``T``; belongs to one event loop."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, receives: Any
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._decoder: msgspec.msgpack.Decoder[T] = msgspec.msgpack.Decoder(receives)

    @classmethod
    async def over(cls, sock: socket.socket, receives: Any) -> Frames[T]:
        """Frames over a connected socket, which this object owns from now on."""
        sock.setblocking(False)
        reader, writer = await asyncio.open_unix_connection(sock=sock)
        return cls(reader, writer, receives)

    async def read(self) -> T | None:
        """The next message; None when the peer has gone.

        Raises:
            TransportError: what came is not a message.
        """
        try:
            (length,) = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
            if length > MAX_FRAME:
                raise TransportError(
                    f"a frame of {length} bytes, more than the {MAX_FRAME} allowed"
                )
            return self._decoder.decode(await self._reader.readexactly(length))
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        except msgspec.MsgspecError as error:
            raise TransportError(f"a malformed message: {error}") from error

    async def __aiter__(self) -> AsyncIterator[T]:
        while (message := await self.read()) is not None:
            yield message

    def write(self, message: Any) -> None:
        """Queue a message. To a peer that has gone this does nothing; its reader learns of it."""
        if self._writer.is_closing():
            return
        self._writer.write(pack(message))
        if self._writer.transport.get_write_buffer_size() > MAX_UNREAD:
            self._writer.transport.abort()

    async def flush(self) -> None:
        """Wait until the kernel has everything, or the peer has gone."""
        self._writer.transport.set_write_buffer_limits(0)
        with suppress(ConnectionError):
            await self._writer.drain()

    async def close(self) -> None:
        self._writer.close()
        with suppress(ConnectionError, TimeoutError):
            await asyncio.wait_for(self._writer.wait_closed(), timeout=5)


def connect(path: Path, kind: int = socket.SOCK_STREAM, *, wait: bool = True) -> socket.socket:
    """A connected, non-blocking socket to a peer of the same user.

    Args:
        wait: for a peer that has so many connections to accept that it takes no more now.

    Raises:
        OSError: nobody listens there; BlockingIOError when we would have to wait.
        TransportError: another user does.
    """
    sock = socket.socket(socket.AF_UNIX, kind)
    try:
        sock.setblocking(wait)
        with _short(path) as name:
            sock.connect(name)
        check_peer(sock)
    except BaseException:
        sock.close()
        raise
    sock.setblocking(False)
    return sock


def listen(path: Path, kind: int = socket.SOCK_STREAM) -> socket.socket:
    """A listening socket that replaces whatever is at ``path``; only its user may connect."""
    path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, kind)
    with _short(path) as name:
        sock.bind(name)
    path.chmod(0o600)
    sock.listen(128)
    sock.setblocking(False)
    return sock


def check_peer(sock: socket.socket) -> None:
    """Raise :class:`TransportError` unless the peer's process has our user id (SO_PEERCRED)."""
    _, uid, _ = _credentials(sock)
    if uid != os.getuid():
        raise TransportError(f"the peer is user {uid}, not {os.getuid()}")


def peer_pid(sock: socket.socket) -> int:
    """The process at the other end; of one that listened, the one that did so."""
    return _credentials(sock)[0]


def _credentials(sock: socket.socket) -> tuple[int, int, int]:
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(raw)
    return pid, uid, gid


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """A name for ``path`` that fits into a socket address, however deep its directory is."""
    if len(os.fsencode(path)) <= _MAX_PATH:
        yield str(path)
        return
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)
