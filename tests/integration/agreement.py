"""Random workflows on a cluster, their stages placed at random: what they give stays the same.

The workflows are those of the property tests (``tests/dag/random_graphs.py``), and the interpreter
says what each of them means. A stage is kept on a worker by having it avoid all others.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
from distributed import Client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent.parent / "dag"))

import interpreter
from random_graphs import call, graphs

from adjoin import Runtime
from adjoin.dag import Graph, Stage
from adjoin.errors import StageError
from adjoin.types import RunFailed, StageCompleted


def agree(runtime: Runtime, workers: Sequence[str], examples: int) -> dict[str, int]:
    """Check so many workflows; returns how often what happened.

    Raises:
        AssertionError: outputs differ from the interpreter's, or a stage was not where it should.
    """
    _teach(runtime.status()["scheduler"])
    seen = dict.fromkeys(("runs", "failed", "spread", "shm", "remote"), 0)

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(graphs(), st.integers(-5, 50), st.randoms(use_true_random=False))
    def check(graph: Graph, x: int, rng: Any) -> None:
        places = {stage.id: rng.choice(workers) for stage in graph.stages}
        pinned = pin(graph, places, workers)
        found, where = _executed(runtime, pinned, x)
        assert where.items() <= places.items()
        try:
            expected = interpreter.run(graph, {"x": x}, call)[0]
        except StageError:
            expected = None
            seen["failed"] += 1
        assert found == expected
        transports = {edge.transport for edge in runtime.explain(pinned).plan.edges}
        seen["runs"] += 1
        seen["spread"] += len(set(where.values())) > 1
        seen["shm"] += "shm" in transports
        seen["remote"] += "remote" in transports

    check()
    return seen


def pin(graph: Graph, places: Mapping[str, str], workers: Sequence[str]) -> Graph:
    """The workflow with each stage kept where it should be."""

    def kept(stage: Stage) -> Stage:
        others = tuple(name for name in workers if name != places[stage.id])
        return replace(stage, policy=msgspec.structs.replace(stage.policy, avoid=others))

    return replace(graph, stages=tuple(map(kept, graph.stages)))


def _executed(runtime: Runtime, graph: Graph, x: int) -> tuple[Any, dict[str, str]]:
    """The outputs, None of a run that failed, and the worker of each stage that completed."""
    stages = {stage.id for stage in graph.stages}
    where: dict[str, str] = {}
    found: Any = None
    for event in runtime.stream(graph, x=x):
        match event.body:
            case StageCompleted(worker=worker) if event.stage in stages:
                where[event.stage] = worker
            case RunFailed(error=error):
                assert error["code"] == "stage", error
                return None, where
            case _:
                found = event.body
    return found.outputs, where


def _teach(scheduler: str) -> None:
    """Make the workflows' functions known to the workers, as if they were built in."""
    with Client(scheduler, set_as_default=False) as client:
        client.run(_learn, str(Path(__file__).parent.parent / "dag"))


def _learn(folder: str) -> None:
    from adjoin.functions import BUILTINS
    from adjoin.runtime import shipping

    sys.path.insert(0, folder)
    import random_graphs

    vars(shipping)["BUILTINS"] = {**BUILTINS, **random_graphs.REGISTRY}
