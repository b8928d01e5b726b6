"""What workflows mean, by the interpreter that defines it."""

from __future__ import annotations

from typing import Any

from hypothesis import event, given, settings
from hypothesis import strategies as st
from interpreter import run
from random_graphs import REGISTRY, call, graphs, resolve

from adjoin import dag
from adjoin.dag import Graph
from adjoin.errors import StageError


def outcome(graph: Graph, x: int) -> Any:
    try:
        return run(graph, {"x": x}, call)
    except StageError as error:
        return str(error)


@settings(deadline=None, max_examples=150)
@given(graphs(), st.integers(0, 30))
def test_a_workflow_means_the_same_however_it_travels(graph: Graph, x: int) -> None:
    text, data = graph.to_yaml(), graph.to_wire()
    loaded = dag.load_yaml(text, registry=REGISTRY)
    received = dag.from_wire(data, resolve)
    assert loaded == received == graph
    assert loaded.version == received.version == graph.version
    assert loaded.to_yaml() == text and received.to_wire() == data
    found = outcome(graph, x)
    event("fails" if isinstance(found, str) else "succeeds")
    assert outcome(graph, x) == outcome(loaded, x) == outcome(received, x) == found


@settings(deadline=None, max_examples=100)
@given(graphs(fragile=False), st.integers(0, 30))
def test_a_stage_is_skipped_or_executed(graph: Graph, x: int) -> None:
    found = outcome(graph, x)
    if isinstance(found, str):  # a text with null in a list, a negative count
        return
    outputs, executed = found
    starts = {path.split("/")[0].split("[")[0].split("#")[0] for path in executed}
    for stage in graph.stages:
        if stage.id not in graph.skippable and stage.each is None:
            assert stage.id in starts
    assert isinstance(outputs["x"], int) and isinstance(outputs["done"], bool)
