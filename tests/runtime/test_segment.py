"""When a segment ends: by itself once nothing of it is wanted, or because the driver says so."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from adjoin import Settings, StageContext, function, workflow
from adjoin.dag import Graph
from adjoin.errors import TransportError
from adjoin.runtime import protocol as p
from adjoin.runtime import segment
from adjoin.runtime.execution import _all
from adjoin.runtime.held import find_held
from adjoin.runtime.retries import Retries
from adjoin.runtime.segment import SegmentRun
from adjoin.transport import codec
from adjoin.types import Progress


@function
async def repeated(text: str, times: int) -> str:
    return text * times


@function
async def length(text: str) -> int:
    return len(text)


@workflow
def two(text: str, times: int) -> Any:
    longer = repeated(text, times)
    return length(longer)


GATE, LATE = threading.Event(), threading.Event()


@function
def talkative(context: StageContext, text: str, times: int) -> str:
    context.emit(Progress(label="early", done=1))
    GATE.wait(10)
    context.emit(Progress(label="late", done=2))
    LATE.set()
    return text * times


@workflow
def talks(text: str, times: int) -> Any:
    return talkative(text, times)


MADE: list[weakref.ref[Any]] = []


@function
async def vector(times: int) -> np.ndarray[Any, Any]:
    array = np.zeros(times)
    MADE.append(weakref.ref(array))
    return array


@function
async def stuck(array: np.ndarray[Any, Any]) -> None:
    MADE.append(MADE[0])
    await asyncio.get_running_loop().create_future()


@workflow
def sticks(text: str, times: int) -> Any:
    return stuck(vector(times))


@workflow
def sticks_in_each(text: str, times: int) -> Any:
    return stuck.options(each=2)(vector(times))


class _World:
    name = address = "worker"
    threads: Executor = ThreadPoolExecutor(1)
    retries = Retries()

    def model(self, *_: Any) -> Any:
        raise AssertionError("no models here")

    collection = pull = kept = take = leave = model


def _segment(
    exports: set[str], times: int, graph: Graph = two.graph
) -> tuple[SegmentRun, asyncio.Queue[p.Message]]:
    sent: asyncio.Queue[p.Message] = asyncio.Queue()
    segment = SegmentRun(
        run="run",
        graph=graph,
        attempts=dict.fromkeys((stage.id for stage in graph.stages), 1),
        exports=frozenset(exports),
        inputs={"text": "ab", "times": times},
        world=_World(),
        limits=Settings(inline_bytes=1024),
        send=sent.put_nowait,
    )
    segment.start()
    return segment, sent


async def _until(sent: asyncio.Queue[p.Message], count: int) -> list[str]:
    """The kinds of messages up to the ``count``-th that says that a stage is done."""
    kinds: list[str] = []
    while kinds.count("Done") < count:
        kinds.append(type(await sent.get()).__name__)
    await asyncio.sleep(0)
    return kinds + [type(sent.get_nowait()).__name__ for _ in range(sent.qsize())]


async def test_it_ends_by_itself_when_all_is_done_and_nothing_is_held() -> None:
    segment, sent = _segment({"length"}, times=2)
    assert (await _until(sent, 2))[-1] == "Closed"
    await segment.end()  # the driver's word has crossed with it
    segment.feed(p.Feed(stage="longer", value=p.Ref("x", "y", 1)))
    segment.retry("length", 2)
    await asyncio.sleep(0)
    assert sent.empty()


async def test_it_stays_while_somebody_may_pull_a_value() -> None:
    segment, sent = _segment({"length", "longer"}, times=1000)
    assert "Closed" not in await _until(sent, 2)
    await segment.end()
    await segment.end()
    assert [type(sent.get_nowait()).__name__ for _ in range(sent.qsize())] == ["Closed"]


async def test_a_thread_is_heard_while_it_runs_and_not_after_the_end() -> None:
    """After the end, the connection is the next run's."""
    segment, sent = _segment(set(), times=1, graph=talks.graph)
    said: list[p.Message] = []
    while not any(isinstance(m, p.Happened) and isinstance(m.body, Progress) for m in said):
        said.append(await asyncio.wait_for(sent.get(), 5))
    await segment.end()
    assert isinstance(sent.get_nowait(), p.Closed)
    GATE.set()
    await asyncio.to_thread(LATE.wait, 5)
    await asyncio.sleep(0)
    assert LATE.is_set() and sent.empty()


async def test_messages_say_when_it_happened_however_long_they_linger() -> None:
    began = time.perf_counter()
    _, sent = _segment({"length"}, times=2)
    told: list[p.Message] = []
    while not isinstance(message := await sent.get(), p.Closed):
        told.append(message)
    took = time.perf_counter() - began
    times = [message.at for message in told if isinstance(message, p.Happened | p.Done)]
    assert len(times) == 4
    assert times == sorted(times)
    assert 0 < times[0] < times[-1] < took


async def test_a_reference_is_of_one_run_and_says_nothing() -> None:
    segment, sent = _segment({"length", "longer"}, times=1000)
    (ref,) = [value for value in await _values(sent, 2) if isinstance(value, p.Ref)]
    assert codec.decode(find_held([segment], ref.seen_by("run"))) == "ab" * 1000
    for run in ("other", "", "ru"):
        with pytest.raises(TransportError, match="another run"):
            find_held([segment], ref.seen_by(run))
    for unknown in (ref.id, "longer", "run/longer", "run/", f"run/{ref.id}x", f"run/run/{ref.id}"):
        with pytest.raises(TransportError, match="is gone"):
            find_held([segment], unknown)
    assert len(ref.id) >= 20
    await segment.end()
    with pytest.raises(TransportError, match="is gone"):
        find_held([segment], ref.seen_by("run"))


@pytest.mark.parametrize("flow", [sticks, sticks_in_each])
async def test_what_is_cancelled_lets_go_at_once_and_not_when_garbage_is_collected(
    flow: Any,
) -> None:
    MADE.clear()
    segment, _sent = _segment(set(), times=2, graph=flow.graph)
    gc.disable()
    try:
        while len(MADE) < (2 if flow is sticks else 3):
            await asyncio.sleep(0)
        assert MADE[0]() is not None
        await segment.close()
        del segment
        await asyncio.sleep(0)
        assert MADE[0]() is None
    finally:
        gc.enable()


async def _values(sent: asyncio.Queue[p.Message], count: int) -> list[Any]:
    """What the first stages gave that are done."""
    found: list[Any] = []
    while len(found) < count:
        if isinstance(message := await sent.get(), p.Done):
            found.append(message.value)
    return found


async def test_a_bug_of_ours_fails_the_stage_instead_of_leaving_it_open(monkeypatch: Any) -> None:
    async def broken(*_: Any) -> Any:
        raise RuntimeError("not an error of ours")

    monkeypatch.setattr(segment, "run_stage", broken)
    run, sent = _segment({"length"}, 3)
    run.start()
    while not isinstance(said := await sent.get(), p.Failed):
        pass
    assert (said.stage, "not an error of ours" in said.error["message"]) == ("longer", True)
    await run.close()


async def test_the_first_error_of_several_is_raised_as_it_is() -> None:
    async def fails() -> None:
        raise TransportError("first")

    async def waits() -> None:
        await asyncio.Event().wait()

    with pytest.raises(TransportError, match="first"):
        await _all([waits(), fails(), waits()])
