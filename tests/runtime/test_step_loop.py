"""The loop of a replica, without processes: every turn is made by hand."""

from __future__ import annotations

import pytest

from adjoin.errors import EngineError, from_wire
from adjoin.functions.engines.base import (
    Delta,
    EmbedRequest,
    Failed,
    Finished,
    GenerateRequest,
    LoadSpec,
    Output,
)
from adjoin.functions.engines.fake import load
from adjoin.runtime.policies.batching import Limits
from adjoin.runtime.step_loop import StepLoop
from adjoin.types import Sampling, Scalar


class Sink:
    """Takes what the loop delivers."""

    def __init__(self) -> None:
        self.outputs: list[Output] = []
        self.last = False

    def __call__(self, outputs: list[Output], *, last: bool = False) -> None:
        self.outputs += outputs
        self.last = self.last or last

    def of(self, id: str) -> list[str]:
        return [type(output).__name__ for output in self.outputs if output.id == id]


def loop_with(sink: Sink, *, queue: int = 8, **args: Scalar) -> StepLoop:
    engine = load(LoadSpec(model="m", engine="fake", args=args))
    limits = Limits(capacity=engine.capacity, queue=queue)
    return StepLoop(engine, limits, sink, log="the.log")


def generate(id: str, words: str = "a b c", n: int = 1) -> GenerateRequest:
    sampling = Sampling(n=n, temperature=1.0 if n > 1 else 0.0)
    return GenerateRequest(id=id, prompt=words, sampling=sampling)


def test_a_turn_is_one_step() -> None:
    sink = Sink()
    loop = loop_with(sink)
    loop.submit(generate("a"))
    loop.turn()
    assert sink.of("a") == ["Delta"]
    loop.turn()
    loop.turn()
    assert sink.of("a") == ["Delta", "Delta", "Delta", "Finished"]
    assert (loop.running, loop.queued) == (0, 0)


def test_the_backlog_waits_outside_the_engine_and_enters_in_order() -> None:
    sink = Sink()
    loop = loop_with(sink, max_num_seqs=2)
    for id in "abc":
        loop.submit(generate(id, "x y"))
    loop.turn()
    assert (loop.running, loop.queued) == (2, 1)
    assert loop.totals().running == 2
    loop.turn()
    loop.turn()
    assert (loop.running, loop.queued) == (1, 0)
    assert sink.of("c") == ["Delta"]


def test_over_the_bound_a_request_is_refused_at_once() -> None:
    sink = Sink()
    loop = loop_with(sink, queue=2, max_num_seqs=1)
    loop.submit(generate("a"))
    loop.turn()
    for id in ("b", "c", "d"):
        loop.submit(generate(id))
    loop.turn()
    assert sink.of("d") == ["Failed"]
    (refused,) = [output for output in sink.outputs if isinstance(output, Failed)]
    assert refused.error["code"] == "overloaded"


def test_a_waiting_request_is_withdrawn_and_a_running_one_aborted() -> None:
    sink = Sink()
    loop = loop_with(sink, max_num_seqs=1)
    loop.submit(generate("runs"))
    loop.submit(generate("waits"))
    loop.turn()
    loop.abort("runs")
    loop.abort("waits")
    loop.turn()
    assert sink.of("waits") == ["Finished"]
    ends = {output.id: output for output in sink.outputs if isinstance(output, Finished)}
    assert ends["runs"].generations[0].finish_reason == "abort"
    assert ends["runs"].usage.generated == 1
    assert ends["waits"].usage.generated == 0
    assert (loop.running, loop.queued) == (0, 0)


def test_an_abort_that_comes_with_its_request_still_ends_it() -> None:
    sink = Sink()
    loop = loop_with(sink)
    loop.submit(generate("a"))
    loop.abort("a")
    loop.turn()
    assert sink.of("a") == ["Finished"]
    assert loop.running == 0


def test_a_bad_request_fails_alone() -> None:
    sink = Sink()
    loop = loop_with(sink)
    for id, words in (("good", "a"), ("bad", "")):
        loop.submit(generate(id, words))
    loop.turn()
    assert sink.of("bad") == ["Failed"]
    assert sink.of("good") == ["Delta", "Finished"]


def test_when_the_engine_is_lost_all_are_told_why() -> None:
    sink = Sink()
    loop = loop_with(sink, out_of_memory_after=2, max_num_seqs=1)
    for id in ("runs", "waits"):
        loop.submit(generate(id))
    loop.turn()
    loop.submit(EmbedRequest(id="comes", texts=["x"]))
    with pytest.raises(EngineError, match="out of memory"):
        loop.turn()
    assert sink.last
    failed = {output.id: output for output in sink.outputs if isinstance(output, Failed)}
    assert set(failed) == {"runs", "waits", "comes"}
    assert "the.log" in str(from_wire(failed["waits"].error))


def test_deltas_of_a_turn_come_before_its_ends() -> None:
    sink = Sink()
    loop = loop_with(sink)
    loop.submit(generate("a", "one", n=2))
    loop.turn()
    assert [type(output) for output in sink.outputs] == [Delta, Delta, Finished]


LONG = "a prompt that is worth waiting for " * 10


def test_of_equal_prompts_one_is_computed_while_the_others_wait() -> None:
    sink = Sink()
    loop = loop_with(sink)
    for id in "abc":
        loop.submit(generate(id, LONG))
    loop.submit(generate("other", "x y"))
    loop.turn()
    assert (sink.of("a"), sink.of("b"), sink.of("other")) == (["Delta"], [], ["Delta"])
    assert (loop.running, loop.queued) == (2, 2)
    loop.turn()
    assert (sink.of("b"), sink.of("c")) == (["Delta"], ["Delta"])


def test_when_the_first_is_aborted_the_next_computes_the_prompt() -> None:
    sink = Sink()
    loop = loop_with(sink, first_token_s=30.0)
    for id in "ab":
        loop.submit(generate(id, LONG))
    loop.submit(generate("soon", LONG + "!"))
    loop.abort("a")
    loop.abort("soon")
    loop._engine.interrupt()
    loop.turn()
    assert loop.running == 1
    assert sink.of("a") == sink.of("soon") == ["Finished"]
    loop.abort("b")
    loop.turn()
    assert (loop.running, loop.queued) == (0, 0)


def test_samples_enter_as_there_is_room_and_end_as_one_request() -> None:
    sink = Sink()
    loop = loop_with(sink, max_num_seqs=2)
    loop.submit(generate("a", "x y", n=5))
    while not sink.of("a").count("Finished"):
        loop.turn()
        assert loop.running <= 2
    end = sink.outputs[-1]
    assert isinstance(end, Finished)
    assert [each.choice for each in end.generations] == [0, 1, 2, 3, 4]
    assert end.usage.generated == 10


def test_an_abort_ends_all_samples_also_those_that_wait() -> None:
    sink = Sink()
    loop = loop_with(sink, max_num_seqs=2)
    loop.submit(generate("a", "x y z", n=5))
    loop.turn()
    loop.abort("a")
    loop.turn()
    assert sink.of("a").count("Finished") == 1
    assert (loop.running, loop.queued) == (0, 0)
    assert loop.totals().running == 0


def test_when_the_engine_is_lost_a_group_is_told_once() -> None:
    sink = Sink()
    loop = loop_with(sink, out_of_memory_after=2, max_num_seqs=2)
    loop.submit(generate("a", "x y z", n=5))
    loop.turn()
    with pytest.raises(EngineError):
        loop.turn()
    assert [type(output) for output in sink.outputs if output.id == "a"].count(Failed) == 1
    assert {output.id for output in sink.outputs} == {"a"}
