"""Graphs as canonical JSON, for other processes and for the version hash.

Functions travel by ref and digest only; the reader supplies them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import msgspec

from adjoin.dag.binding import Binding
from adjoin.dag.build import build
from adjoin.dag.function import Function, Policy
from adjoin.dag.graph import Graph, ModelSpec, Serve, Stage
from adjoin.dag.parameter import Parameter
from adjoin.errors import GraphError

#: Gives the function of a ref whose source has this digest.
Resolve: TypeAlias = Callable[[str, str], Function]


class _WireStage(msgspec.Struct, frozen=True):
    ref: str
    digest: str
    bindings: Mapping[str, Binding]
    policy: Policy = Policy()


class _WireGraph(msgspec.Struct, frozen=True):
    name: str
    inputs: tuple[Parameter, ...]
    stages: Mapping[str, _WireStage]
    outputs: Mapping[str, Binding]
    bare: bool = False
    models: Mapping[str, ModelSpec] = {}
    serve: Serve = Serve()
    description: str = ""


def _wire(graph: Graph) -> _WireGraph:
    return _WireGraph(
        name=graph.name,
        inputs=tuple(sorted(graph.inputs, key=lambda each: each.name)),
        stages={
            stage.id: _WireStage(
                stage.function.ref, stage.function.digest, stage.bindings, stage.policy
            )
            for stage in graph.stages
        },
        outputs=graph.outputs,
        bare=graph.bare,
        models=graph.models,
        serve=graph.serve,
        description=graph.description,
    )


def _canonical(wire: _WireGraph) -> bytes:
    return msgspec.json.encode(wire, order="deterministic")


def to_wire(graph: Graph) -> bytes:
    return _canonical(_wire(graph))


def meaning(graph: Graph) -> bytes:
    """What the version hashes: everything but names, descriptions and serving."""
    wire = _wire(graph)
    inputs = tuple(msgspec.structs.replace(each, description="") for each in wire.inputs)
    return _canonical(
        msgspec.structs.replace(wire, name="", inputs=inputs, serve=Serve(), description="")
    )


def from_wire(data: bytes, resolve: Resolve) -> Graph:
    """The inverse of ``Graph.to_wire``, validated again.

    Raises:
        GraphError: the data is no graph, or a function has another source here.
    """
    try:
        wire = msgspec.json.decode(data, type=_WireGraph)
    except msgspec.MsgspecError as error:
        raise GraphError(f"the data is not a workflow: {error}") from None
    return build(
        wire.name,
        inputs=wire.inputs,
        stages=[
            Stage(id, _function(each, resolve), dict(each.bindings), each.policy)
            for id, each in wire.stages.items()
        ],
        outputs=wire.outputs,
        bare=wire.bare,
        models=wire.models,
        serve=wire.serve,
        description=wire.description,
    )


def _function(stage: _WireStage, resolve: Resolve) -> Function:
    function = resolve(stage.ref, stage.digest)
    if function.digest != stage.digest:
        raise GraphError(
            f"function {stage.ref!r} has another source here than where the workflow was built",
            hint="run the same version of the code on all machines",
        )
    return function
