"""What both ends of a conversation do: decode, answer, and send without waiting."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from adjoin import errors
from adjoin.errors import AdjoinError, TransportError
from adjoin.runtime import protocol as p
from adjoin.transport.codec import Encoded
from adjoin.transport.remote import Channel


def decode(message: bytes, kind: Any) -> Any:
    """A message of this kind; raises :class:`TransportError` when it is none."""
    try:
        return msgspec.msgpack.decode(message, type=kind)
    except msgspec.MsgspecError as error:
        raise TransportError(f"a message makes no sense: {error}") from None


class Outbox:
    """Sends in the background what is put in, several messages at once when they pile up."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._queue: asyncio.Queue[p.Message | None] = asyncio.Queue()

    async def __aenter__(self) -> Callable[[p.Message], None]:
        self._task = asyncio.ensure_future(self._drain())
        return self._queue.put_nowait

    async def __aexit__(self, *_: object) -> None:
        self._queue.put_nowait(None)
        with contextlib.suppress(TransportError):  # the reader sees that, too, and acts on it
            await self._task

    async def _drain(self) -> None:
        last = False
        while not last:
            batch = [await self._queue.get()]
            while not self._queue.empty():
                batch.append(self._queue.get_nowait())
            last = None in batch
            if messages := [p.pack(message) for message in batch if message is not None]:
                await self._channel.send(messages)


async def receive_value(channel: Channel) -> Encoded:
    """The encoded value of a call's reply, with the buffers that came beside it."""
    (message, *_), buffers = await channel.receive()
    channel.release()
    value = unwrap(message)
    return Encoded(value.header, tuple(buffers)) if buffers else value


def unwrap(message: bytes) -> Encoded:
    """The value of a reply; raises what a refusal says."""
    answer = decode(message, p.Answer)
    if isinstance(answer, p.Refused):
        raise errors.from_wire(answer.error)
    return answer.value  # type: ignore[no-any-return]


async def answered(work: Awaitable[p.Message]) -> p.Message:
    """An answer for the other side, whatever happens: the boundary where errors become data."""
    try:
        return await work
    except AdjoinError as error:
        return p.Refused(error=errors.to_wire(error))
    except Exception as error:  # noqa: BLE001  # a bug of ours must not leave the caller without an answer
        return p.Refused(error=errors.to_wire(errors.wrap(error)))
