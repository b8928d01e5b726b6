"""The outbox: what waits for company, and that nothing is lost or overtaken."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from adjoin.errors import TransportError
from adjoin.runtime import conversation
from adjoin.runtime import protocol as p
from adjoin.runtime.conversation import Outbox, receive_pieces, receive_value
from adjoin.transport.codec import encode
from adjoin.types import StageStarted, Usage


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


def _started(stage: str) -> p.Message:
    return p.Happened(stage=stage, attempt=1, place=stage, tries=1, body=StageStarted(worker="w"))


def _done(stage: str, value: Any = None) -> p.Message:
    return p.Done(stage=stage, attempt=1, usage=Usage(), value=value and encode(value))


async def test_what_nobody_acts_on_goes_with_what_somebody_does(monkeypatch: Any) -> None:
    monkeypatch.setattr(conversation, "_LINGER_S", 3600)
    channel: Any = _Channel()
    messages = [_started("a"), _done("a"), _started("b"), _done("b", "result")]
    async with Outbox(channel) as send:
        for message in messages[:3]:
            send(message)
            await asyncio.sleep(0)
        assert channel.sent.empty()
        send(messages[3])
        assert await channel.sent.get() == messages


async def test_it_lingers_for_a_while_only(monkeypatch: Any) -> None:
    monkeypatch.setattr(conversation, "_LINGER_S", 0.0)
    channel: Any = _Channel()
    async with Outbox(channel) as send:
        send(_started("a"))
        assert await channel.sent.get() == [_started("a")]
        send(_started("b"))
        assert await channel.sent.get() == [_started("b")]


async def test_leaving_sends_what_is_left(monkeypatch: Any) -> None:
    monkeypatch.setattr(conversation, "_LINGER_S", 3600)
    channel: Any = _Channel()
    async with Outbox(channel) as send:
        send(_started("a"))
    assert await channel.sent.get() == [_started("a")]


async def test_the_end_of_a_segment_is_sent_before_the_loop_turns(monkeypatch: Any) -> None:
    monkeypatch.setattr(conversation, "_LINGER_S", 3600)
    channel: Any = _Channel()
    async with Outbox(channel) as send:
        for message in (_started("a"), _done("a", "result"), p.Closed()):
            send(message)
        assert channel.sent.get_nowait() == [_started("a"), _done("a", "result"), p.Closed()]
        send(_started("b"))
        send(_done("b", "more"))
        assert await channel.sent.get() == [_started("b"), _done("b", "more")]


async def test_nothing_overtakes_what_is_being_sent() -> None:
    class Slow(_Channel):
        def __init__(self) -> None:
            super().__init__()
            self.free = asyncio.Event()

        async def send(self, messages: list[bytes]) -> None:
            await self.free.wait()
            await super().send(messages)

    channel: Any = Slow()
    async with Outbox(channel) as send:
        send(_done("a", "result"))
        await asyncio.sleep(0)  # now that is under way
        await asyncio.sleep(0)
        send(p.Closed())
        channel.free.set()
        assert await channel.sent.get() == [_done("a", "result")]
        assert await channel.sent.get() == [p.Closed()]
