"""The run's state machine, fact by fact."""

from __future__ import annotations

import pytest

from adjoin.dag import Function, Graph, Parameter, Policy, Reference, Stage, build
from adjoin.dag.annotations import from_annotation
from adjoin.errors import (
    Cancelled,
    EngineError,
    FunctionError,
    InputError,
    StageError,
    TransportError,
)
from adjoin.runtime import moves as m
from adjoin.runtime.policies.placement import Plan, Segment
from adjoin.runtime.policies.retry import INFRASTRUCTURE_ATTEMPTS, delay_before, may_retry
from adjoin.runtime.protocol import Ref
from adjoin.runtime.run import RunState
from adjoin.transport.codec import encode
from adjoin.types import (
    StageCompleted,
    StageFailed,
    StageStarted,
    StageWarning,
    Token,
    Tokens,
    Usage,
    WorkerLost,
)

ONE = encode(1)


def graph(attempts: int = 1) -> Graph:
    """a → b → c, with c the output."""
    source = Function("source", "source")
    taker = Function("taker", "taker", (Parameter("x"),))
    policy = Policy(attempts=attempts)
    stages = [
        Stage("a", source, {}, policy),
        Stage("b", taker, {"x": Reference("a")}, policy),
        Stage("c", taker, {"x": Reference("b")}, policy),
    ]
    return build("abc", inputs=(), stages=stages, outputs={"out": Reference("c")})


def plan(*segments: tuple[str, str]) -> m.Planned:
    made = tuple(Segment(worker, tuple(stages)) for worker, stages in segments)
    return m.Planned(Plan(version="v", epoch=1, segments=made, edges=(), reasons={}))


def begun(*segments: tuple[str, str], attempts: int = 1, streaming: bool = False) -> RunState:
    state = RunState("run", graph(attempts), streaming=streaming)
    assert state.begin() == [m.MakePlan(frozenset("abc"))]
    state.apply(plan(*segments))
    return state


def without_events(commands: list[m.Command]) -> list[m.Command]:
    return [command for command in commands if not isinstance(command, m.Emit | m.Announce)]


def test_one_segment_is_opened_once_and_exports_only_the_output() -> None:
    state = RunState("run", graph())
    state.begin()
    planned = plan(("w", "abc"))
    commands = state.apply(planned)
    assert commands == [  # in this order: nothing of the segment waits for the announcement
        m.OpenSegment(0, "w", {"a": 1, "b": 1, "c": 1}, ("c",)),
        m.Announce(planned.plan),
    ]


def test_an_event_is_of_when_it_happened_not_of_when_the_driver_heard_of_it() -> None:
    state = begun(("w", "abc"))
    (seen,) = state.apply(m.Seen(0, "a", 1, StageStarted(worker="w"), at=1.5))
    (done,) = state.apply(m.Finished(0, "a", 1, Usage(), at=2.5))
    assert isinstance(seen, m.Emit) and isinstance(done, m.Emit)
    assert (seen.at, done.at) == (1.5, 2.5)


def test_a_segment_opens_when_its_first_stage_can_start_and_is_fed() -> None:
    state = begun(("w", "a"), ("v", "bc"))
    commands = state.apply(m.Finished(0, "a", 1, Usage(), ONE))
    assert commands == [
        m.Emit(StageCompleted(worker="w", usage=Usage()), "a", 1),
        m.OpenSegment(1, "v", {"b": 1, "c": 1}, ("c",)),
        m.FeedSegment(1, "a", ONE),
    ]


def test_a_stage_warns_once_of_a_line_also_when_many_calls_of_it_do() -> None:
    state = begun(("w", "abc"), attempts=2)
    one, two = (StageWarning(what="w", where=f"f.py:{n}", why="y", hint="h") for n in (1, 2))
    assert state.apply(m.Seen(0, "a", 1, one, "a[0]", 1)) == [m.Emit(one, "a[0]", 1, None)]
    assert state.apply(m.Seen(0, "a", 1, one, "a[1]", 1)) == []
    assert state.apply(m.Seen(0, "a", 1, two, "a[1]", 1)) == [m.Emit(two, "a[1]", 1, None)]
    state.apply(m.Broke(0, "a", 1, FunctionError("x")))
    assert state.apply(m.Seen(0, "a", 2, one)) == []


def test_the_run_ends_when_the_outputs_are_collected() -> None:
    state = begun(("w", "abc"))
    for stage in "ab":
        state.apply(m.Finished(0, stage, 1, Usage(generated=1)))
    commands = state.apply(m.Finished(0, "c", 1, Usage(generated=1), ONE))
    assert without_events(commands) == [m.Collect({"c": ONE})]
    commands = state.apply(m.Collected())
    assert commands == [m.CloseSegment(0), m.End(None, Usage(generated=3))]
    assert state.ended
    assert state.apply(m.Collected()) == []


def test_news_of_an_older_attempt_is_void() -> None:
    state = begun(("w", "abc"), attempts=2)
    state.apply(m.Broke(0, "a", 1, FunctionError("x")))
    assert state.apply(m.Finished(0, "a", 1, Usage(), ONE)) == []
    assert state.apply(m.Seen(0, "a", 1, Tokens(tokens=()))) == []
    assert state.apply(m.Finished(0, "a", 2, Usage(), ONE)) != []
    assert state.apply(m.Finished(0, "a", 2, Usage(), ONE)) == [], "recorded once"


def test_a_failure_is_retried_in_its_segment_after_a_delay() -> None:
    state = begun(("w", "abc"), attempts=2)
    failed, retry = state.apply(m.Broke(0, "a", 1, FunctionError("x")))
    assert isinstance(failed, m.Emit)
    assert isinstance(failed.body, StageFailed)
    assert failed.body.retry
    assert retry == m.RetryStage(0, "a", 2, delay_before(2))
    *_, end = state.apply(m.Broke(0, "a", 2, FunctionError("x")))
    assert isinstance(end, m.End)
    assert isinstance(end.error, StageError)
    assert end.error.details["attempt"] == 2


def test_a_lost_segment_is_placed_again_with_the_results_it_took_along() -> None:
    state = begun(("w", "abc"))
    state.apply(m.Finished(0, "a", 1, Usage(generated=5)))
    commands = state.apply(m.SegmentLost(0))
    assert commands == [
        m.CloseSegment(0),
        m.Emit(WorkerLost(worker="w", stages=("b", "c"))),
        m.MakePlan(frozenset("abc")),
    ]
    commands = without_events(state.apply(plan(("v", "abc"))))
    assert commands[-1] == m.OpenSegment(1, "v", {"a": 2, "b": 2, "c": 2}, ("c",))


def test_a_recorded_result_survives_its_worker() -> None:
    state = begun(("w", "a"), ("v", "bc"))
    state.apply(m.Finished(0, "a", 1, Usage(), ONE))
    assert m.MakePlan not in [type(c) for c in state.apply(m.SegmentLost(0))]
    commands = state.apply(m.SegmentLost(1))
    assert commands[-1] == m.MakePlan(frozenset("bc"))


def test_a_reference_dies_with_its_worker_and_is_made_again_when_needed() -> None:
    ref = Ref("id", "w", 10)
    state = begun(("w", "a"), ("v", "bc"))
    state.apply(m.Finished(0, "a", 1, Usage(), ref))
    commands = state.apply(m.SegmentLost(0))
    assert commands[-1] == m.MakePlan(frozenset("a"))
    state.apply(plan(("u", "a")))
    commands = state.apply(m.Finished(2, "a", 2, Usage(), ONE))
    assert m.FeedSegment(1, "a", ONE) in commands


def test_an_output_that_cannot_be_fetched_is_made_again() -> None:
    ref = Ref("id", "w", 10)
    state = begun(("w", "abc"))
    for stage in "ab":
        state.apply(m.Finished(0, stage, 1, Usage()))
    state.apply(m.Finished(0, "c", 1, Usage(), ref))
    assert state.apply(m.ValueLost("c", "another")) == []
    # a and b never left their segment, so c cannot be made again without them
    assert state.apply(m.ValueLost("c", "id")) == [m.MakePlan(frozenset("abc"))]
    assert state.apply(m.Collected()) == [], "not any more"


def test_a_stage_under_which_two_workers_died_is_held_to_be_why() -> None:
    state = begun(("w", "abc"))
    state.apply(m.SegmentLost(0))
    state.apply(plan(("w1", "abc")))
    *_, end = state.apply(m.SegmentLost(1))
    assert isinstance(end, m.End)
    assert isinstance(end.error, StageError)
    assert end.error.details["stage"] == "a"  # b and c had nothing to begin with
    assert "as 2 were while it ran" in str(end.error)


def test_a_worker_that_was_gone_already_is_no_attempt() -> None:
    state = begun(("w", "abc"))
    for miss in range(INFRASTRUCTURE_ATTEMPTS + 1):
        *_, command = state.apply(m.SegmentLost(miss, reached=False))
        assert isinstance(command, m.MakePlan)
        assert command.delay > 0
        state.apply(plan(("w", "abc")))
    assert not state.ended


def test_after_tokens_were_streamed_nothing_is_started_over() -> None:
    for fact in (m.Broke(0, "a", 1, EngineError("died")), m.SegmentLost(0)):
        state = begun(("w", "abc"), streaming=True)
        state.apply(m.Seen(0, "a", 1, Tokens(tokens=(Token("x"),))))
        *_, end = state.apply(fact)
        assert isinstance(end, m.End)
        assert isinstance(end.error, StageError)


def test_stopping_closes_what_is_open() -> None:
    state = begun(("w", "a"), ("v", "bc"))
    error = Cancelled("by the caller")
    assert state.apply(m.Stop(error)) == [m.CloseSegment(0), m.End(error, Usage())]


@pytest.mark.parametrize(
    ("error", "attempt", "attempts", "tokens", "expected"),
    [
        (FunctionError("x"), 1, 1, False, False),
        (FunctionError("x"), 1, 2, False, True),
        (FunctionError("x"), 2, 2, False, False),
        (EngineError("x"), 1, 1, False, True),
        (EngineError("x"), 3, 1, False, False),
        (EngineError("x"), 3, 5, False, True),
        (EngineError("x"), 1, 5, True, False),
        (TransportError("x"), 2, 1, False, True),
        (InputError("x"), 1, 5, False, False),
    ],
)
def test_what_is_tried_again(
    error: Exception, attempt: int, attempts: int, tokens: bool, expected: bool
) -> None:
    assert may_retry(error, attempt, attempts, tokens_seen=tokens) is expected  # type: ignore[arg-type]


def test_delays_grow_and_are_bounded() -> None:
    delays = [delay_before(attempt) for attempt in range(2, 20)]
    assert delays == sorted(delays)
    assert delays[0] > 0
    assert delays[-1] <= 2


class _Connection:
    """Of which no value can travel."""


def tied() -> Graph:
    """link → said with a value that stays in its process; said also takes what far gives."""
    policy = Policy()
    link = Function("link", "link", returns=from_annotation(_Connection))
    taker = Function("taker", "taker", (Parameter("x"), Parameter("y")))
    both = {"x": Reference("link"), "y": Reference("far")}
    stages = [
        Stage("link", link, {}, policy),
        Stage("far", Function("source", "source"), {}, policy),
        Stage("said", taker, both, policy.demanding(colocate="link")),
    ]
    return build("tied", inputs=(), stages=stages, outputs={"out": Reference("said")})


KEPT = Ref("k", "w", 8, kept=True)


def waiting_for_far() -> RunState:
    """``link`` is done on w, and ``said`` placed or open in another segment of w."""
    state = RunState("run", tied())
    state.begin()
    made = [("w", ("link",)), ("v", ("far",)), ("w", ("said",))]
    segments = tuple(Segment(worker, stages) for worker, stages in made)
    state.apply(m.Planned(Plan(version="v", epoch=1, segments=segments, edges=(), reasons={})))
    state.apply(m.Finished(0, "link", 1, Usage(), KEPT))
    return state


def plans(commands: list[m.Command]) -> list[frozenset[str]]:
    return [command.stages for command in commands if isinstance(command, m.MakePlan)]


def test_a_stage_that_waits_goes_where_the_value_that_ties_it_is_made_again() -> None:
    assert plans(waiting_for_far().apply(m.SegmentLost(0, reached=True))) == [{"link", "said"}]


def test_a_lost_stage_takes_the_value_along_that_ties_it() -> None:
    state = waiting_for_far()
    opened = state.apply(m.Finished(1, "far", 1, Usage(), ONE))
    assert m.FeedSegment(2, "link", KEPT) in opened
    assert plans(state.apply(m.SegmentLost(2, reached=True))) == [{"link", "said"}]
    # what is over and not tied stays as it is
    assert plans(state.apply(m.SegmentLost(0, reached=True))) == []


def test_nothing_goes_along_when_the_tied_stage_is_over() -> None:
    state = waiting_for_far()
    state.apply(m.Finished(1, "far", 1, Usage(), ONE))
    state.apply(m.Finished(2, "said", 1, Usage(), ONE))
    assert plans(state.apply(m.SegmentLost(0, reached=True))) == []
