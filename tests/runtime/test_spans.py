"""A run's spans, from its events."""

from __future__ import annotations

from typing import TypeAlias

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from adjoin.errors import EngineError, StageError, to_wire
from adjoin.runtime.spans import MOST, Span, spans_of
from adjoin.types import (
    Body,
    Event,
    ModelReady,
    RunCancelled,
    RunCompleted,
    RunFailed,
    RunStarted,
    StageCompleted,
    StageFailed,
    StageSkipped,
    StageStarted,
    Token,
    Tokens,
    Usage,
    Used,
    WorkerLost,
)

STARTED = RunStarted(workflow="rag", version="v1")
BEGUN = StageStarted(worker="w0")
DONE = StageCompleted(worker="w0", usage=Usage())
COMPLETED = RunCompleted(outputs={}, usage=Usage(), seconds=9.0)


News: TypeAlias = tuple[float, str, Body]


def run(*news: News, end: Body = COMPLETED, at: float = 9.0) -> list[Event]:
    everything: list[News] = [(0.0, "", STARTED), *news, (at, "", end)]
    return [
        Event(run="r1", seq=seq, at=at, stage=stage, attempt=1 if stage else 0, body=body)
        for seq, (at, stage, body) in enumerate(everything)
    ]


def named(spans: list[Span], name: str) -> Span:
    (found,) = (span for span in spans if span.name == name)
    return found


def parent(spans: list[Span], name: str) -> str:
    above = named(spans, name).parent
    assert above is not None
    return spans[above].name


def test_a_workflow_has_its_stages_and_they_their_model_calls() -> None:
    usage = Usage(prompt=7, cached=4, generated=3, seconds=2.0)
    spans = spans_of(
        run(
            (1.0, "answer", BEGUN),
            (2.0, "answer", ModelReady(model="small", seconds=0.5)),
            (2.5, "answer", Tokens(tokens=(Token(text="a"),))),
            (3.0, "answer", Tokens(tokens=(Token(text="b"),))),
            (4.0, "answer", Used(model="small", usage=usage)),
            (4.5, "answer", StageCompleted(worker="w0", usage=usage)),
            end=RunCompleted(outputs={"text": "secret"}, usage=usage, seconds=5.0),
            at=5.0,
        ),
        waited=0.25,
    )
    root = spans[0]
    assert (root.name, root.parent, root.start, root.end) == ("invoke_workflow rag", None, -0.25, 5)
    assert root.attributes == {
        "gen_ai.operation.name": "invoke_workflow",
        "gen_ai.workflow.name": "rag",
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.output_tokens": 3,
        "gen_ai.usage.cache_read.input_tokens": 4,
        "adjoin.workflow.version": "v1",
        "adjoin.run": "r1",
        "adjoin.queued_seconds": 0.25,
    }
    stage = named(spans, "stage answer")
    assert (stage.parent, stage.start, stage.end, stage.kind) == (0, 1.0, 4.5, "internal")
    assert stage.attributes["adjoin.worker"] == "w0"
    call = named(spans, "chat small")
    assert (call.start, call.end, call.kind) == (2.0, 4.0, "client")
    assert parent(spans, "chat small") == parent(spans, "wait for small") == "stage answer"
    assert call.attributes["gen_ai.response.time_to_first_chunk"] == 0.5
    assert call.attributes["gen_ai.request.model"] == "small"
    assert call.attributes["gen_ai.usage.input_tokens"] == 7
    assert named(spans, "wait for small").start == 1.5
    assert "secret" not in repr(spans)


def test_each_call_of_a_stage_has_its_own_first_token() -> None:
    def call(at: float) -> tuple[tuple[float, str, Body], tuple[float, str, Body]]:
        used = Used(model="m", usage=Usage(generated=1, seconds=1.0))
        return (at - 0.25, "s", Tokens(tokens=(Token(text="a"),))), (at, "s", used)

    spans = spans_of(run((0.0, "s", BEGUN), *call(2.0), *call(5.0), (6.0, "s", DONE)))
    first = [
        span.attributes["gen_ai.response.time_to_first_chunk"]
        for span in spans
        if span.name == "chat m"
    ]
    assert first == [0.75, 0.75]


def test_embeddings_are_named_so_and_a_mere_wait_is_no_call() -> None:
    spans = spans_of(
        run(
            (1.0, "s", BEGUN),
            (1.5, "s", Used(model="m", usage=Usage(cold_start_seconds=1.0))),
            (2.0, "s", Used(model="m", usage=Usage(embedded=4, seconds=0.5))),
            (2.0, "s", DONE),
        )
    )
    assert [span.name for span in spans[1:]] == ["stage s", "embeddings m"]
    assert spans[2].attributes["gen_ai.usage.input_tokens"] == 4


@pytest.mark.parametrize(
    ("below", "above"),
    [
        ("tree#2/draft", "tree#2"),
        ("tree#2", "tree"),
        ("solve[3]", "solve"),
        ("a[0]/b[1]", "a[0]/b"),
    ],
)
def test_what_runs_inside_a_stage_is_below_it(below: str, above: str) -> None:
    inside: list[News] = [(1.0, above, BEGUN), (2.0, below, BEGUN), (3.0, below, DONE)]
    assert parent(spans_of(run(*inside)), f"stage {below}") == f"stage {above}"


def test_a_part_whose_own_stage_was_not_told_is_below_the_nearest() -> None:
    spans = spans_of(run((1.0, "tree", BEGUN), (2.0, "tree#1/draft", BEGUN), (3.0, "tree", DONE)))
    assert parent(spans, "stage tree#1/draft") == "stage tree"


def test_a_failure_is_told_at_the_attempt_and_at_the_run() -> None:
    error = EngineError("it crashed")
    retried = StageFailed(error=to_wire(error), retry=True)
    failed = StageFailed(error=to_wire(error))
    ended = RunFailed(error=to_wire(StageError.of("r1", "s", 2, error)))
    news = ((1.0, "s", BEGUN), (2.0, "s", retried), (3.0, "s", BEGUN), (4.0, "s", failed))
    spans = spans_of(run(*news, end=ended))
    assert [(span.start, span.end, span.error) for span in spans] == [
        (0.0, 9.0, "engine"),
        (1.0, 2.0, "engine"),
        (3.0, 4.0, "engine"),
    ]
    assert spans[0].attributes["error.type"] == "engine"
    assert spans[2].message == "it crashed"


def test_a_cancelled_run_ends_what_was_open() -> None:
    spans = spans_of(run((1.0, "s", BEGUN), end=RunCancelled(reason="the client left"), at=2.0))
    assert [(span.end, span.error) for span in spans] == [(2.0, "cancelled"), (2.0, "cancelled")]
    assert spans[0].message == "the client left"


def test_a_lost_worker_ends_the_attempts_on_it() -> None:
    lost = WorkerLost(worker="w0", stages=("s",))
    again: list[News] = [(1.0, "s", BEGUN), (2.0, "", lost), (3.0, "s", BEGUN), (4.0, "s", DONE)]
    spans = spans_of(run(*again))
    assert [(span.end, span.error) for span in spans[1:]] == [(2.0, "transport"), (4.0, "")]


def test_a_run_that_never_started_is_one_span() -> None:
    refused = Event(run="r1", seq=0, at=2.0, body=RunCancelled(reason="gone"))
    (span,) = spans_of([refused])
    assert (span.name, span.end, span.error) == ("invoke_workflow", 2.0, "cancelled")


def test_a_trace_is_bounded_and_says_what_it_leaves_out() -> None:
    news = [
        each for i in range(MOST + 10) for each in ((1.0, f"s[{i}]", BEGUN), (2.0, f"s[{i}]", DONE))
    ]
    spans = spans_of(run(*news))
    assert len(spans) == MOST
    assert spans[0].attributes["adjoin.spans_dropped"] == 11


stages = st.sampled_from(["a", "b", "a[0]", "a#1", "a#1/b"])
bodies = st.sampled_from(
    [
        *(BEGUN, DONE, StageSkipped(), StageFailed(error={"code": "input"}, retry=True)),
        *(WorkerLost(worker="w", stages=("a", "b")), ModelReady(model="m", seconds=1.0)),
        Tokens(tokens=(Token(text="a"),)),
        Used(model="m", usage=Usage(generated=1, seconds=3.0)),
    ]
)


@given(st.lists(st.tuples(st.floats(0, 9), stages, bodies), max_size=30))
@example([(1.0, "a", BEGUN), (0.0, "a", Used(model="m", usage=Usage(generated=1, seconds=3.0)))])
def test_whatever_is_told_in_whatever_order_spans_are_sound(
    news: list[tuple[float, str, Body]],
) -> None:
    for index, span in enumerate(spans_of(run(*news))):
        assert span.start <= span.end <= 9.0
        assert span.parent is None if index == 0 else 0 <= (span.parent or 0) < index
