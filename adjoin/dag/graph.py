"""A Graph: an immutable, validated workflow. Made by :func:`adjoin.dag.build.build`."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from adjoin.dag import datatypes as dt
from adjoin.dag.binding import Binding, evaluate, references
from adjoin.dag.demands import neighbours
from adjoin.dag.function import Function
from adjoin.dag.names import INPUTS, suggest
from adjoin.dag.parameter import Parameter
from adjoin.dag.stage import Stage
from adjoin.errors import InputError, NotFound
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
        found = self._dependencies.get(id)
        return self.stage(id).roots if found is None else found  # raises NotFound

    @functools.cached_property
    def _dependencies(self) -> dict[str, frozenset[str]]:
        return {stage.id: stage.roots - {INPUTS} for stage in self.stages}

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

    @functools.cached_property
    def readers(self) -> Mapping[str, frozenset[str]]:
        """The stages that read another one's value while it is being made, by that one's id."""
        found = {
            stage.id: frozenset(
                after for after in self.consumers(stage.id) if self.stage(after).iterates(stage.id)
            )
            for stage in self.stages
            if stage.streams and stage.id not in self.confined
        }
        return {id: readers for id, readers in found.items() if readers}

    def reads(self, id: str, before: str) -> bool:
        """Whether a stage reads the value of the one ``before`` it while that is being made."""
        return id in self.readers.get(before, ())

    @functools.cached_property
    def passing(self) -> frozenset[str]:
        """Ids of the stages whose values nobody needs as a whole: one other stage reads each.

        Such a stage waits for its reader. All others with readers must not: of stages that read
        each other's values in several ways, one could wait for a reader that waits for another.
        Every circle of edges begins at a stage with two consumers, so this suffices.
        """
        return frozenset(
            id
            for id, readers in self.readers.items()
            if len(self.consumers(id)) == 1
            and readers
            and id not in self.output_stages()
            and self.stage(id).function.streams == "items"
        )

    def output_stages(self) -> frozenset[str]:
        """Ids of the stages whose results the outputs take."""
        roots = (ref.root for bound in self.outputs.values() for ref in references(bound))
        return frozenset(roots) - {INPUTS}

    def model_names(self) -> frozenset[str]:
        """Names of all models, those of nested workflows included."""
        return self._models

    @functools.cached_property
    def _models(self) -> frozenset[str]:
        return frozenset[str]().union(*(stage.models for stage in self.stages))

    def collection_names(self) -> frozenset[str]:
        """Names of all collections, those of nested workflows included."""
        return self._collections

    @functools.cached_property
    def _collections(self) -> frozenset[str]:
        return frozenset[str]().union(*(stage.collections for stage in self.stages))

    @functools.cached_property
    def functions(self) -> frozenset[Function]:
        """The functions in Python, built-in or not, those of nested workflows included."""
        used = {stage.function for stage in self.stages}
        own = frozenset(function for function in used if function.graph is None)
        return own.union(*(each.graph.functions for each in used if each.graph is not None))

    @functools.cached_property
    def skippable(self) -> frozenset[str]:
        """Ids of the stages that may be skipped: by a condition, or because others were."""
        found: set[str] = set()
        for stage in self.stages:
            if stage.when is not None or not stage.needed.isdisjoint(found):
                found.add(stage.id)
        return frozenset(found)

    @functools.cached_property
    def confined(self) -> frozenset[str]:
        """Ids of the stages whose values cannot leave the process that made them."""
        return frozenset(stage.id for stage in self.stages if dt.confined(stage.returns))

    @functools.cached_property
    def bound(self) -> Mapping[str, frozenset[str]]:
        """For stages that such a value passes between, all that are to be on one worker for it."""
        links = {id: tuple(self.consumers(id)) if id in self.confined else () for id in self._by_id}
        groups: dict[str, set[str]] = {}
        for id, first in neighbours(links).items():
            groups.setdefault(first, set()).add(id)
        return {id: frozenset(group) for group in groups.values() if len(group) > 1 for id in group}

    @functools.cached_property
    def nested(self) -> Mapping[str, Graph]:
        """The workflows that stages use, and those within them, by name."""
        found: dict[str, Graph] = {}
        for stage in self.stages:
            if (graph := stage.function.graph) is not None:
                found |= {**graph.nested, stage.function.name: graph}
        return found

    @functools.cached_property
    def depth(self) -> int:
        """How many workflows are in each other, this one included."""
        graphs = (stage.function.graph for stage in self.stages)
        return 1 + max((graph.depth for graph in graphs if graph is not None), default=0)

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
            scope: ``{"inputs": {…}}`` and the result of each of :meth:`output_stages`, null for
                one that was skipped.
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
