"""Messages and buffers over Dask's comm, past its scheduler.

A :class:`Channel` is one end of a conversation between a driver and an agent, or between agents.
Dask gives the connection (TCP, TLS or UCX); what travels on it are msgspec bytes and raw buffers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import numpy as np
from distributed.comm import Comm
from distributed.core import ConnectionPool
from distributed.protocol import to_serialize

from adjoin.errors import TransportError

#: Seconds. Dask tries again until then, even where nobody listens because the worker has died.
_CONNECT_S = 2.0
#: What a Dask server answers to an operation that it does not have.
_UNKNOWN_OPERATION = None


class Channel:
    """A conversation over one connection.

    Every method raises :class:`TransportError` when the other side is gone.
    """

    def __init__(self, comm: Comm, pool: ConnectionPool | None = None, address: str = "") -> None:
        self._comm = comm
        self._pool = pool
        self.address = address

    @classmethod
    async def open(
        cls, pool: ConnectionPool, address: str, operation: str, message: bytes
    ) -> Channel:
        """Start a conversation: ``message`` is the first, for the agent's ``operation``."""
        channel = cls(await connect(pool, address), pool, address)
        try:
            await channel._write({"op": operation, "messages": [message]})
        except BaseException:
            channel.abort()  # else it would keep its place in the pool, also when it was cancelled
            raise
        return channel

    @property
    def closed(self) -> bool:
        return bool(self._comm.closed())

    async def send(
        self, messages: Iterable[bytes], buffers: Sequence[bytes | bytearray | memoryview] = ()
    ) -> None:
        arrays = [to_serialize(np.frombuffer(part, dtype=np.uint8)) for part in buffers]
        packed = msgspec.msgpack.encode(list(messages))  # Dask looks at each object of a message
        message: dict[str, Any] = {"packed": packed}
        if arrays:
            message["buffers"] = arrays
        await self._write(message)

    async def receive(self) -> tuple[list[bytes], list[memoryview]]:
        """The next messages and the buffers that came with them.

        Raises:
            TransportError: also when the other side has no agent (yet).
        """
        try:
            received: Any = await self._comm.read()
        except OSError as error:
            raise TransportError(f"connection lost: {error}", where=self.address) from None
        if received is _UNKNOWN_OPERATION or not received.keys() & {"messages", "packed"}:
            self.abort()
            raise TransportError("there is no agent on this worker", where=self.address)
        buffers = [np.asarray(part).data for part in received.get("buffers", ())]
        if "packed" in received:
            return _unpack(received["packed"], self.address), buffers
        return [bytes(message) for message in received["messages"]], buffers

    def release(self) -> None:
        """The conversation is over on both sides: keep the connection for the next."""
        if self._pool is not None:
            self._pool.reuse(self.address, self._comm)

    def abort(self) -> None:
        """Cut the connection; the other side notices."""
        self._comm.abort()
        self.release()

    async def _write(self, message: dict[str, Any]) -> None:
        try:
            await self._comm.write(message)
        except OSError as error:
            raise TransportError(f"connection lost: {error}", where=self.address) from None


async def connect(pool: ConnectionPool, address: str) -> Comm:
    """A connection of the pool.

    Dask forgets a connection whose making is cancelled, and the other side keeps its socket. So it
    is made in any case, and kept for the next who asks where nobody waits any more.

    Raises:
        TransportError: it could not be made.
    """
    making = asyncio.ensure_future(pool.connect(address, timeout=_CONNECT_S))
    try:
        return await asyncio.shield(making)
    except (OSError, TimeoutError) as error:
        raise TransportError(f"cannot connect: {error}", where=address) from None
    except asyncio.CancelledError:
        making.add_done_callback(lambda made: _give_back(pool, address, made))
        raise


def _give_back(pool: ConnectionPool, address: str, made: asyncio.Future[Comm]) -> None:
    if not made.cancelled() and made.exception() is None:
        pool.reuse(address, made.result())


def _unpack(packed: bytes, where: str) -> list[bytes]:
    try:
        return msgspec.msgpack.decode(packed, type=list[bytes])
    except msgspec.MsgspecError as error:
        raise TransportError(f"messages make no sense: {error}", where=where) from None
