"""Calls below a stage are tried again within a budget, as stages are."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

import pytest

from adjoin import StageContext, each, function, workflow
from adjoin.errors import EngineError
from adjoin.runtime import execution
from adjoin.runtime.execution import Meter, Task, run_stage
from adjoin.runtime.retries import Retries
from adjoin.types import Body, StageFailed

ELEMENTS = 400


@function
async def breaks(context: StageContext, number: int) -> int:
    raise EngineError("its replica died")


@function
async def breaks_once(context: StageContext, number: int) -> int:
    if context.attempt == 1 and number % 20 == 0:
        raise EngineError("its replica died")
    return number


@workflow
def all_break(numbers: list[int]) -> Any:
    return breaks.options(on_error="collect", attempts=3)(each(numbers))


@workflow
def some_break(numbers: list[int]) -> Any:
    return breaks_once(each(numbers))


class _World:
    name = "worker"

    def __init__(self) -> None:
        self.threads: Executor = ThreadPoolExecutor(1)
        self.retries = Retries()

    def model(self, *_: Any) -> Any:
        raise AssertionError("no models here")

    collection = model


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "delay_before", lambda _: 0.0)


async def _run(world: _World, flow: Any) -> tuple[Any, list[StageFailed]]:
    """What the only stage gives, and its failures."""
    failures: list[StageFailed] = []

    def report(place: str, attempt: int, body: Body) -> None:
        if isinstance(body, StageFailed):
            failures.append(body)

    (stage,) = flow.graph.stages
    task = Task("run", flow.graph, world, 10.0, False, report)
    scope = {"inputs": {"numbers": list(range(ELEMENTS))}}
    return await run_stage(task, stage, scope, 1, Meter()), failures


async def test_where_all_fails_retries_are_a_tenth_and_the_reserve() -> None:
    world = _World()
    values, failures = await _run(world, all_break)
    assert len(values) == ELEMENTS
    assert 100 <= sum(each.retry for each in failures) <= 100 + ELEMENTS / 10
    _, failures = await _run(world, all_break)
    assert sum(each.retry for each in failures) <= ELEMENTS / 10 + 1


async def test_calls_of_all_runs_on_a_worker_share_it() -> None:
    world = _World()
    both = await asyncio.gather(_run(world, all_break), _run(world, all_break))
    retries = sum(each.retry for _, failures in both for each in failures)
    assert retries <= 100 + 2 * ELEMENTS / 10


async def test_as_many_as_fail_now_and_then_are_tried_again_for_ever() -> None:
    world = _World()
    for _ in range(20):
        values, failures = await _run(world, some_break)
        assert values == list(range(ELEMENTS))
        assert [each.retry for each in failures] == [True] * (ELEMENTS // 20)
