"""The user's types in results that come as plain data, by what the functions' annotations say.

A fan-out has a list of what its function gives, and a nested workflow what its own stages give.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

from adjoin.dag import Graph, Reference, Stage
from adjoin.dag.annotations import iteration
from adjoin.dag.names import INPUTS
from adjoin.errors import TransportError
from adjoin.transport import codec


def restore(stage: Stage, value: Any) -> Any:
    """The result of a stage; that of one that was skipped is None.

    Raises:
        TransportError: it does not fit what the function says that it returns.
    """
    if stage.each is None or not isinstance(value, list):
        return _restored(stage, value)
    collects = stage.each.on_error == "collect"
    return [_element(stage, item, collects=collects) for item in value]


def _element(stage: Stage, value: Any, *, collects: bool) -> Any:
    try:
        return _restored(stage, value)
    except TransportError:
        if collects and isinstance(value, dict):
            return value  # the error of an element, in its place
        raise


def _restored(stage: Stage, value: Any) -> Any:
    graph = stage.function.graph
    if value is None:
        return None
    if graph is None:
        return codec.restore(value, return_annotation(stage))
    named = {"output": value} if graph.bare else dict(value)
    for name, inner in _outputs(graph):
        if name in named:  # not so in the error of an element
            named[name] = restore(inner, named[name])
    return named["output"] if graph.bare else named


def _outputs(graph: Graph) -> Iterator[tuple[str, Stage]]:
    """The outputs of a workflow that are whole results of its stages."""
    for name, bound in graph.outputs.items():
        if isinstance(bound, Reference) and not bound.path and bound.root != INPUTS:
            yield name, graph.stage(bound.root)


def return_annotation(stage: Stage) -> Any:
    """The annotation of what a stage's function returns; None for built-ins."""
    if stage.function.is_builtin or stage.function.call is None:
        return None
    return _returns(stage.function.call)


@functools.lru_cache(maxsize=1024)
def _returns(call: Callable[..., Any]) -> Any:
    try:
        annotation = inspect.get_annotations(call, eval_str=True).get("return")
    except (NameError, TypeError):
        return None
    found = iteration(annotation)
    return annotation if found is None else found.whole
