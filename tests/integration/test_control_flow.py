"""Conditions, fan-outs, loops and nested workflows on a real cluster."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

import adjoin
from adjoin import Runtime, StageError
from adjoin import functions as fn
from adjoin.dag import ModelSpec
from adjoin.types import Event, StageCompleted, StageFailed, StageSkipped, StageStarted, Tokens

FAST = ModelSpec(source="fake:", engine="fake")


@adjoin.function
def split(text: str) -> list[str]:
    return text.split()


@adjoin.function
def shout(word: str) -> str:
    if word == "bad":
        raise ValueError("a bad word")
    return word.upper()


@adjoin.function
def join(words: list[str]) -> str:
    return " ".join(words)


@adjoin.function
def first_of(a: str | None, b: str | None) -> str:
    return a if a is not None else str(b)


@adjoin.function
def grow(text: str, mark: str) -> dict[str, Any]:
    return {"text": text + mark, "size": len(text) + len(mark)}


@adjoin.function
async def after(seconds: float, word: str) -> str:
    await asyncio.sleep(seconds)
    return word


@adjoin.function
def hang(word: str) -> str:
    threading.Event().wait(60)
    return word


@adjoin.workflow
def fan_out(text: str) -> Any:
    words = split(text)
    loud = shout(adjoin.each(words))
    return join(loud)


@adjoin.workflow
def tolerant(text: str) -> Any:
    words = split(text)
    return shout.options(on_error="skip")(adjoin.each(words))


@adjoin.workflow
def collecting(text: str) -> Any:
    words = split(text)
    return shout.options(on_error="collect")(adjoin.each(words))


@adjoin.workflow
def either(text: str) -> Any:
    words = split(text)
    many = join.options(when=adjoin.size(words) > 2)(words)
    few = shout.options(when=adjoin.size(words) <= 2)(text)
    return {"many": many, "few": few, "chosen": first_of(many, few)}


@adjoin.workflow
def growing(start: str) -> Any:
    until = adjoin.until(lambda result: result["size"] >= 4, max=10)
    grown = grow.options(repeat=until)(text=start, mark="x")
    return {"grown": grown}


@adjoin.workflow
def sentence(text: str) -> Any:
    words = split(text)
    return join(shout(adjoin.each(words)))


@adjoin.workflow
def nested(texts: list[str]) -> Any:
    return sentence(text=adjoin.each(texts))


@adjoin.workflow(models={"fast": FAST})
def samples(question: str, n: int = 3) -> Any:
    return fn.generate.options(each=n)(question, model="fast")


@adjoin.workflow
def race(text: str) -> Any:
    slow = after(5.0, text)
    quick = after(0.0, text)
    loud = shout(quick)
    return {"slow": slow, "loud": loud}


def places(events: list[Event], kind: type) -> list[str]:
    return [event.stage for event in events if isinstance(event.body, kind)]


def test_a_fan_out_keeps_the_order(runtime: Runtime) -> None:
    assert runtime.run(fan_out, text="a b c") == "A B C"
    assert runtime.run(fan_out, text="") == "", "an empty list is an empty result"


def test_each_element_is_an_event(runtime: Runtime) -> None:
    events = list(runtime.stream(fan_out, text="a b"))
    assert set(places(events, StageStarted)) == {"words", "loud", "loud[0]", "loud[1]", "join"}
    assert set(places(events, StageCompleted)) == {"words", "loud", "loud[0]", "loud[1]", "join"}


def test_a_failed_element_fails_the_stage_or_is_left_out_or_collected(runtime: Runtime) -> None:
    with pytest.raises(StageError, match=r"loud\[1\].*a bad word"):
        runtime.run(fan_out, text="a bad c")
    assert runtime.run(tolerant, text="a bad c") == ["A", "C"]
    first, second, third = runtime.run(collecting, text="a bad c")
    assert (first, third) == ("A", "C")
    assert second["error"]["code"] == "function"
    assert "a bad word" in second["error"]["message"]


def test_conditions_choose_a_branch_and_the_other_is_null(runtime: Runtime) -> None:
    assert runtime.run(either, text="a b c") == {"many": "a b c", "few": None, "chosen": "a b c"}
    assert runtime.run(either, text="a b") == {"many": None, "few": "A B", "chosen": "A B"}
    events = list(runtime.stream(either, text="a b"))
    assert places(events, StageSkipped) == ["many"]


def test_a_loop_ends_when_its_condition_holds(runtime: Runtime) -> None:
    events = list(runtime.stream(growing, start="a"))
    assert events[-1].body.outputs["grown"] == {"text": "axxx", "size": 4}  # type: ignore[union-attr]
    assert [p for p in places(events, StageCompleted) if "#" in p] == [
        "grown#1",
        "grown#2",
        "grown#3",
    ]
    assert runtime.run(growing, start="")["grown"]["text"] == "xxxx"


def test_a_workflow_is_a_function(runtime: Runtime) -> None:
    assert runtime.run(nested, texts=["a b", "c"]) == ["A B", "C"]
    events = list(runtime.stream(nested, texts=["a b"]))
    assert "sentence[0]/shout[1]" in places(events, StageCompleted)


def test_samples_are_counted_once(runtime: Runtime) -> None:
    events = list(runtime.stream(samples, question="one two", n=3))
    completed = events[-1].body
    assert completed.outputs == {"output": ["one two "] * 3}  # type: ignore[union-attr]
    assert completed.usage.generated == 6  # type: ignore[union-attr]
    assert {e.stage for e in events if isinstance(e.body, Tokens)} == {
        f"generate[{n}]" for n in range(3)
    }


def test_a_fast_branch_never_waits_for_a_slow_sibling(runtime: Runtime) -> None:
    stream = runtime.stream(race, text="a")
    for event in stream:
        if event.stage == "loud" and isinstance(event.body, StageCompleted):
            break
        assert not (event.stage == "slow" and isinstance(event.body, StageCompleted))
    stream.close()


def test_retries_below_a_stage_are_its_policy(runtime: Runtime) -> None:
    @adjoin.workflow
    def stubborn(text: str) -> Any:
        words = split(text)
        return shout.options(attempts=3)(adjoin.each(words))

    events = list(runtime.stream(stubborn, text="a bad"))
    failed = [(e.attempt, e.body.retry) for e in events if isinstance(e.body, StageFailed)]
    assert failed[:3] == [(1, True), (2, True), (3, False)]
    assert [e.stage for e in events if isinstance(e.body, StageFailed)][:3] == ["shout[1]"] * 3
