"""What maker and readers of a stream are promised."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adjoin.errors import Cancelled
from adjoin.transport.stream import (
    REPLAY_BYTES,
    WINDOW,
    WINDOW_BYTES,
    BlockingReader,
    Reader,
    ReaderLeft,
    Stream,
    StreamLost,
)


@contextlib.contextmanager
def no_pause() -> Iterator[None]:
    yield


def stream(*, passing: bool, nbytes: int = 1) -> Stream:
    return Stream(passing=passing, size=lambda _: nbytes)


async def read(source: Stream) -> list[Any]:
    return [piece async for piece in Reader(source, no_pause)]


@given(st.lists(st.integers()), st.booleans())
def test_readers_get_all_pieces_in_order(pieces: list[int], passing: bool) -> None:
    async def check() -> None:
        made = stream(passing=passing)
        reading = asyncio.ensure_future(read(made))
        for piece in pieces:
            await made.put(piece)
        made.end()
        assert await reading == pieces

    asyncio.run(check())


async def test_a_stream_that_is_kept_has_any_number_of_readers_and_makes_nobody_wait() -> None:
    made = stream(passing=False, nbytes=WINDOW_BYTES)
    for piece in range(2 * WINDOW):
        await asyncio.wait_for(made.put(piece), 1)
    made.end()
    assert await read(made) == await read(made) == list(range(2 * WINDOW))
    assert made.nbytes == 2 * WINDOW * WINDOW_BYTES


@pytest.mark.parametrize(("nbytes", "ahead"), [(1, WINDOW), (WINDOW_BYTES, 1)])
async def test_the_maker_waits_for_the_only_reader(nbytes: int, ahead: int) -> None:
    made = stream(passing=True, nbytes=nbytes)
    for piece in range(ahead):
        await made.put(piece)
    late = asyncio.ensure_future(made.put("late"))
    await asyncio.sleep(0)
    assert not late.done()
    assert await made.take(0) == (list(range(ahead)), False)
    await asyncio.sleep(0)
    assert not late.done(), "what was given has not arrived before the next is asked for"
    assert await made.take(ahead) == (["late"], False)
    assert late.done()


async def test_a_reader_can_begin_again_until_pieces_are_dropped() -> None:
    made = stream(passing=True, nbytes=REPLAY_BYTES // 4)
    for piece in range(4):
        await made.put(piece)
    await made.take(0)
    await made.put(4)
    await made.take(3)
    assert await made.take(0) == ([0, 1, 2, 3, 4], False)
    made.end()
    assert await made.take(5) == ([], True)
    with pytest.raises(StreamLost, match="dropped") as lost:
        await made.take(0)
    assert lost.value.id == made.id


async def test_a_broken_stream_stops_its_reader_and_its_maker() -> None:
    made = stream(passing=True)
    await made.put("first")
    reader = Reader(made, no_pause)
    assert await anext(reader) == "first"
    waiting = asyncio.ensure_future(anext(reader))
    await asyncio.sleep(0)
    made.fail("its stage failed")
    with pytest.raises(StreamLost, match="its stage failed"):
        await waiting
    assert reader.lost is not None
    with pytest.raises(Cancelled):
        await made.put("second")


async def test_a_stream_that_has_ended_does_not_break() -> None:
    made = stream(passing=False)
    await made.put("all")
    made.end()
    made.fail("too late")
    assert await read(made) == ["all"]


async def test_the_maker_stops_when_its_only_reader_has_left() -> None:
    made = stream(passing=True)
    for piece in range(WINDOW):
        await made.put(piece)
    late = asyncio.ensure_future(made.put("late"))
    await asyncio.sleep(0)
    await made.leave()
    with pytest.raises(ReaderLeft):
        await late


async def test_others_do_not_stop_when_one_of_several_readers_has_left() -> None:
    made = stream(passing=False)
    await made.put(1)
    await made.leave()
    await made.put(2)
    made.end()
    assert await read(made) == [1, 2]


async def test_a_thread_reads_as_pieces_come_and_stops_when_it_is_closed() -> None:
    made = stream(passing=True)
    seen: list[Any] = []
    has_one = asyncio.Event()
    loop = asyncio.get_running_loop()
    blocking = BlockingReader(Reader(made, no_pause), loop)

    def work() -> None:
        try:
            for piece in blocking:
                seen.append(piece)
                loop.call_soon_threadsafe(has_one.set)
        except BaseException as error:  # noqa: BLE001
            seen.append(type(error).__name__)

    thread = threading.Thread(target=work)
    thread.start()
    await made.put("one")
    await has_one.wait()
    blocking.close()
    await asyncio.to_thread(thread.join)
    assert seen in (["one", "Cancelled"], ["one", "CancelledError"])
