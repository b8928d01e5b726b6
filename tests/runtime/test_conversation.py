"""The outbox: nothing is lost or overtaken, and what comes together goes together."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from adjoin.errors import TransportError
from adjoin.runtime import protocol as p
from adjoin.runtime.conversation import Outbox, can_linger, receive_pieces, receive_value
from adjoin.transport.codec import encode
from adjoin.types import StageStarted, Token, Tokens, Usage


class _Channel:
    """Keeps what is sent: a list of messages for each sending."""

    def __init__(self) -> None:
        self.sent: asyncio.Queue[list[Any]] = asyncio.Queue()

    async def send(self, messages: list[bytes]) -> None:
        self.sent.put_nowait([msgspec.msgpack.decode(m, type=p.FromAgent) for m in messages])


class _Silent:
    """Never answers, or breaks; notes how it was left."""

    def __init__(self, breaks: Exception | None = None) -> None:
        self.asked = asyncio.Event()
        self.left = ""
        self._breaks = breaks

    async def receive(self) -> Any:
        self.asked.set()
        if self._breaks is not None:
            raise self._breaks
        await asyncio.Event().wait()

    def abort(self) -> None:
        self.left += "aborted"

    def release(self) -> None:
        self.left += "released"


@pytest.mark.parametrize("receive", [receive_value, receive_pieces])
async def test_a_reply_that_nobody_waits_for_costs_no_place_in_the_pool(receive: Any) -> None:
    channel = _Silent()
    waiting = asyncio.ensure_future(receive(channel))
    await channel.asked.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert channel.left == "aborted"
    lost = _Silent(TransportError("connection lost"))
    with pytest.raises(TransportError):
        await receive(lost)
    assert lost.left == "aborted"


def _happened(body: Any) -> p.Message:
    return p.Happened(stage="a", attempt=1, place="a", tries=1, body=body)


def _done(stage: str, value: Any = None) -> p.Message:
    return p.Done(stage=stage, attempt=1, usage=Usage(), value=value and encode(value))


async def test_what_is_put_in_together_goes_together() -> None:
    channel: Any = _Channel()
    async with Outbox(channel) as send:
        send(_done("a"))
        send(_done("b"))
        assert await channel.sent.get() == [_done("a"), _done("b")]


async def test_leaving_sends_what_is_left() -> None:
    channel: Any = _Channel()
    async with Outbox(channel) as send:
        send(_done("a"))
    assert await channel.sent.get() == [_done("a")]


def test_what_somebody_acts_on_does_not_linger() -> None:
    assert can_linger(_happened(StageStarted(worker="w")))
    assert can_linger(_done("a"))
    assert not can_linger(_done("a", "result"))
    assert not can_linger(_happened(Tokens(tokens=(Token("x"),))))
