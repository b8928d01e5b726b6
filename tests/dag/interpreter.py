"""What a workflow means, in the fewest lines: one stage after the other, on plain Python calls.

The runtime, and its simulation, must give the same outputs and execute the same stages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from adjoin.dag import Function, Graph, Stage
from adjoin.errors import AdjoinError, StageError, wrap

#: Computes a function of one callable.
Call: TypeAlias = Callable[[Function, dict[str, Any]], Any]


def run(graph: Graph, inputs: Mapping[str, Any], call: Call) -> tuple[Any, set[str]]:
    """The outputs, and what was executed: ``solve[0]#2/draft`` is the stage ``draft`` of the
    workflow that element 0 of ``solve`` runs in its second iteration.

    Raises:
        StageError: a stage failed, and with it the run.
    """
    executed: set[str] = set()
    return _graph(graph, inputs, call, "", executed), executed


def _graph(
    graph: Graph, inputs: Mapping[str, Any], call: Call, path: str, executed: set[str]
) -> Any:
    scope: dict[str, Any] = {"inputs": graph.check_inputs(inputs)}
    skipped: set[str] = set()
    for stage in graph.stages:
        try:
            runs = not stage.skipped_by(frozenset(skipped)) and stage.should_run(scope)
            scope[stage.id] = _stage(stage, scope, call, path, executed) if runs else None
        except AdjoinError as error:
            raise StageError.of("", path + stage.id, 1, error) from error
        if not runs:
            skipped.add(stage.id)
    return graph.resolve_outputs(scope)


def _stage(stage: Stage, scope: dict[str, Any], call: Call, path: str, executed: set[str]) -> Any:
    elements = stage.elements(scope)
    if elements is None:
        return _repeated(stage, scope, call, path + stage.id, executed)
    outcomes: list[Any] = []
    for index, names in enumerate(elements):
        place = f"{path}{stage.id}[{index}]"
        try:
            outcomes.append(_repeated(stage, {**scope, **names}, call, place, executed))
        except AdjoinError as error:
            outcomes.append(error)
            stage.gather(outcomes)  # where it fails the stage, later elements do not run
    return stage.gather(outcomes)


def _repeated(
    stage: Stage, scope: Mapping[str, Any], call: Call, path: str, executed: set[str]
) -> Any:
    arguments, iteration = stage.arguments(scope), 1
    while True:
        place = path if stage.repeat is None else f"{path}#{iteration}"
        result = _call(stage.function, arguments, call, place, executed)
        if stage.finished(scope, result, iteration):
            return result
        arguments, iteration = stage.next_arguments(arguments, result), iteration + 1


def _call(
    function: Function, arguments: dict[str, Any], call: Call, path: str, executed: set[str]
) -> Any:
    executed.add(path)
    if function.graph is not None:
        return _graph(function.graph, arguments, call, f"{path}/", executed)
    try:
        return call(function, arguments)
    except Exception as error:
        raise wrap(error) from error
