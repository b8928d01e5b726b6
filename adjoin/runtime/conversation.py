"""What both ends of a conversation do: decode, answer, and send without waiting."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from adjoin import errors
from adjoin.errors import AdjoinError, TransportError
from adjoin.runtime import protocol as p
from adjoin.transport.codec import Encoded
from adjoin.transport.remote import Channel
from adjoin.types import StageCompleted, StageSkipped, StageStarted


def decode(message: bytes, kind: Any) -> Any:
    """A message of this kind; raises :class:`TransportError` when it is none."""
    try:
        return _decoder(kind).decode(message)
    except msgspec.MsgspecError as error:
        raise TransportError(f"a message makes no sense: {error}") from None


@functools.cache
def _decoder(kind: Any) -> msgspec.msgpack.Decoder[Any]:
    """Making one takes longer than decoding a message; there are as many as kinds of talk."""
    return msgspec.msgpack.Decoder(kind)


class Outbox:
    """Sends in the background what is put in, in order; what is put in together goes together."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._pending: list[p.Message] = []
        self._wake = asyncio.Event()
        self._last = False

    async def __aenter__(self) -> Callable[[p.Message], None]:
        self._task = asyncio.ensure_future(self._drain())
        return self._put

    async def __aexit__(self, *_: object) -> None:
        self._last = True
        self._wake.set()  # also where nothing is pending
        with contextlib.suppress(TransportError):  # the reader sees that, too, and acts on it
            await self._task

    def _put(self, message: p.Message) -> None:
        self._pending.append(message)
        self._wake.set()

    async def _drain(self) -> None:
        while not self._last or self._pending:
            await self._wake.wait()
            self._wake.clear()
            batch, self._pending = self._pending, []
            if batch:
                await self._channel.send([p.pack(message) for message in batch])


def can_linger(message: p.Message) -> bool:
    """Whether nobody acts on it, such as the start of a stage: each sending costs both processes
    more than the messages in it do."""
    match message:
        case p.Happened(body=StageStarted() | StageCompleted() | StageSkipped()):
            return True
        case p.Done(value=None) | p.Pulled():
            return True
    return False


async def _reply(channel: Channel) -> tuple[bytes, list[memoryview]]:
    """The one message of a reply. Where none comes, or nobody waits any more, the connection is
    cut: one that is neither that nor given back takes a place in the pool for ever."""
    try:
        (message, *_), buffers = await channel.receive()
    except BaseException:
        channel.abort()
        raise
    channel.release()
    return message, buffers


async def receive_value(channel: Channel) -> Encoded:
    """The encoded value of a call's reply, with the buffers that came beside it."""
    message, buffers = await _reply(channel)
    value = unwrap(message)
    return Encoded(value.header, tuple(buffers)) if buffers else value


async def receive_pieces(channel: Channel) -> p.Taken:
    """The pieces of a call's reply. It may be long in coming, and nobody may wait any more."""
    message, _ = await _reply(channel)
    answer = decode(message, p.AnswerToTake)
    if isinstance(answer, p.Refused):
        raise errors.from_wire(answer.error)
    return answer  # type: ignore[no-any-return]


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
