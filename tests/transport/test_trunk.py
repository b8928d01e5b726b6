"""Conversations that share a connection: in order, apart from each other, and over when it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from adjoin.errors import TransportError
from adjoin.transport import trunk
from adjoin.transport.trunk import Line, Trunk


class _Comm:
    """One end of a connection in memory."""

    def __init__(self) -> None:
        self.inbox: asyncio.Queue[Any] = asyncio.Queue()
        self.peer: _Comm
        self.writes = 0

    async def write(self, message: Any) -> None:
        self.writes += 1
        self.peer.inbox.put_nowait(message)

    async def read(self) -> Any:
        message = await self.inbox.get()
        if message is None:
            raise OSError("closed")
        return message

    def abort(self) -> None:
        self.inbox.put_nowait(None)
        self.peer.inbox.put_nowait(None)


@asynccontextmanager
async def connected(accept: Callable[[Line], Awaitable[None]]) -> AsyncIterator[Trunk]:
    """The side that opens conversations, and carries them until the end."""
    near: Any = _Comm()
    far: Any = _Comm()
    near.peer, far.peer = far, near
    ours, theirs = Trunk(near, "there"), Trunk(far, "here", accept)
    carrying = asyncio.gather(ours.carry(), theirs.carry())
    yield ours
    ours.cut()
    await carrying


async def echo(line: Line) -> None:
    with pytest.raises(TransportError):
        while True:
            for message in await line.receive():
                line.send(message)


async def said(line: Line, count: int) -> list[bytes]:
    found: list[bytes] = []
    while len(found) < count:
        found += await line.receive()
    return found


async def test_conversations_keep_their_order_and_apart() -> None:
    async with connected(echo) as ours:
        lines = [ours.open(b"%d." % n) for n in range(20)]
        for number in range(5):
            for n, line in enumerate(lines):
                line.send(b"%d.%d" % (n, number))
        for n, line in enumerate(lines):
            assert await said(line, 6) == [b"%d." % n, *(b"%d.%d" % (n, i) for i in range(5))]


async def test_what_is_said_in_one_turn_is_one_write() -> None:
    async with connected(echo) as ours:
        lines = [ours.open(b"x") for _ in range(16)]
        for line in lines:
            await line.receive()
        comm: Any = ours._comm
        before = comm.writes, comm.peer.writes
        for line in lines:
            line.send(b"y")
        for line in lines:
            await line.receive()
        assert (comm.writes, comm.peer.writes) == (before[0] + 1, before[1] + 1)


async def test_what_comes_while_a_write_is_under_way_follows_it() -> None:
    async with connected(echo) as ours:
        comm: Any = ours._comm
        go = asyncio.Event()
        write = comm.write

        async def slow(message: Any) -> None:
            await go.wait()
            await write(message)

        comm.write = slow
        lines = [ours.open(b"%d" % n) for n in range(3)]
        await asyncio.sleep(0)
        lines[0].send(b"more", now=True)
        go.set()
        assert await said(lines[0], 2) == [b"0", b"more"]
        assert [await line.receive() for line in lines[1:]] == [[b"1"], [b"2"]]


async def test_what_nobody_acts_on_goes_with_what_somebody_does(monkeypatch: Any) -> None:
    monkeypatch.setattr(trunk, "_LINGER_S", 3600)

    async def talk(line: Line) -> None:
        line.send(b"started", linger=True)
        await said(line, 2)
        line.send(b"done")

    async with connected(talk) as ours:
        line = ours.open(b"go")
        await asyncio.sleep(0)
        line.send(b"on")
        assert await said(line, 2) == [b"started", b"done"]
        assert ours._comm.peer.writes == 1


async def test_it_lingers_for_a_while_only(monkeypatch: Any) -> None:
    monkeypatch.setattr(trunk, "_LINGER_S", 0.0)

    async def talk(line: Line) -> None:
        line.send(b"started", linger=True)

    async with connected(talk) as ours:
        assert await ours.open(b"go").receive() == [b"started"]


async def test_the_end_of_one_is_not_the_end_of_others() -> None:
    ended = asyncio.Event()

    async def listen(line: Line) -> None:
        with pytest.raises(TransportError, match="has left"):
            while True:
                for message in await line.receive():
                    line.send(message)
        ended.set()

    async with connected(listen) as ours:
        one, other = ours.open(b"a"), ours.open(b"b")
        await one.receive()
        one.end()
        with pytest.raises(TransportError):
            one.send(b"more")
        await ended.wait()
        assert await other.receive() == [b"b"]
        other.send(b"c")
        assert await other.receive() == [b"c"]


async def test_what_comes_for_a_conversation_that_has_ended_is_dropped() -> None:
    opened = 0
    go = asyncio.Event()

    async def leave(line: Line) -> None:
        nonlocal opened
        opened += 1
        await go.wait()
        line.send(b"late")
        line.end()

    async with connected(leave) as ours:
        one = ours.open(b"a")
        await asyncio.sleep(0)
        one.end()
        go.set()
        ours.put(1, [b"to nobody"])
        line = ours.open(b"b")
        assert await line.receive() == [b"late"]
        assert opened == 2


async def test_all_end_with_the_connection() -> None:
    async with connected(echo) as ours:
        lines = [ours.open(b"x") for _ in range(3)]
        ours.cut()
        for line in lines:
            with pytest.raises(TransportError, match="connection lost"):
                await said(line, 2)
        assert ours.broken
        with pytest.raises(TransportError):
            ours.open(b"x")


async def test_a_worker_without_an_agent_is_said() -> None:
    async with connected(echo) as ours:
        comm: Any = ours._comm
        line = ours.open(b"x")
        comm.inbox.put_nowait("unknown operation")
        with pytest.raises(TransportError, match="no agent"):
            await said(line, 5)


async def test_its_place_in_the_pool_is_given_back() -> None:
    near: Any = _Comm()
    near.peer = _Comm()
    given: list[tuple[str, Any]] = []

    class Pool:
        def reuse(self, address: str, comm: Any) -> None:
            given.append((address, comm))

    pool: Any = Pool()
    ours = Trunk(near, "there", pool=pool)
    ours.cut()
    await ours.carry()
    assert given == [("there", near)]
