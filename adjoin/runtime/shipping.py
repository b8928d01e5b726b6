"""How a graph with its functions and models gets from a driver to an agent."""

from __future__ import annotations

import functools

import cloudpickle

from adjoin.dag import Function, Graph, ModelSpec, from_wire
from adjoin.errors import NotFound
from adjoin.functions import BUILTINS
from adjoin.runtime import protocol as p


@functools.lru_cache(maxsize=256)
def definition(graph: Graph) -> p.Define:
    """A graph as an agent gets it, with the user's functions pickled by a trusted client."""
    functions = {function.ref: cloudpickle.dumps(function) for function in graph.functions}
    return p.Define(graph=graph.to_wire(), functions=functions)


def read_graph(defined: p.Define) -> Graph:
    """A graph with its functions: built-in ones from here, the user's as their client sent them.

    Unpickling is what Dask itself does with all that a client sends: a cluster is one trust domain.
    """

    def resolve(ref: str, digest: str) -> Function:
        if ref in defined.functions:
            function: Function = cloudpickle.loads(defined.functions[ref])
            return function
        if ref in BUILTINS:
            return BUILTINS[ref]
        raise NotFound(f"function {ref!r} is not known to this worker")

    return from_wire(defined.graph, resolve)


def spec_of(name: str, graph: Graph | None = None) -> ModelSpec:
    """What a model name means: the workflow's own declaration, or the store's name."""
    if graph is not None and name in graph.models:
        return graph.models[name]
    return ModelSpec(source=name)
