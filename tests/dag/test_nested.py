from __future__ import annotations

from typing import Any

import pytest
from control_library import (
    MERGE,
    REGISTRY,
    SEARCH,
    TOLD,
    WEB,
    executed,
    step,
)
from dag_library import REGISTRY as LIBRARY

import adjoin
from adjoin import dag
from adjoin.errors import GraphError


def test_a_workflow_in_a_workflow_is_one_stage() -> None:
    @dag.workflow
    def outer(q: str) -> Any:
        one = step(q)
        return {"first": one.thoughts[0], "again": step(q, thoughts=one.thoughts)}

    stage = outer.graph.stage("one")
    assert stage.function.ref == "workflow:step" and stage.function.graph == step.graph
    assert str(stage.function.returns) == "{thoughts: list[string], done: boolean}"
    assert stage.model is None and outer.graph.depth == 2
    outputs, done = executed(outer.graph, q="q")
    assert outputs == {"first": "q", "again": {"thoughts": ["q", "q"], "done": False}}
    assert done == {"one", "one/thoughts", "step", "step/thoughts"}


def test_what_nested_workflows_work_with_is_known() -> None:
    retrieve, embed, generate = (LIBRARY[name] for name in ("retrieve", "embed", "generate"))

    @dag.workflow(models={"small": "smollm2-135m"})
    def inner(q: str) -> Any:
        return retrieve(embed(q, model="small"), collection="handbook")

    @dag.workflow(models={"large": "big"})
    def outer(q: str) -> Any:
        return [inner(q), generate(q, model="large")]

    @dag.workflow(models={"small": "other"})
    def conflicting(q: str) -> Any:
        return inner(q)

    graph = outer.graph
    assert graph.model_names() == {"small", "large"} and graph.collection_names() == {"handbook"}
    assert graph.stage("inner").collections == {"handbook"}
    assert graph.stage("inner").collection is None
    assert set(graph.models) == {"small", "large"}
    with pytest.raises(GraphError, match="declares the model 'small' in another way"):
        _ = conflicting.graph


def test_an_output_that_may_be_skipped_may_be_null() -> None:
    @dag.workflow
    def maybe(q: str) -> Any:
        return WEB.options(when=q == "web")(q)

    @dag.workflow
    def takes(q: str) -> Any:
        return MERGE(SEARCH(q), maybe(q))

    @dag.workflow
    def needs(q: str) -> Any:
        return MERGE(maybe(q))

    assert str(maybe.function.returns) == "list[Passage] | null"
    assert len(executed(takes.graph, q="web")[0]) == 2
    assert len(executed(takes.graph, q="x")[0]) == 1
    with pytest.raises(GraphError, match=r"takes list\[Passage\], but stage 'maybe' gives"):
        _ = needs.graph


def test_the_version_covers_nested_workflows() -> None:
    def made(text: str, limit: int) -> str:
        @dag.workflow
        def inner(q: str) -> Any:
            return TOLD(q, text)

        @dag.workflow
        def outer(q: str) -> Any:
            until = adjoin.until(lambda result: result == "x", max=limit, carry="q")
            return inner.options(repeat=until)(q)

        return outer.graph.version

    assert made("a", 2) == made("a", 2)
    assert len({made("a", 2), made("b", 2), made("a", 3)}) == 3


def test_two_workflows_of_one_name_are_refused() -> None:
    def inner(text: str) -> dag.Workflow:
        @dag.workflow
        def same(q: str) -> Any:
            return TOLD(q, text)

        return same

    one, two = inner("a"), inner("b")

    @dag.workflow
    def outer(q: str) -> Any:
        return [one(q), two(q)]

    with pytest.raises(GraphError, match="two workflows are called 'same'"):
        _ = outer.graph


def nested(depth: int) -> dag.Workflow:
    inner: Any = TOLD if depth == 1 else nested(depth - 1)

    @dag.workflow(name=f"w{depth}")
    def outer(q: str) -> Any:
        return [inner(q), inner(q)]

    return outer


def test_nesting_is_bounded_and_wide_nesting_is_quick() -> None:
    graph = nested(16).graph
    assert graph.depth == 16 and len(graph.nested) == 15 and graph.functions == {TOLD}
    assert dag.from_wire(graph.to_wire(), lambda ref, _: REGISTRY[ref]) == graph
    assert dag.load_yaml(graph.to_yaml(), registry=REGISTRY) == graph
    assert len(graph.to_svg()) < 200_000 and len(graph.to_mermaid()) < 50_000
    with pytest.raises(GraphError, match="more than 16 levels"):
        _ = nested(17).graph


def test_data_cannot_nest_without_end() -> None:
    graph = nested(2).graph
    digest = graph.stage("w1").function.digest
    looped = graph.to_wire().replace(TOLD.digest.encode(), digest.encode())
    looped = looped.replace(b'"ref":"told"', b'"ref":"workflow:told"')
    with pytest.raises(GraphError, match="levels deep"):
        dag.from_wire(looped, lambda ref, _: REGISTRY[ref])
    with pytest.raises(GraphError, match="lacks the workflow"):
        dag.from_wire(
            graph.to_wire().replace(f'"{digest}":{{'.encode(), b'"x":{'),
            lambda ref, _: REGISTRY[ref],
        )
