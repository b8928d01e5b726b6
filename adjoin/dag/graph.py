"""A Graph: an immutable, validated workflow. Made by :func:`adjoin.dag.build.build`."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from adjoin.dag.binding import Binding, Literal, evaluate, references
from adjoin.dag.datatypes import DataType
from adjoin.dag.function import Function, Policy
from adjoin.dag.names import INPUTS, suggest
from adjoin.dag.parameter import Parameter
from adjoin.errors import DefinitionError, GraphError, InputError, NotFound
from adjoin.types import Scalar


class ModelSpec(msgspec.Struct, frozen=True):
    """A model under a name of the workflow's own.

    Attributes:
        source: what the model store resolves: a known name, ``org/name[@revision]``, a path.
        engine: which engine runs it; ``auto`` leaves that to the runtime.
        args: passed to the engine in its own spelling.
    """

    source: str
    engine: str = "auto"
    args: Mapping[str, Scalar] = {}


class Scale(msgspec.Struct, frozen=True):
    """How many replicas may run; ``idle_after`` in seconds."""

    min: int = 0
    max: int = 1
    idle_after: float | None = None


class Objective(msgspec.Struct, frozen=True):
    """What service is promised, in seconds: time to first token, time between tokens."""

    ttft: float | None = None
    itl: float | None = None


class Serve(msgspec.Struct, frozen=True):
    """How the workflow is to be served; no part of what it means."""

    scale: Scale = Scale()
    concurrency: int | None = None
    queue: int | None = None
    slo: Objective = Objective()


@dataclass(frozen=True)
class Stage:
    """One use of a function. Conditions, fan-out and loops are attributes to come of a stage."""

    id: str
    function: Function
    bindings: Mapping[str, Binding]
    policy: Policy

    @property
    def model(self) -> str | None:
        """The model that the stage works with."""
        return self._named(self.function.needs.model)

    @property
    def collection(self) -> str | None:
        """The collection that the stage works with."""
        return self._named(self.function.needs.collection)

    def _named(self, parameter: str | None) -> str | None:
        if parameter is None:
            return None
        bound = self.bindings.get(parameter)
        if bound is None and (found := self.function.parameter(parameter)) is not None:
            bound = found.default
        return bound.value if isinstance(bound, Literal) else None

    @functools.cached_property
    def returns(self) -> DataType:
        """The type of its result.

        Raises:
            GraphError: arguments that it depends on are wrong.
        """
        if self.function.result is None:
            return self.function.returns
        try:
            return self.function.result(self.bindings)
        except DefinitionError as error:
            where = f"stage {self.id!r}, {error.where}" if error.where else f"stage {self.id!r}"
            message = f"{where}: {error.message}"
            raise GraphError(message, hint=error.hint, stage=self.id) from None

    @functools.cached_property
    def roots(self) -> frozenset[str]:
        """What the bindings refer to: ``inputs`` and stages."""
        found = (ref.root for bound in self.bindings.values() for ref in references(bound))
        return frozenset(found)

    def arguments(self, scope: Mapping[str, Any]) -> dict[str, Any]:
        """The keyword arguments of the function, evaluated and within its bounds.

        Raises:
            InputError: a path does not exist, or a value is out of bounds.
        """
        values = {name: evaluate(bound, scope) for name, bound in self.bindings.items()}
        for parameter in self.function.parameters:
            if parameter.name in values:
                reason = parameter.bounds.broken_by(values[parameter.name])
                if reason:
                    raise InputError(reason, where=f"argument {parameter.name!r}")
        return values


@dataclass(frozen=True, eq=False, repr=False)
class Graph:
    """An immutable, validated workflow. Two graphs are equal when their whole content is.

    Attributes:
        stages: in an order in which each stage follows those that it depends on.
        outputs: by name; a workflow that returns a single bare value calls it ``output``.
        bare: whether a run returns that single value instead of a dict.
        models: by the workflow's own names for them.
    """

    name: str
    inputs: tuple[Parameter, ...]
    stages: tuple[Stage, ...]
    outputs: Mapping[str, Binding]
    bare: bool = False
    models: Mapping[str, ModelSpec] = field(default_factory=dict)
    serve: Serve = field(default_factory=Serve)
    description: str = ""

    @functools.cached_property
    def version(self) -> str:
        """sha256, hexadecimal, of all that determines what a run returns.

        That is inputs, stages with their functions' sources, templates and policies, outputs and
        models; neither the order in which they are written nor descriptions and serving.
        """
        from adjoin.dag.wire import meaning

        return hashlib.sha256(meaning(self)).hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Graph) and self.to_wire() == other.to_wire()

    def __hash__(self) -> int:
        return hash(self.version)

    def __repr__(self) -> str:
        return f"<Graph {self.name} {self.version[:12]}: {len(self.stages)} stages>"

    @functools.cached_property
    def _by_id(self) -> dict[str, Stage]:
        return {stage.id: stage for stage in self.stages}

    def stage(self, id: str) -> Stage:
        """The stage of that id; raises :class:`NotFound` when there is none."""
        try:
            return self._by_id[id]
        except KeyError:
            raise NotFound(
                f"workflow {self.name!r} has no stage {id!r}", hint=suggest(id, self._by_id)
            ) from None

    def dependencies(self, id: str) -> frozenset[str]:
        """Ids of the stages whose results this one takes."""
        return self.stage(id).roots - {INPUTS}

    def consumers(self, id: str) -> frozenset[str]:
        """Ids of the stages that take this one's result."""
        self.stage(id)
        return self._consumers.get(id, frozenset())

    @functools.cached_property
    def _consumers(self) -> dict[str, frozenset[str]]:
        found: dict[str, set[str]] = {}
        for stage in self.stages:
            for root in stage.roots:
                found.setdefault(root, set()).add(stage.id)
        return {id: frozenset(takers) for id, takers in found.items()}

    def output_stages(self) -> frozenset[str]:
        """Ids of the stages whose results the outputs take."""
        roots = (ref.root for bound in self.outputs.values() for ref in references(bound))
        return frozenset(roots) - {INPUTS}

    def model_names(self) -> frozenset[str]:
        return frozenset(stage.model for stage in self.stages if stage.model is not None)

    def collection_names(self) -> frozenset[str]:
        return frozenset(stage.collection for stage in self.stages if stage.collection is not None)

    def check_inputs(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The inputs of a run, complete, typed and within bounds.

        Raises:
            InputError: one is unknown, missing or does not fit; names it.
        """
        known = {parameter.name: parameter for parameter in self.inputs}
        for name in values:
            if name not in known:
                raise InputError(
                    f"workflow {self.name!r} has no input {name!r}", hint=suggest(name, known)
                )
        found = {}
        for name, parameter in known.items():
            if name in values:
                found[name] = parameter.check(values[name])
            elif parameter.default is not None:
                # the default was checked when the graph was built; its JSON form still converts
                found[name] = parameter.check(parameter.default.value)
            else:
                raise InputError(
                    f"workflow {self.name!r} needs the input {name!r}",
                    hint=f"give a value of type {parameter.type}",
                )
        return found

    def resolve_outputs(self, scope: Mapping[str, Any]) -> Any:
        """What a run returns: a dict by name, or the bare value.

        Args:
            scope: ``{"inputs": {…}}`` and the result of each of :meth:`output_stages`.
        """
        found = {name: evaluate(bound, scope) for name, bound in self.outputs.items()}
        return found["output"] if self.bare else found

    def to_yaml(self) -> str:
        """The workflow as YAML that needs no other file; loading it gives an equal graph."""
        from adjoin.dag.yaml_dump import to_yaml

        return to_yaml(self)

    @staticmethod
    def from_yaml(text: str, **options: Any) -> Graph:
        """The graph of a YAML text; takes what :func:`adjoin.dag.yaml_load.load_yaml` takes."""
        from adjoin.dag.yaml_load import load_yaml

        return load_yaml(text, **options)

    def to_mermaid(self) -> str:
        """The workflow as a Mermaid flowchart."""
        from adjoin.dag.mermaid import to_mermaid

        return to_mermaid(self)

    def to_svg(self) -> str:
        """The workflow as an SVG picture that stands alone."""
        from adjoin.dag.svg import to_svg

        return to_svg(self)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return f'<div style="max-width:100%;overflow:auto">{self.to_svg()}</div>'

    def to_wire(self) -> bytes:
        """Canonical JSON; functions go by ref and digest."""
        from adjoin.dag.wire import to_wire

        return to_wire(self)
