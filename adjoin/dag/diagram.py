"""What a picture of a graph shows: boxes for inputs, stages and outputs, and labelled arrows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from adjoin.dag import datatypes as dt
from adjoin.dag.binding import Reference, references, type_of_binding
from adjoin.dag.datatypes import DataType
from adjoin.dag.graph import Graph, Stage
from adjoin.dag.names import INPUTS

Kind = Literal["input", "output", "model", "collection", "user", "plain"]


@dataclass(frozen=True)
class Box:
    """``key`` is unique in the diagram and made of letters, digits and underscores."""

    key: str
    kind: Kind
    title: str
    subtitle: str = ""


@dataclass(frozen=True)
class Arrow:
    source: str
    target: str
    label: str = ""


@dataclass(frozen=True)
class Diagram:
    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...]


def diagram(graph: Graph) -> Diagram:
    """The boxes from inputs to outputs, and one arrow for each pair that is connected."""
    labels: dict[tuple[str, str], set[str]] = {}

    def connect(reference: Reference, target: str) -> None:
        label = _label(graph, reference)
        labels.setdefault((_key(reference), target), set()).add(label)

    for stage in graph.stages:
        for bound in stage.bindings.values():
            for reference in references(bound):
                connect(reference, f"stage_{stage.id}")
    for name, bound in graph.outputs.items():
        for reference in references(bound):
            connect(reference, f"output_{name}")
    used = {source for source, _ in labels}
    inputs = [
        Box(f"input_{each.name}", "input", each.name, short(each.type))
        for each in graph.inputs
        if f"input_{each.name}" in used
    ]
    return Diagram(
        (
            *inputs,
            *map(_stage_box, graph.stages),
            *(Box(f"output_{name}", "output", name) for name in graph.outputs),
        ),
        tuple(
            Arrow(source, target, ", ".join(sorted(filter(None, found))))
            for (source, target), found in labels.items()
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
    returns = graph.stage(reference.root).returns
    return short(type_of_binding(reference, lambda _: returns))


def _stage_box(stage: Stage) -> Box:
    function = stage.function
    named = function.name if function.name != stage.id else None
    parts = [named, stage.model, stage.collection]
    kind: Kind = "plain" if function.is_builtin else "user"
    if stage.collection is not None:
        kind = "collection"
    if stage.model is not None:
        kind = "model"
    return Box(f"stage_{stage.id}", kind, stage.id, " · ".join(filter(None, parts)))


def short(of: DataType) -> str:
    """A type without the modules of its classes."""
    if of.kind == "struct":
        return of.name.rpartition(":")[2].rpartition(".")[2]
    if of.kind in ("list", "dict"):
        return f"{of.kind}[{', '.join(map(short, of.args))}]"
    if of.kind == "union":
        return " | ".join(map(short, of.args))
    return "" if of == dt.ANY else str(of)
