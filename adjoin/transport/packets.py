"""Typed messages with file descriptors between processes of one user and machine.

A Unix socket of packets (``SOCK_SEQPACKET``): a message and its descriptors arrive together or not
at all, so there is nothing to cut up and to put together.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import msgspec

from adjoin.errors import TransportError

T = TypeVar("T")

#: Bytes. The kernel's default buffer of a socket holds three of them.
MAX_PACKET = 64 * 1024
#: The kernel takes 253.
MAX_DESCRIPTORS = 128
#: A peer that leaves this many unread is cut off.
_MAX_UNREAD = 4096
_ANCILLARY = socket.CMSG_SPACE(MAX_DESCRIPTORS * 4)
_encoder = msgspec.msgpack.Encoder()


class Packets(Generic[T]):
    """One end of a connection that receives messages of type ``T``; belongs to one event loop."""

    def __init__(self, sock: socket.socket, receives: Any) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._decoder: msgspec.msgpack.Decoder[T] = msgspec.msgpack.Decoder(receives)
        self._unsent: deque[tuple[bytes, Sequence[int]]] = deque()
        self._open = True
        self._waiter: asyncio.Future[None] | None = None

    async def receive(self) -> tuple[T, list[int]] | None:
        """The next message and its descriptors, which are the caller's; None when the peer is gone.

        Raises:
            TransportError: what came is not a message.
        """
        while self._open:
            try:
                return self._read()
            except BlockingIOError:
                await self._readable()
            except ConnectionError:
                break
        return None

    def _read(self) -> tuple[T, list[int]] | None:
        flags = socket.MSG_CMSG_CLOEXEC
        data, ancillary, state, _ = self._sock.recvmsg(MAX_PACKET, _ANCILLARY, flags)
        fds: list[int] = []
        for level, kind, raw in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds += memoryview(raw[: len(raw) // 4 * 4]).cast("i").tolist()
        try:
            if not data:
                close_all(fds)
                return None
            if state & (socket.MSG_CTRUNC | socket.MSG_TRUNC):
                raise TransportError("a message that is larger than allowed")
            return self._decoder.decode(data), fds
        except (msgspec.MsgspecError, TransportError) as error:
            close_all(fds)
            raise TransportError(f"a malformed message: {error}") from None

    def send(self, message: Any, fds: Sequence[int] = ()) -> None:
        """Queue a message. The descriptors must stay open until it is sent or the connection ends.

        To a peer that has gone this does nothing; its reader learns of it.

        Raises:
            TransportError: the message is too large.
        """
        data = _encoder.encode(message)
        if len(data) > MAX_PACKET or len(fds) > MAX_DESCRIPTORS:
            raise TransportError(f"a message of {len(data)} bytes and {len(fds)} descriptors")
        if not self._open:
            return
        self._unsent.append((data, fds))
        if len(self._unsent) == 1:
            self._drain()
        elif len(self._unsent) > _MAX_UNREAD:
            self.close()

    def close(self) -> None:
        if self._open:
            self._open = False
            self._unsent.clear()
            self._loop.remove_writer(self._sock)
            self._loop.remove_reader(self._sock)
            self._sock.close()
            if self._waiter is not None:
                _wake(self._waiter)

    def _drain(self) -> None:
        while self._unsent:
            data, fds = self._unsent[0]
            try:
                socket.send_fds(self._sock, [data], list(fds))
            except BlockingIOError:
                self._loop.add_writer(self._sock, self._drain)
                return
            except OSError:
                self._unsent.clear()
                break
            self._unsent.popleft()
        self._loop.remove_writer(self._sock)

    async def _readable(self) -> None:
        ready = self._loop.create_future()
        self._waiter = ready
        self._loop.add_reader(self._sock, _wake, ready)
        try:
            await ready
        finally:
            if self._open:
                self._loop.remove_reader(self._sock)


def _wake(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


def close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)
