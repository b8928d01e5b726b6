"""Random nested workflows: the interpreter, the simulation and the runtime agree.

The interpreter (``tests/dag/interpreter.py``) says what a workflow means. The simulation drives the
run's state machine through bad weather, with stages evaluated by the interpreter. The runtime is
the real driver and the real executor, in one process: only Dask's comm is replaced by queues.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent.parent / "dag"))

import interpreter
from in_process import InProcessCluster
from random_graphs import call, graphs
from world import Chance, World

from adjoin import Settings
from adjoin.dag import Graph
from adjoin.errors import AdjoinError, Cancelled, StageError
from adjoin.runtime.driver import Driver
from adjoin.types import StageFailed, StageStarted

QUIET = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
#: Only a failing example is shown, and then its size is no surprise.
pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")
#: One crash: a second one under the same stage would be held against the stage, and end the run.
WEATHER = Chance(crashes=1, duplicate=0.3, large=0.5)


def interpreted(graph: Graph, x: int) -> tuple[Any, set[str]] | StageError:
    try:
        return interpreter.run(graph, {"x": x}, call)
    except StageError as error:
        return error


def simulated(graph: Graph, x: int, seed: int, chance: Chance) -> tuple[World, Any]:
    def evaluate(stage: Any, scope: dict[str, Any]) -> Any:
        return interpreter._stage(stage, scope, call, "", set())

    world = World(seed, chance, graph=graph, inputs=graph.check_inputs({"x": x}), evaluate=evaluate)
    end = world.run()
    if end.error is not None:
        return world, end.error
    scope = {"inputs": world.inputs, **world.outputs}
    return world, graph.resolve_outputs(scope)


async def executed(graph: Graph, x: int, cancel_after: int | None = None) -> Any:
    """Outputs, or the error, of the runtime; and the places it executed, None if some failed."""
    driver = Driver(InProcessCluster(), Settings())  # type: ignore[arg-type]
    run = driver.start(graph, {"x": x})
    count = 0
    places: set[str] | None = set()
    async for event in run.stream():
        if isinstance(event.body, StageFailed):
            places = None
        if isinstance(event.body, StageStarted) and places is not None:
            places.add(event.stage)
        count += 1
        if count == cancel_after:
            run.cancel()
    try:
        return await run.done, places
    except AdjoinError as error:
        return error, places


@QUIET
@given(graphs(), st.integers(-5, 50), st.integers(0, 2**32))
def test_the_simulation_agrees_with_the_interpreter(graph: Graph, x: int, seed: int) -> None:
    expected = interpreted(graph, x)
    _, found = simulated(graph, x, seed, WEATHER)
    if isinstance(expected, StageError):
        assert isinstance(found, StageError)
    else:
        assert found == expected[0]


@QUIET
@given(graphs(), st.integers(-5, 50))
async def test_the_runtime_agrees_with_the_interpreter(graph: Graph, x: int) -> None:
    expected = interpreted(graph, x)
    found, _ = await executed(graph, x)
    if isinstance(expected, StageError):
        assert isinstance(found, StageError)
    else:
        assert found == expected[0]


@QUIET
@given(graphs(fragile=False), st.integers(-5, 50))
async def test_the_runtime_executes_the_same_stages(graph: Graph, x: int) -> None:
    """Where nothing fails; where something does, what runs beside it is a matter of time."""
    expected = interpreted(graph, x)
    assume(not isinstance(expected, StageError))
    outputs, wanted = expected  # type: ignore[misc]
    found, places = await executed(graph, x)
    assert found == outputs
    assume(places is not None)
    assert places - _shells(graph) == wanted - _shells(graph)


@QUIET
@given(graphs(), st.integers(-5, 50), st.integers(1, 30))
async def test_a_run_cancelled_anywhere_ends_cancelled_or_done(
    graph: Graph, x: int, after: int
) -> None:
    expected = interpreted(graph, x)
    found, _ = await executed(graph, x, cancel_after=after)
    if isinstance(found, AdjoinError):
        assert isinstance(found, Cancelled | StageError)
        assert isinstance(found, Cancelled) or isinstance(expected, StageError)
    else:
        assert not isinstance(expected, StageError)
        assert found == expected[0]


def _shells(graph: Graph) -> set[str]:
    """Stages that fan out or repeat: the interpreter names only their calls."""
    return {stage.id for stage in graph.stages if stage.each or stage.repeat}


@pytest.mark.parametrize("seed", range(20))
def test_bad_weather_is_bad(seed: int) -> None:
    world = World(seed, WEATHER)
    world.run()
    assert world.history
