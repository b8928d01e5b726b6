"""From stages in any order to a validated Graph. Both Python and YAML end here.

Errors name the stage in ``details["stage"]`` and, where one is to blame, the argument in
``details["argument"]``, the construct in ``details["construct"]`` or the output in
``details["output"]``, so that each front end can add the line number.
"""

from __future__ import annotations

import graphlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TypeVar

import msgspec

from adjoin.dag import datatypes as dt
from adjoin.dag.annotations import Template, is_writable
from adjoin.dag.binding import Binding, Literal, references
from adjoin.dag.demands import check_neighbours
from adjoin.dag.edges import Edges
from adjoin.dag.function import Function
from adjoin.dag.graph import Graph, ModelSpec, Serve
from adjoin.dag.names import INPUTS, check_name, check_stage_id, suggest
from adjoin.dag.nested import check_nested, merged_models
from adjoin.dag.parameter import Parameter
from adjoin.dag.stage import Stage
from adjoin.errors import GraphError

MAX_STAGES = 10_000
_T = TypeVar("_T")


def build(
    name: str,
    *,
    inputs: Iterable[Parameter],
    stages: Iterable[Stage],
    outputs: Mapping[str, Binding],
    bare: bool = False,
    models: Mapping[str, ModelSpec] | None = None,
    serve: Serve | None = None,
    description: str = "",
) -> Graph:
    """Check everything and put the stages in order.

    Raises:
        GraphError: the workflow is wrong; says at which stage.
    """
    check_name(name, "a workflow")
    inputs = tuple(map(_check_input, inputs))
    found: dict[str, Stage] = {}
    for stage in stages:
        if stage.id in found:
            raise GraphError(f"two stages are called {stage.id!r}", stage=stage.id)
        found[check_stage_id(stage.id)] = _complete(stage)
        if len(found) > MAX_STAGES:
            raise GraphError(f"a workflow has at most {MAX_STAGES} stages")
    if not found:
        raise GraphError(f"workflow {name!r} has no stages", hint="use at least one function")
    for output in outputs:
        check_name(output, "an output", output=output)
    models = _converted(dict(models or {}), dict[str, ModelSpec], "models")
    serve = _converted(serve or Serve(), Serve, "serve")
    for stage in found.values():
        check_neighbours(stage.id, stage.policy.colocate, stage.policy.avoid, found)
    edges = Edges(inputs, found, outputs)
    edges.check_references()
    graph = Graph(
        name=name,
        inputs=inputs,
        stages=_ordered(found),
        outputs=dict(outputs),
        bare=bare,
        models=merged_models(models, found.values()),
        serve=serve,
        description=description,
    )
    _check_used(graph.stages, outputs)
    edges.check_types(graph.skippable)
    edges.check_carried()
    check_nested(graph)
    return graph


def _converted(value: _T, to: type[_T], what: str) -> _T:
    """The value with its fields' types checked, and numbers in the form that YAML gives them."""
    try:
        return msgspec.convert(msgspec.to_builtins(value), to)
    except (msgspec.ValidationError, TypeError) as error:
        raise GraphError(f"{what}: {error}") from None


def _check_input(parameter: Parameter) -> Parameter:
    check_name(parameter.name, "an input")
    if not is_writable(parameter.type):
        raise GraphError(
            f"input {parameter.name!r} is {parameter.type}, which callers cannot write",
            hint="take plain inputs and make it in a function",
        )
    return parameter


# --- arguments --------------------------------------------------------------------------------


def signature(function: Function) -> str:
    """How a function is called, for people to read."""
    shown = [
        f"{each.name}: {each.type}" + ("" if each.required else " (optional)")
        for each in function.parameters
    ]
    return ", ".join([*shown, "…"] if function.extra else shown) or "nothing"


def _complete(stage: Stage) -> Stage:
    """The stage with its templates captured, after a look at which arguments there are."""
    function = stage.function
    known = {parameter.name: parameter for parameter in function.parameters}
    for name in stage.bindings:
        if name not in known and not function.extra:
            raise GraphError(
                f"stage {stage.id!r}: {function.name!r} takes no argument {name[:80]!r}",
                hint=suggest(name, known),
                stage=stage.id,
                argument=name,
                misnamed=True,
            )
    missing = [name for name in known if known[name].required and name not in stage.bindings]
    if missing:
        raise GraphError(
            f"stage {stage.id!r}: {function.name!r} needs {', '.join(map(repr, missing))}",
            hint=f"it takes {signature(function)}",
            stage=stage.id,
        )
    bindings = {
        name: _as_template(bound, known.get(name)) for name, bound in stage.bindings.items()
    }
    complete = replace(stage, bindings=bindings)
    for need in (function.needs.model, function.needs.collection):
        if need in bindings and not _is_name(bindings[need]):
            raise GraphError(
                f"stage {stage.id!r}: argument {need!r} must be a plain name",
                hint="what a stage works with is known before it runs; write the name itself",
                stage=stage.id,
                argument=need,
            )
    return complete


def _as_template(bound: Binding, parameter: Parameter | None) -> Binding:
    """A constant text given for a template is one."""
    wanted = parameter is not None and dt.accepts(parameter.type, "template")
    if wanted and isinstance(bound, Literal) and isinstance(bound.value, str):
        return Template(bound.value)
    return bound


def _is_name(bound: Binding) -> bool:
    if not isinstance(bound, Literal):
        return False
    return bound.value is None or (isinstance(bound.value, str) and bound.value != "")


# --- order --------------------------------------------------------------------------------------


def _ordered(stages: Mapping[str, Stage]) -> tuple[Stage, ...]:
    """Topological order, by level and name: the same however the stages were written down."""
    sorter = graphlib.TopologicalSorter(
        {id: stage.roots - {INPUTS} for id, stage in stages.items()}
    )
    try:
        sorter.prepare()
    except graphlib.CycleError as error:
        cycle = error.args[1]
        shown = cycle if len(cycle) <= 12 else [*cycle[:11], "…", cycle[-1]]
        raise GraphError(
            f"the stages {' → '.join(shown)} wait for each other",
            hint="remove one of these references",
            stage=cycle[0],
        ) from None
    found: list[Stage] = []
    while sorter.is_active():
        level = sorted(sorter.get_ready())
        found.extend(stages[id] for id in level)
        sorter.done(*level)
    return tuple(found)


def _check_used(ordered: tuple[Stage, ...], outputs: Mapping[str, Binding]) -> None:
    used = {ref.root for bound in outputs.values() for ref in references(bound)}
    for stage in reversed(ordered):
        if stage.id in used:
            used |= stage.roots
    for stage in ordered:
        if stage.id not in used:
            raise GraphError(
                f"nothing uses the result of stage {stage.id!r}",
                hint="pass it on, make it an output, or remove the stage",
                stage=stage.id,
            )
