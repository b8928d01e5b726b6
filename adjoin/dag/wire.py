"""Graphs as canonical JSON, for other processes and for the version hash.

Functions travel by ref and digest only, and the reader supplies them; workflows that are used as
functions travel along, each once, under their digest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import msgspec

from adjoin.dag.binding import Binding
from adjoin.dag.build import build
from adjoin.dag.control import Each, Repeat
from adjoin.dag.function import Function, Policy
from adjoin.dag.graph import Graph, ModelSpec, Serve
from adjoin.dag.nested import MAX_NESTING, PREFIX, as_function
from adjoin.dag.parameter import Parameter
from adjoin.dag.stage import Stage
from adjoin.errors import GraphError

#: Gives the function of a ref whose source has this digest.
Resolve: TypeAlias = Callable[[str, str], Function]


class _WireStage(msgspec.Struct, frozen=True):
    ref: str
    digest: str
    bindings: Mapping[str, Binding]
    policy: Policy = Policy()
    when: Binding | None = None
    each: Each | None = None
    repeat: Repeat | None = None


class _WireGraph(msgspec.Struct, frozen=True):
    name: str
    inputs: tuple[Parameter, ...]
    stages: Mapping[str, _WireStage]
    outputs: Mapping[str, Binding]
    bare: bool = False
    models: Mapping[str, ModelSpec] = {}
    serve: Serve = Serve()
    description: str = ""
    workflows: Mapping[str, _WireGraph] = {}


def _wire(graph: Graph) -> _WireGraph:
    return _WireGraph(
        name=graph.name,
        inputs=tuple(sorted(graph.inputs, key=lambda each: each.name)),
        stages={stage.id: _wire_stage(stage) for stage in graph.stages},
        outputs=graph.outputs,
        bare=graph.bare,
        models=graph.models,
        serve=graph.serve,
        description=graph.description,
    )


def _wire_stage(stage: Stage) -> _WireStage:
    return _WireStage(
        ref=stage.function.ref,
        digest=stage.function.digest,
        bindings=stage.bindings,
        policy=stage.policy,
        when=stage.when,
        each=stage.each,
        repeat=stage.repeat,
    )


def _canonical(wire: _WireGraph) -> bytes:
    return msgspec.json.encode(wire, order="deterministic")


def to_wire(graph: Graph) -> bytes:
    workflows = {nested.version: _wire(nested) for nested in graph.nested.values()}
    return _canonical(msgspec.structs.replace(_wire(graph), workflows=workflows))


def meaning(graph: Graph) -> bytes:
    """What the version hashes: everything but names, descriptions and serving.

    Workflows within it count by their own versions, which are their functions' digests.
    """
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
    return _Reader(wire.workflows, resolve).graph(wire, MAX_NESTING)


class _Reader:
    def __init__(self, workflows: Mapping[str, _WireGraph], resolve: Resolve) -> None:
        self.workflows = workflows
        self.resolve = resolve
        self.read: dict[str, Graph] = {}

    def graph(self, wire: _WireGraph, depth: int) -> Graph:
        if depth == 0:
            raise GraphError(f"workflows are nested more than {MAX_NESTING} levels deep")
        return build(
            wire.name,
            inputs=wire.inputs,
            stages=[self.stage(id, each, depth) for id, each in wire.stages.items()],
            outputs=wire.outputs,
            bare=wire.bare,
            models=wire.models,
            serve=wire.serve,
            description=wire.description,
        )

    def stage(self, id: str, wire: _WireStage, depth: int) -> Stage:
        function = self.function(wire, depth)
        if function.digest != wire.digest:
            raise GraphError(
                f"function {wire.ref!r} has another source here than where the workflow was built",
                hint="run the same version of the code on all machines",
            )
        bindings = dict(wire.bindings)
        return Stage(id, function, bindings, wire.policy, wire.when, wire.each, wire.repeat)

    def function(self, wire: _WireStage, depth: int) -> Function:
        if not wire.ref.startswith(PREFIX):
            return self.resolve(wire.ref, wire.digest)
        if wire.digest not in self.read:
            if wire.digest not in self.workflows:
                raise GraphError(f"the data lacks the workflow {wire.ref!r}")
            self.read[wire.digest] = self.graph(self.workflows[wire.digest], depth - 1)
        return as_function(self.read[wire.digest], wire.ref.removeprefix(PREFIX))
