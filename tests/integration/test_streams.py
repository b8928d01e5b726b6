"""Stages that read each other's values while these are being made, in one worker and two."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import stream_flows as flows

from adjoin import Runtime, Settings
from adjoin.errors import Cancelled
from adjoin.transport.stream import WINDOW
from adjoin.types import Event, Progress, StageCompleted, Tokens

apart = pytest.mark.parametrize("apart", [False, True], ids=["together", "apart"])


def done(event: Event, label: str) -> int:
    body = event.body
    return body.done if isinstance(body, Progress) and body.label == label else 0


def test_what_follows_a_generation_starts_before_that_ends(runtime: Runtime) -> None:
    events = list(runtime.stream(flows.spoken, question="one two three"))
    order = [
        "token" if isinstance(event.body, Tokens) else event.stage
        for event in events
        if isinstance(event.body, Tokens)
        or done(event, "louder") == 1
        or (isinstance(event.body, StageCompleted) and event.stage == "answer")
    ]
    assert order.index("answer") - order.index("louder") > 20, "tokens came after the first output"
    outputs = events[-1].body.outputs  # type: ignore[union-attr]
    assert outputs["loud"] == outputs["answer"].upper().split()
    assert len(outputs["loud"]) == 30


@apart
@pytest.mark.parametrize("size", [2, 50_000], ids=["small", "large"])
def test_pieces_arrive_whole_and_in_order(runtime: Runtime, apart: bool, size: int) -> None:
    result = runtime.run(flows.flow(apart), n=150, size=size)
    assert result == {"sums": [n * size for n in range(150)], "largest": 149 * size}


def test_pieces_arrive_over_the_comm(settings: Settings) -> None:
    with Runtime(settings=settings.model_copy(update={"shared_bytes": 0})) as runtime:
        result = runtime.run(flows.flow(True), n=50, size=50_000)
    assert result["sums"] == [n * 50_000 for n in range(50)]


@apart
def test_pieces_cannot_be_changed(runtime: Runtime, apart: bool) -> None:
    assert runtime.run(flows.reading(flows.is_writable, apart), n=3, size=10_000) is False


@apart
def test_a_maker_does_not_run_ahead_of_its_reader(
    runtime: Runtime, apart: bool, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    flow = flows.reading(flows.gated, apart, gate=str(gate))
    ahead = 0
    released = False
    for event in runtime.stream(flow, n=300, size=4):
        if not released:
            ahead = max(ahead, done(event, "made"))
        if done(event, "made") == WINDOW:
            os.close(os.open(gate, os.O_WRONLY))
        released |= done(event, "released") == 1
    assert event.body.outputs == {"output": 300}  # type: ignore[union-attr]
    # Where the reader had taken some before it stopped, these are made again.
    assert WINDOW <= ahead <= 2 * WINDOW + 1


@apart
@pytest.mark.parametrize("producer", [flows.endless, flows.endless_too], ids=["thread", "loop"])
def test_a_maker_stops_when_its_reader_has_enough(
    runtime: Runtime, producer: object, apart: bool, tmp_path: Path
) -> None:
    closed = tmp_path / "closed"
    flow = flows.leaving(producer, apart, str(closed))
    assert runtime.run(flow, count=3) == [1, 2, 3]
    assert closed.read_text() == "closed"


@apart
def test_a_cancelled_run_stops_makers_and_readers(
    runtime: Runtime, apart: bool, tmp_path: Path
) -> None:
    closed = tmp_path / "closed"
    os.mkfifo(closed)
    run = runtime.submit(flows.counting(apart, str(closed)))
    for event in run.events():
        if done(event, "counted") > 300:
            run.cancel()
    with pytest.raises(Cancelled):
        run.result()
    with closed.open() as reader:  # blocks until the maker's own clean-up writes
        assert reader.read() == "closed"


@apart
def test_a_reader_that_failed_begins_again(runtime: Runtime, apart: bool, tmp_path: Path) -> None:
    result = runtime.run(flows.failing(apart), n=500, marker=str(tmp_path / "marker"))
    assert result == list(range(500))


def test_a_reader_that_failed_after_pieces_were_dropped_has_them_made_again(
    runtime: Runtime, tmp_path: Path
) -> None:
    flow = flows.reading(flows.breaks_late, True, marker=str(tmp_path / "marker"))
    assert runtime.run(flow, n=100, size=50_000) == 100


def test_a_stage_that_needs_all_of_a_value_may_read_another_one_of_it(runtime: Runtime) -> None:
    assert runtime.run(flows.diamond, n=1000) == 3 * sum(range(1000))


def test_fan_outs_and_nested_workflows_see_whole_values(runtime: Runtime) -> None:
    assert runtime.run(flows.nested, sizes=[3, 0, 2]) == [[0, 2, 4], [], [0, 2]]
