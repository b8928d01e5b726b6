"""What a picture of a graph shows: boxes for inputs, stages and outputs, and labelled arrows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from adjoin.dag import datatypes as dt
from adjoin.dag.binding import Binding, Expression, Reference, references, type_of_binding
from adjoin.dag.datatypes import DataType
from adjoin.dag.graph import Graph
from adjoin.dag.names import INPUTS
from adjoin.dag.stage import Stage
from adjoin.dag.text import write
from adjoin.errors import GraphError

Kind = Literal["input", "output", "model", "collection", "user", "plain", "workflow"]


@dataclass(frozen=True)
class Box:
    """One box.

    Attributes:
        key: unique in the diagram and those within it; letters, digits and underscores.
        notes: what constructs of the stage say.
        conditional: whether the stage may be skipped.
        many: whether it fans out.
        fill: its colour, ``#rrggbb``, instead of its kind's.
        inner: of a nested workflow, where it is shown; each workflow is shown once.
    """

    key: str
    kind: Kind
    title: str
    subtitle: str = ""
    notes: tuple[str, ...] = ()
    conditional: bool = False
    many: bool = False
    inner: Diagram | None = None
    fill: str = ""


@dataclass(frozen=True)
class Arrow:
    source: str
    target: str
    label: str = ""
    #: Whether the target takes it for its condition only.
    conditional: bool = False


@dataclass(frozen=True)
class Diagram:
    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...]


def diagram(graph: Graph) -> Diagram:
    """The boxes from inputs to outputs, and one arrow for each pair that is connected."""
    return _diagram(graph, "", {})


def _diagram(graph: Graph, prefix: str, shown: dict[str, str]) -> Diagram:
    """The diagram with a prefix before its keys; ``shown`` are the workflows that have one."""
    labels: dict[tuple[str, str], set[str]] = {}
    values: set[tuple[str, str]] = set()

    def connect(bound: Binding, target: str, names: frozenset[str], decides: bool) -> None:
        for reference in references(bound):
            if reference.root not in names:
                pair = (f"{prefix}{_key(reference)}", f"{prefix}{target}")
                labels.setdefault(pair, set()).add(_label(graph, reference))
                values.update(() if decides else (pair,))

    for stage in graph.stages:
        for site in stage.sites:
            connect(site.binding, f"stage_{stage.id}", site.names, site.is_condition)
    for name, bound in graph.outputs.items():
        connect(bound, f"output_{name}", frozenset(), False)
    used = {source for source, _ in labels}
    inputs = (
        Box(f"{prefix}input_{each.name}", "input", each.name, short(each.type))
        for each in graph.inputs
    )
    return Diagram(
        (
            *(box for box in inputs if box.key in used),
            *(_stage_box(stage, prefix, shown) for stage in graph.stages),
            *(Box(f"{prefix}output_{name}", "output", name) for name in graph.outputs),
        ),
        tuple(
            Arrow(*pair, ", ".join(sorted(filter(None, found))), pair not in values)
            for pair, found in labels.items()
        ),
    )


def _key(reference: Reference) -> str:
    if reference.root == INPUTS:
        return f"input_{reference.path[0]}"
    return f"stage_{reference.root}"


def _label(graph: Graph, reference: Reference) -> str:
    """The type that the arrow carries; an input's box shows it already."""
    if reference.root == INPUTS:
        return ""
    types = {reference.root: graph.stage(reference.root).returns}
    # the parts that an expression needs need not be there
    bound = reference if _is_there(reference, types) else Reference(reference.root)
    return short(type_of_binding(bound, types))


def _is_there(reference: Reference, types: Mapping[str, DataType]) -> bool:
    try:
        type_of_binding(reference, types)
    except GraphError:
        return False
    return True


def _stage_box(stage: Stage, prefix: str, shown: dict[str, str]) -> Box:
    function = stage.function
    named = function.name if function.name != stage.id else None
    parts = [named, stage.model, stage.collection]
    kind: Kind = "plain" if function.is_builtin else "user"
    if stage.collection is not None:
        kind = "collection"
    if stage.model is not None:
        kind = "model"
    inner = None
    if (graph := function.graph) is not None:
        kind = "workflow"
        if graph.version not in shown:
            shown[graph.version] = f"n{len(shown) + 1}_"
            inner = _diagram(graph, shown[graph.version], shown)
    return Box(
        f"{prefix}stage_{stage.id}",
        kind,
        stage.id,
        " · ".join(filter(None, parts)),
        notes=tuple(_notes(stage)),
        conditional=stage.when is not None,
        many=stage.each is not None,
        inner=inner,
    )


def _notes(stage: Stage) -> Iterator[str]:
    """The constructs around the stage, in the order in which they act."""
    if stage.when is not None:
        yield f"if {_plain(stage.when)}"
    if (each := stage.each) is not None:
        of = _plain(each.over)
        yield (
            f"\N{MULTIPLICATION SIGN} {of}"
            if each.counts
            else f"\N{MULTIPLICATION SIGN} each {each.name} of {of}"
        )
    if (repeat := stage.repeat) is not None:
        yield f"↻ until {_plain(repeat.until)}, at most {repeat.max}"


def _plain(bound: Binding) -> str:
    """A binding as people read it, without ``${`` and ``}``."""
    if isinstance(bound, Reference | Expression):
        return str(bound)[2:-1]
    return json.dumps(write(bound), ensure_ascii=False)


def short(of: DataType) -> str:
    """A type without the modules of its classes."""
    if of.kind == "struct":
        return of.name.rpartition(":")[2].rpartition(".")[2]
    if of.kind == "dict" and of.fields is not None:
        return f"{{{', '.join(name for name, _ in of.fields)}}}"
    if of.kind in ("list", "dict"):
        parts = "" if set(of.args) <= {dt.ANY} else f"[{', '.join(map(short, of.args))}]"
        return f"{of.kind}{parts}"
    if of.kind == "union":
        return " | ".join(map(short, of.args))
    return "" if of == dt.ANY else str(of)
