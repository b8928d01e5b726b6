"""Workflows that are used as functions, by their graphs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from adjoin.dag import datatypes as dt
from adjoin.dag.edges import output_types
from adjoin.dag.function import Function
from adjoin.dag.graph import Graph, ModelSpec
from adjoin.dag.names import check_name
from adjoin.dag.stage import Stage
from adjoin.errors import GraphError

MAX_NESTING = 16
PREFIX = "workflow:"


def as_function(graph: Graph, name: str = "") -> Function:
    """The function that a stage uses to run a workflow: its inputs in, its outputs out."""
    name = check_name(name or graph.name, "a workflow")
    outputs = output_types(
        graph.outputs,
        {parameter.name: parameter.type for parameter in graph.inputs},
        {stage.id: stage.returns for stage in graph.stages},
        graph.skippable,
    )
    return Function(
        name=name,
        ref=f"{PREFIX}{name}",
        parameters=graph.inputs,
        returns=outputs["output"] if graph.bare else dt.record(outputs),
        digest=graph.version,
        description=graph.description,
        graph=graph,
    )


def merged_models(own: Mapping[str, ModelSpec], stages: Iterable[Stage]) -> dict[str, ModelSpec]:
    """The models that a workflow declares, and those that the workflows within it do.

    Raises:
        GraphError: one name is declared in two ways.
    """
    found = dict(own)
    for stage in stages:
        if (graph := stage.function.graph) is None:
            continue
        for name, spec in graph.models.items():
            if found.setdefault(name, spec) != spec:
                raise GraphError(
                    f"the workflow {stage.function.name!r} declares the model {name!r} in another "
                    "way",
                    hint="declare it once, or under two names",
                    stage=stage.id,
                )
    return found


def check_nested(graph: Graph) -> None:
    """Raise :class:`GraphError` when workflows are nested too deeply or share a name."""
    if graph.depth > MAX_NESTING:
        raise GraphError(f"workflows are nested more than {MAX_NESTING} levels deep")
    versions: dict[str, str] = {}
    for stage in graph.stages:
        if (inner := stage.function.graph) is None:
            continue
        for name, found in {**inner.nested, stage.function.name: inner}.items():
            if versions.setdefault(name, found.version) != found.version:
                raise GraphError(
                    f"two workflows are called {name!r}", hint="rename one", stage=stage.id
                )
        for each in inner.stages:
            if apart := sorted({other.id for other in inner.stages} & {*each.policy.avoid}):
                raise GraphError(
                    f"stage {stage.id!r} runs the workflow {stage.function.name!r} in one place, "
                    f"where {each.id!r} cannot avoid {apart[0]!r}",
                    hint="use these stages in the outer workflow",
                    stage=stage.id,
                )
