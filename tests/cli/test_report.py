"""The table of a run with fan-outs, loops and skipped stages."""

from __future__ import annotations

from typing import Any

import adjoin
from adjoin import functions as fn
from adjoin.cli.report import RunReport
from adjoin.dag import Graph
from adjoin.types import (
    Event,
    RunPlanned,
    StageCompleted,
    StageFailed,
    StageSkipped,
    StageStarted,
    Usage,
)


@adjoin.function
def solve(part: int) -> int:
    return part


@adjoin.workflow
def answer(question: str) -> Any:
    prompt = fn.prompt("{{ q }}", q=question)
    return fn.generate.options(id="text")(prompt, model="m")


@adjoin.workflow
def grow(n: int) -> Any:
    texts = answer(question=adjoin.each(["a", "b"]))
    return {"n": n, "texts": texts}


@adjoin.workflow
def loop(n: int = 3) -> Any:
    until = adjoin.until(lambda result: result.n > 5, max=2)
    return grow.options(id="grown", repeat=until)(n)


@adjoin.workflow
def fan_out(n: int = 3) -> Any:
    solved = solve.options(on_error="skip")(adjoin.each(n))
    other = solve.options(when=adjoin.size(solved) > 5)(1)
    return {"solved": solved, "other": other}


def story(*told: tuple[str, Any, float], graph: Graph = fan_out.graph) -> RunReport:
    report = RunReport(graph)
    for seq, (place, body, at) in enumerate(told):
        report.add(Event(run="r", seq=seq, at=at, stage=place, attempt=1, body=body))
    return report


def test_calls_below_a_stage_are_one_row() -> None:
    started = StageStarted(worker="w")
    done = StageCompleted(worker="w", usage=Usage(generated=5))
    report = story(
        ("", RunPlanned(placement={"solved": "w"}, predicted={"solved": 2.25}, seconds=3.0), 0.0),
        ("solved", started, 0.0),
        ("solved[0]", started, 0.5),
        ("solved[1]", started, 1.0),
        ("solved[2]", started, 1.0),
        ("solved[1]", done, 2.0),
        ("solved[2]", StageFailed(error={}), 2.5),
        ("solved[0]", done, 3.0),
        ("solved", StageCompleted(worker="w", usage=Usage(generated=10)), 3.5),
        ("other", StageSkipped(), 4.0),
    )
    solved, calls, other, total = report.rows()
    assert solved[:6] == ("solved", "solve", "", "w", "2.250", "3.500")
    assert calls[:6] == ("  solved[*] x3, 1 failed", "", "", "w", "", "2.500")
    assert calls[8] == solved[8] == "10"
    assert other[4] == ""
    assert total[4:6] == ("3.000", "4.000")
    assert other[3] == "(skipped)"
    (found,) = report.to_dict()["calls"]
    assert (found["calls"], found["count"], found["failed"]) == ("solved[*]", 3, 1)


def test_calls_of_nested_workflows_are_under_their_stage() -> None:
    started = StageStarted(worker="w")
    report = story(
        ("solved[0]#1/draft[4]", started, 0.0),
        ("solved[1]#2/draft[7]", started, 0.0),
    )
    assert [row[0] for row in report.rows()][:2] == ["solved", "  solved[*]#*/draft[*] x2"]


def test_calls_stand_below_those_they_are_part_of_with_function_and_model() -> None:
    started = StageStarted(worker="w")
    places = ["grown", "grown#1", "grown#1/texts", "grown#1/texts[0]", "grown#1/texts[1]"]
    places += ["grown#1/texts[1]/text", "grown#2", "grown#2/texts[0]/prompt"]
    report = story(*((place, started, 0.0) for place in places), graph=loop.graph)
    assert [row[:3] for row in report.rows()[:-1]] == [
        ("grown", "grow", ""),
        ("  grown#* x2", "", ""),
        ("    texts x1", "answer", ""),
        ("      texts[*] x2", "answer", ""),
        ("        text x1", "generate", "m"),
        ("        prompt x1", "prompt", ""),
    ]


def test_seconds_of_calls_are_those_in_which_one_ran() -> None:
    started, done = StageStarted(worker="w"), StageCompleted(worker="w", usage=Usage())
    report = story(
        ("solved[0]", started, 0.0),
        ("solved[1]", started, 1.0),
        ("solved[0]", done, 2.0),
        ("solved[1]", StageFailed(error={}, retry=True), 3.0),
        ("solved[1]", started, 10.0),
        ("solved[1]", done, 10.5),
    )
    assert report.calls["solved[*]"].seconds == 3.5
