"""Placement is a pure function: what it must keep, over random graphs and clusters."""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

import pytest

from adjoin.dag import Function, Graph, Literal, Needs, Parameter, Policy, Reference, Stage, build
from adjoin.runtime.policies.placement import Topology, Worker, owner_of, place

sys.path.insert(0, str(Path(__file__).parent.parent / "simulation"))

from world import random_graph


def cluster(count: int, **collections: str) -> Topology:
    return Topology(
        epoch=1,
        workers=tuple(
            Worker(
                name=f"w{n}",
                address=f"tcp://{n}",
                host="h",
                collections=frozenset(c for c, holder in collections.items() if holder == f"w{n}"),
            )
            for n in range(count)
        ),
    )


@pytest.mark.parametrize("seed", range(300))
def test_every_stage_is_placed_once_and_segments_never_wait_for_each_other(seed: int) -> None:
    rng = random.Random(seed)
    graph = random_graph(rng)
    topology = cluster(rng.randint(1, 4))
    plan = place(graph, topology)
    placed = [stage for segment in plan.segments for stage in segment.stages]
    assert sorted(placed) == sorted(stage.id for stage in graph.stages)
    number = {s: n for n, segment in enumerate(plan.segments) for s in segment.stages}
    after: dict[int, set[int]] = {n: set() for n in range(len(plan.segments))}
    for stage in graph.stages:
        for before in graph.dependencies(stage.id):
            if number[before] != number[stage.id]:
                after[number[stage.id]].add(number[before])
    done: set[int] = set()
    while len(done) < len(after):
        ready = {n for n, needs in after.items() if n not in done and needs <= done}
        assert ready, "segments wait for each other"
        done |= ready
    for edge in plan.edges:
        together = plan.placement[edge.source] == plan.placement[edge.target]
        assert edge.transport == ("local" if together else "shm")
    for stage in graph.stages:
        if stage.collection:
            assert plan.placement[stage.id] == owner_of(stage.collection, topology.workers).name
    assert place(graph, topology) == plan, "the same graph and cluster give the same plan"


def _graph(*stages: tuple[str, list[str], str | None]) -> Graph:
    def one(name: str, inputs: list[str], collection: str | None) -> Stage:
        names = [*inputs, *(["collection"] if collection else [])]
        needs = Needs(collection="collection" if collection else None)
        function = Function(name, name, tuple(Parameter(each) for each in names), needs=needs)
        bindings = {each: Reference(each) for each in inputs}
        if collection:
            return Stage(name, function, {**bindings, "collection": Literal(collection)}, Policy())
        return Stage(name, function, bindings, Policy())

    made = [one(*stage) for stage in stages]
    return build("g", inputs=(), stages=made, outputs={"out": Reference(made[-1].id)})


def test_neighbours_follow_the_collection() -> None:
    graph = _graph(("embed", [], None), ("find", ["embed"], "c"), ("answer", ["find"], None))
    for holder in ("w0", "w1", "w2"):
        plan = place(graph, cluster(3, c=holder))
        assert set(plan.placement.values()) == {holder}
        assert len(plan.segments) == 1
        assert plan.reasons == {
            "embed": "next to 'find'",
            "find": "collection 'c' is there",
            "answer": "next to 'find'",
        }


def test_a_way_back_to_the_same_worker_is_another_segment() -> None:
    graph = _graph(("a", [], "x"), ("b", ["a"], "y"), ("c", ["b"], "x"))
    plan = place(graph, cluster(2, x="w0", y="w1"))
    assert [(s.worker, s.stages) for s in plan.segments] == [
        ("w0", ("a",)),
        ("w1", ("b",)),
        ("w0", ("c",)),
    ]


def test_only_pending_stages_are_placed_again() -> None:
    graph = _graph(("embed", [], None), ("find", ["embed"], "c"), ("answer", ["find"], None))
    plan = place(graph, cluster(2), {"answer"})
    assert list(plan.placement) == ["answer"]
    assert plan.edges == ()


def test_losing_a_worker_moves_only_what_it_held() -> None:
    workers = cluster(5).workers
    names = [f"collection-{n}" for n in range(200)]
    before = {name: owner_of(name, workers).name for name in names}
    after = {name: owner_of(name, workers[1:]).name for name in names}
    moved = {name for name in names if before[name] != after[name]}
    assert moved == {name for name in names if before[name] == "w0"}
    assert len(set(before.values())) == 5


def test_a_thousand_stages_are_placed_in_a_moment() -> None:
    stages = [("s0", [], None), *((f"s{n}", [f"s{n - 1}"], None) for n in range(1, 1000))]
    graph = _graph(*stages)
    began = time.process_time()
    place(graph, cluster(100))
    assert time.process_time() - began < 5
