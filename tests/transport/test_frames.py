from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import msgspec
import pytest

from adjoin.errors import TransportError
from adjoin.transport import frames
from adjoin.transport.frames import Frames, connect, listen


class Note(msgspec.Struct, tag=True):
    text: str


class Count(msgspec.Struct, tag=True):
    number: int


async def pair() -> tuple[Frames[Note | Count], Frames[Note | Count]]:
    one, two = socket.socketpair()
    return await Frames.over(one, Note | Count), await Frames.over(two, Note | Count)


async def test_messages_arrive_whole_typed_and_in_order() -> None:
    one, two = await pair()
    sent: list[Note | Count] = [Note("x" * 200_000), Count(1), Note("")]
    for message in sent:
        one.write(message)
    assert [await two.read() for _ in sent] == sent
    await one.close()
    assert await two.read() is None
    await two.close()


async def test_the_end_in_the_middle_of_a_frame_is_the_end() -> None:
    one, two = socket.socketpair()
    reading: Frames[Note] = await Frames.over(two, Note)
    one.sendall(b"\x00\x00\x00\x09half")
    one.close()
    assert await reading.read() is None
    await reading.close()


@pytest.mark.parametrize(
    "data", [b"\xff\xff\xff\xff", b"\x00\x00\x00\x01\xc1", frames.pack({"type": "Other"})]
)
async def test_what_is_no_message_is_an_error_before_it_is_read_on(data: bytes) -> None:
    one, two = socket.socketpair()
    reading: Frames[Note] = await Frames.over(two, Note)
    one.sendall(data)
    with pytest.raises(TransportError):
        await asyncio.wait_for(reading.read(), 5)
    one.close()
    await reading.close()


def test_a_message_that_is_too_large_is_refused_where_it_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(frames, "MAX_FRAME", 100)
    with pytest.raises(TransportError, match="100"):
        frames.pack(Note("x" * 200))


async def test_a_peer_that_reads_nothing_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "MAX_UNREAD", 1000)
    one, two = await pair()
    for _ in range(3):
        one.write(Note("x" * 1_000_000))
    await asyncio.wait_for(one.flush(), 5)
    one.write(Note("nobody hears this"))
    await one.close()
    await two.close()


def test_a_socket_is_private_and_replaces_a_stale_one(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    listen(path).close()
    with listen(path) as server, connect(path):
        assert path.stat().st_mode & 0o777 == 0o600
        server.accept()[0].close()


def test_a_path_longer_than_an_address_works(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 90) / ("e" * 90)
    deep.mkdir(parents=True)
    descriptors = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a count of names
    with listen(deep / "s.sock") as server, connect(deep / "s.sock"):
        server.accept()[0].close()
    assert len(os.listdir("/proc/self/fd")) == descriptors  # noqa: PTH208


def test_another_user_is_not_talked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = socket.socketpair()
    with one, two:
        frames.check_peer(one)
        monkeypatch.setattr(os, "getuid", lambda: 4_000_000)
        with pytest.raises(TransportError, match="user"):
            frames.check_peer(one)
