"""The user's types in the result of a stage: checked where it is made, restored where it arrives.

A fan-out has a list of what its function gives, and a nested workflow what its own stages give.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

from adjoin.dag import Graph, Reference, Stage
from adjoin.dag.names import INPUTS
from adjoin.errors import TransportError
from adjoin.transport import codec

_BARE = "output"


def check(stage: Stage, value: Any) -> None:
    """Refuse a result that would be another one on another worker.

    Raises:
        TransportError: says of which type it is.
    """
    for each in value if stage.each is not None else [value]:
        graph = stage.function.graph
        if graph is None:
            codec.check(each, _annotation(stage))
            continue
        inner = dict(_outputs(graph))
        for name, part in _named(graph, each).items():
            if name in inner:
                check(inner[name], part)
            else:
                codec.check(part, None)


def restore(stage: Stage, value: Any) -> Any:
    """The result of a stage from plain data; that of one that was skipped is None.

    Raises:
        TransportError: it does not fit what the function says that it returns.
    """
    if value is None or stage.each is None:
        return _restored(stage, value)
    return [_element(stage, item, collects=stage.each.on_error == "collect") for item in value]


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
        return codec.restore(value, _annotation(stage))
    named = dict(_named(graph, value))
    for name, inner in _outputs(graph):
        if name in named:
            named[name] = restore(inner, named[name])
    return named if isinstance(value, dict) and not graph.bare else named.get(_BARE, value)


def _named(graph: Graph, value: Any) -> dict[str, Any]:
    return {_BARE: value} if graph.bare or not isinstance(value, dict) else value


def _outputs(graph: Graph) -> Iterator[tuple[str, Stage]]:
    """The outputs of a workflow that are whole results of its stages."""
    for name, bound in graph.outputs.items():
        if isinstance(bound, Reference) and not bound.path and bound.root != INPUTS:
            yield name, graph.stage(bound.root)


def _annotation(stage: Stage) -> Any:
    """What the function says that it returns; None for built-ins."""
    if stage.function.is_builtin or stage.function.call is None:
        return None
    return _returns(stage.function.call)


@functools.lru_cache(maxsize=1024)
def _returns(call: Callable[..., Any]) -> Any:
    try:
        return inspect.get_annotations(call, eval_str=True).get("return")
    except (NameError, TypeError):
        return None
