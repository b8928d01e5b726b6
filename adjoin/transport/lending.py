"""What the two ends of a connection for shared memory say to each other, and the owner's end.

A consumer asks for a value by its id. The owner lays the value into slabs, if it does not lie there
already, and answers with positions in them; a slab's descriptor, open for reading only, comes along
when this consumer has not got it yet. The consumer returns a slab when nothing views it any more,
and its death returns all that it had.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import socket
import weakref
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import Executor
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from adjoin.errors import AdjoinError, TransportError
from adjoin.transport import cuda_ipc
from adjoin.transport.channel import Find
from adjoin.transport.codec import DeviceBuffer, Encoded
from adjoin.transport.frames import check_peer, listen
from adjoin.transport.packets import MAX_DESCRIPTORS, Packets
from adjoin.transport.pool import Pool, Slab

_log = logging.getLogger(__name__)
#: Arrays start at multiples of this, so that vector instructions find them aligned.
_ALIGNMENT = 64
#: Bytes of a manifest that still travels in a packet.
_INLINE = 32 * 1024
#: Bytes of a value from which on it is not copied on the event loop.
_IN_THREAD = 1024 * 1024

#: Slab, offset, length in bytes.
Part = tuple[int, int, int]


class Fetch(msgspec.Struct, frozen=True, tag=True):
    number: int
    id: str


class Return(msgspec.Struct, frozen=True, tag=True):
    """Nothing views what one answer lent of this slab any more."""

    slab: int


class Manifest(msgspec.Struct, frozen=True):
    """Where the buffers of a value are."""

    header: bytes
    parts: list[Part | cuda_ipc.Handle]


class Lent(msgspec.Struct, frozen=True, tag=True):
    """``slabs`` are lent once each; ``opened`` are number and size of those whose descriptors come
    along. The manifest is in the message, or in a slab when it is long."""

    number: int
    slabs: list[int]
    opened: list[tuple[int, int]]
    manifest: Manifest | Part


class Declined(msgspec.Struct, frozen=True, tag=True):
    """No room: fetch it by another channel."""

    number: int


class Unknown(msgspec.Struct, frozen=True, tag=True):
    """There is no such value, and why."""

    number: int
    reason: str


class Forget(msgspec.Struct, frozen=True, tag=True):
    """The slab is gone."""

    slab: int


ToOwner = Fetch | Return
ToConsumer = Lent | Declined | Unknown | Forget


def socket_path(directory: Path, owner: str) -> Path:
    """Where the agent with this address listens: nothing of the address becomes part of a path."""
    return directory / f"{hashlib.sha256(owner.encode()).hexdigest()[:16]}.shm"


class Counts(msgspec.Struct):
    """What an owner did. ``declined`` counts what had to go another way for lack of room."""

    lent: int = 0
    copied_bytes: int = 0
    declined: int = 0


class _Placed(msgspec.Struct, frozen=True):
    """A value in shared memory; each slab is held once."""

    slabs: dict[int, Slab]
    manifest: Manifest | Part


class Lender:
    """Lends the values of this process to others on this machine. Belongs to one event loop.

    Args:
        find: the value behind an id.
        threads: where values are copied.
    """

    def __init__(self, budget: int, find: Find, threads: Executor) -> None:
        self._loop = asyncio.get_running_loop()
        self.pool = Pool(budget, evicted=self._evicted)
        self.counts = Counts()
        self.find = find
        self._threads = threads
        self._placed: dict[str, asyncio.Future[_Placed | None]] = {}
        self._peers: set[_Peer] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._path: Path | None = None

    def start(self, path: Path) -> None:
        """Listen. The socket gets its name when somebody listens, so a name without is stale."""
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = path.with_suffix(".new")
        sock = listen(new, socket.SOCK_SEQPACKET)
        new.rename(path)
        self._path = path
        self._spawn(self._accept(sock))

    async def close(self) -> None:
        if self._path is not None:
            self._path.unlink(missing_ok=True)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.pool.close()

    async def place(self, id: str, value: Encoded) -> _Placed | None:
        """Where a value is in shared memory, laid there once; None when there is no room.

        The slabs are held as long as the value lives, which is as long as its segment holds it or
        the caller does.
        """
        if (placing := self._placed.get(id)) is None:
            placing = self._placed[id] = self._laying(value)
            weakref.finalize(value, self._withdraw, id, placing).atexit = False
        placed = await asyncio.shield(placing)
        if placed is None:
            self._placed.pop(id, None)  # there may be room the next time
        return placed

    def _laying(self, value: Encoded) -> asyncio.Future[_Placed | None]:
        if value.nbytes >= _IN_THREAD:
            return self._loop.run_in_executor(self._threads, _lay, self.pool, value)
        done = self._loop.create_future()
        done.set_result(_lay(self.pool, value))
        return done

    def _withdraw(self, id: str, placing: asyncio.Future[_Placed | None]) -> None:
        """Nobody holds the value any more. Called in whatever thread dropped the last reference,
        which may be the one that has just copied it."""
        with suppress(RuntimeError):  # the loop has ended, and all of this with it
            self._loop.call_soon_threadsafe(self._release, id, placing)

    def _release(self, id: str, placing: asyncio.Future[_Placed | None]) -> None:
        def drop(placed: asyncio.Future[_Placed | None]) -> None:
            if not placed.cancelled() and not placed.exception() and placed.result():
                for slab in placed.result().slabs.values():  # type: ignore[union-attr]
                    self.pool.drop(slab)
                self.pool.settle()

        if self._placed.get(id) is placing:
            del self._placed[id]
        placing.add_done_callback(drop)

    async def _accept(self, sock: socket.socket) -> None:
        with sock:
            while True:
                theirs, _ = await self._loop.sock_accept(sock)
                try:
                    check_peer(theirs)
                except TransportError as error:
                    _log.warning("refused: %s", error)
                    theirs.close()
                    continue
                self._spawn(_Peer(self, theirs).serve())

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _evicted(self, slab: Slab) -> None:
        """The pool freed a slab, in whatever thread."""
        slab.close()
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._forget, slab.id)

    def _forget(self, slab: int) -> None:
        for peer in self._peers:
            peer.forget(slab)


class _Peer:
    """One consumer: what it has been sent, and what it has not returned."""

    def __init__(self, lender: Lender, sock: socket.socket) -> None:
        self._lender = lender
        self._packets: Packets[ToOwner] = Packets(sock, ToOwner)
        self._known: set[int] = set()
        self._lent: Counter[int] = Counter()
        self._slabs: dict[int, Slab] = {}
        self._answers: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        self._lender._peers.add(self)
        try:
            while (received := await self._packets.receive()) is not None:
                message, _fds = received
                if isinstance(message, Return):
                    self._returned(message.slab)
                else:
                    task = asyncio.ensure_future(self._answer(message))
                    self._answers.add(task)
                    task.add_done_callback(self._answers.discard)
        except TransportError as error:
            _log.warning("a consumer of shared memory is cut off: %s", error)
        finally:
            self._end()

    def forget(self, slab: int) -> None:
        if slab in self._known:
            self._known.discard(slab)
            self._packets.send(Forget(slab))

    def _end(self) -> None:
        self._lender._peers.discard(self)
        for task in self._answers:
            task.cancel()
        self._packets.close()
        for slab, count in self._lent.items():
            for _ in range(count):
                self._lender.pool.drop(self._slabs[slab])
        self._lender.pool.settle()

    def _returned(self, slab: int) -> None:
        if not self._lent[slab]:
            raise TransportError(f"slab {slab} is returned that was not lent")
        self._lent[slab] -= 1
        self._lender.pool.drop(self._slabs[slab])
        if not self._lent[slab]:
            del self._lent[slab], self._slabs[slab]
        self._lender.pool.settle()

    async def _answer(self, request: Fetch) -> None:
        lender = self._lender
        try:
            value = lender.find(request.id)  # kept until the slabs are held for this consumer
            placed = await lender.place(request.id, value)
        except AdjoinError as error:
            self._packets.send(Unknown(request.number, str(error)))
            return
        if placed is None:
            lender.counts.declined += 1
            _log.info("no shared memory for a value, of %d bytes at most", lender.pool.budget)
            self._packets.send(Declined(request.number))
            return
        new = [slab for slab in placed.slabs.values() if slab.id not in self._known]
        for slab in placed.slabs.values():
            lender.pool.hold(slab)
            self._lent[slab.id] += 1
            self._slabs[slab.id] = slab
        self._known |= placed.slabs.keys()
        lender.counts.lent += 1
        opened = [(slab.id, slab.size) for slab in new]
        message = Lent(request.number, list(placed.slabs), opened, placed.manifest)
        self._packets.send(message, [slab.fd for slab in new])


def _lay(pool: Pool, value: Encoded) -> _Placed | None:
    """Lay a value into slabs: what lies in one stays there, the rest is copied into one other."""
    held: dict[int, Slab] = {}
    parts: list[Part | cuda_ipc.Handle | None] = []
    rest: list[np.ndarray[Any, Any]] = []
    for buffer in value.buffers:
        if isinstance(buffer, DeviceBuffer):
            parts.append(cuda_ipc.share(buffer))
            continue
        array = np.frombuffer(buffer, np.uint8)
        part = _found(pool, array, held) if len(held) < MAX_DESCRIPTORS - 1 else None
        parts.append(part)
        if part is None:
            rest.append(array)
    placed = _copied(pool, value.header, parts, rest)
    if placed is None:
        for slab in held.values():
            pool.drop(slab)
        return None
    for slab in held.values():
        if (allocated := slab.array()) is not None:
            allocated.flags.writeable = False
    return _Placed(placed.slabs | held, placed.manifest)


def _found(pool: Pool, array: np.ndarray[Any, Any], held: dict[int, Slab]) -> Part | None:
    """Where an array lies in a slab of ours already. Each slab is held once."""
    address = array.__array_interface__["data"][0]
    if not array.nbytes or (slab := pool.at(address, array.nbytes)) is None:
        return None
    if slab.id in held:
        pool.drop(slab)
    held[slab.id] = slab
    return slab.id, address - slab.address, array.nbytes


def _copied(
    pool: Pool,
    header: bytes,
    parts: list[Part | cuda_ipc.Handle | None],
    rest: list[np.ndarray[Any, Any]],
) -> _Placed | None:
    """Copy the rest into a slab, and the manifest behind it when it is long.

    The manifest's length depends on the slab's number, so a bound of it is used for the size.
    """
    starts = list(_offsets(array.nbytes for array in rest))
    end = _aligned(starts[-1] + rest[-1].nbytes) if rest else 0
    bound = (
        len(header)
        + 40 * len(parts)
        + 64
        + sum(512 for part in parts if isinstance(part, cuda_ipc.Handle))
    )
    long = bound > _INLINE
    if not (end or long):
        filled = [part or (0, 0, 0) for part in parts]
        return _Placed({}, Manifest(header, filled))
    if (slab := pool.take(end + (bound if long else 0))) is None:
        return None
    view = np.frombuffer(slab.memory, np.uint8)
    positions = iter(zip(starts, rest, strict=True))
    filled = []
    for part in parts:
        if part is not None:
            filled.append(part)
            continue
        start, array = next(positions)
        view[start : start + array.nbytes] = array
        filled.append((slab.id, start, array.nbytes))
    manifest = Manifest(header, filled)
    if not long:
        return _Placed({slab.id: slab}, manifest)
    packed = msgspec.msgpack.encode(manifest)
    view[end : end + len(packed)] = np.frombuffer(packed, np.uint8)
    return _Placed({slab.id: slab}, (slab.id, end, len(packed)))


def _offsets(sizes: Iterable[int]) -> Iterable[int]:
    start = 0
    for size in sizes:
        yield start
        start = _aligned(start + size)


def _aligned(offset: int) -> int:
    return -(-offset // _ALIGNMENT) * _ALIGNMENT
