"""The channel ``shm``: values of other processes of this machine, read where they lie."""

from __future__ import annotations

import asyncio
import itertools
import mmap
import socket
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from adjoin.errors import TransportError
from adjoin.transport import cuda_ipc, lending
from adjoin.transport.channel import Unreachable
from adjoin.transport.codec import Encoded
from adjoin.transport.frames import connect
from adjoin.transport.packets import Packets, close_all
from adjoin.transport.pool import when_unused


class SharedMemoryChannel:
    """Fetches from the lenders that listen in a directory. Belongs to one event loop."""

    name = "shm"

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._links: dict[str, _Link] = {}

    async def fetch(self, id: str, owner: str) -> Encoded:
        link = self._link(owner)
        return await link.fetch(id)

    async def close(self) -> None:
        for link in list(self._links.values()):
            await link.close()
        self._links.clear()

    def _link(self, owner: str) -> _Link:
        link = self._links.get(owner)
        if link is None or link.ended:
            path = lending.socket_path(self._directory, owner)
            try:
                # Whoever answers shares this machine's memory and our user, whatever container or
                # network namespace it is in.
                sock = connect(path, socket.SOCK_SEQPACKET)
            except (OSError, TransportError) as error:
                self._links.pop(owner, None)
                raise Unreachable(f"not to be reached on this machine: {error}") from None
            link = self._links[owner] = _Link(owner, sock)
        return link


class _Link:
    """A connection to one owner, and its slabs as they are mapped here."""

    def __init__(self, owner: str, sock: socket.socket) -> None:
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._packets: Packets[lending.ToConsumer] = Packets(sock, lending.ToConsumer)
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future[Encoded]] = {}
        self._mapped: dict[int, mmap.mmap] = {}
        self._unused: deque[int] = deque()
        self._reader = asyncio.ensure_future(self._read())

    @property
    def ended(self) -> bool:
        return self._reader.done()

    async def fetch(self, id: str) -> Encoded:
        number = next(self._numbers)
        answer = self._waiting[number] = self._loop.create_future()
        try:
            self._packets.send(lending.Fetch(number, id))
            value: Encoded = await answer
            return value
        finally:
            del self._waiting[number]

    async def close(self) -> None:
        self._packets.close()
        await asyncio.gather(self._reader, return_exceptions=True)

    async def _read(self) -> None:
        reason = "the process that held the value is gone"
        try:
            while (received := await self._packets.receive()) is not None:
                self._take(*received)
        except (TransportError, OSError) as error:
            reason = f"shared memory: {error}"
        finally:
            self._packets.close()
            self._mapped.clear()  # what is in use lives on with its views
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(TransportError(reason, where=self._owner))

    def _take(self, message: lending.ToConsumer, fds: list[int]) -> None:
        try:
            match message:
                case lending.Lent():
                    self._map(message.opened, fds)
                    value = self._value(message)
                    self._settle(message.number, value)
                case lending.Declined(number=number):
                    self._settle(number, Unreachable("the owner has no shared memory left"))
                case lending.Unknown(number=number, reason=reason):
                    self._settle(number, TransportError(reason))
                case lending.Forget(slab=slab):
                    self._mapped.pop(slab, None)
        finally:
            close_all(fds)

    def _settle(self, number: int, result: Encoded | TransportError) -> None:
        """Answer who asked. Nobody may wait any more: then the value is let go and so returned."""
        answer = self._waiting.get(number)
        if answer is None or answer.done():
            return
        if isinstance(result, TransportError):
            answer.set_exception(result)
        else:
            answer.set_result(result)

    def _map(self, opened: list[tuple[int, int]], fds: list[int]) -> None:
        if len(opened) != len(fds):
            raise TransportError(f"{len(fds)} descriptors came for {len(opened)} slabs")
        flags = mmap.MAP_SHARED | mmap.MAP_POPULATE
        for (slab, size), fd in zip(opened, fds, strict=True):
            try:
                self._mapped[slab] = mmap.mmap(fd, size, flags=flags, prot=mmap.PROT_READ)
            except ValueError as error:
                raise TransportError(f"a slab cannot be mapped: {error}") from None

    def _value(self, message: lending.Lent) -> Encoded:
        """The value as views of the slabs; each lease ends when its last view is gone."""
        bases: dict[int, np.ndarray[Any, Any]] = {}
        for slab in message.slabs:
            if slab not in self._mapped:
                raise TransportError(f"slab {slab} was never sent")
            base = bases[slab] = np.frombuffer(self._mapped[slab], np.uint8)
            when_unused(base, self._give_back, slab)
        manifest = message.manifest
        if not isinstance(manifest, lending.Manifest):
            try:
                packed = _cut(bases, manifest)
                manifest = msgspec.msgpack.decode(packed, type=lending.Manifest)
            except msgspec.MsgspecError as error:
                raise TransportError(f"a malformed manifest: {error}") from None
        buffers = [
            cuda_ipc.opened(part) if isinstance(part, cuda_ipc.Handle) else _cut(bases, part)
            for part in manifest.parts
        ]
        return Encoded(manifest.header, tuple(buffers))

    def _give_back(self, slab: int) -> None:
        """The last view of a lease is gone; called in whatever thread dropped it."""
        self._unused.append(slab)
        with suppress(RuntimeError):  # the loop has ended, and the connection with it
            self._loop.call_soon_threadsafe(self._return)

    def _return(self) -> None:
        while self._unused:
            self._packets.send(lending.Return(self._unused.popleft()))


def _cut(bases: dict[int, np.ndarray[Any, Any]], part: lending.Part) -> memoryview:
    slab, offset, length = part
    if not length:
        return memoryview(b"")
    base = bases.get(slab)
    if base is None or offset < 0 or length < 0 or offset + length > base.nbytes:
        raise TransportError(f"a position outside of slab {slab}")
    return base[offset : offset + length].data
