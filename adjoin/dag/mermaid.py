"""A graph as a Mermaid flowchart (https://mermaid.js.org), for documents that render it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from adjoin.dag.diagram import Box, Diagram, diagram
from adjoin.dag.graph import Graph

_SHAPES = {"input": ("([", "])"), "output": ("([", "])")}
_BOX = ("[", "]")
#: What stands for more than one call: a fan-out, a workflow whose stages are shown elsewhere.
_DOUBLE = ("[[", "]]")
_PLAIN = re.compile(r"[^\w .,:/@|·\u00d7↻\[\]-]")


def to_mermaid(graph: Graph) -> str:
    """See ``Graph.to_mermaid``."""
    return draw(diagram(graph))


def draw(found: Diagram) -> str:
    """Any diagram as a Mermaid flowchart."""
    return "\n".join(["flowchart TD", *_lines(found, "    ")]) + "\n"


def _lines(found: Diagram, indent: str) -> Iterator[str]:
    for box in found.boxes:
        if box.inner is None:
            yield f"{indent}{_box(box)}"
        else:
            yield f'{indent}subgraph {box.key}["{_label(box)}"]'
            yield from _lines(box.inner, f"{indent}    ")
            yield f"{indent}end"
        style = [f"fill:{box.fill},color:#111827"] if box.fill else []
        style += ["stroke-dasharray: 5 4"] if box.conditional else []
        if style:
            yield f"{indent}style {box.key} {','.join(style)}"
    for arrow in found.arrows:
        label = f'|"{_text(arrow.label)}"|' if arrow.label else ""
        line = "-.->" if arrow.conditional else "-->"
        yield f"{indent}{arrow.source} {line}{label} {arrow.target}"


def _box(box: Box) -> str:
    before, after = _SHAPES.get(box.kind, _BOX)
    if box.many or box.kind == "workflow":
        before, after = _DOUBLE
    return f'{box.key}{before}"{_label(box)}"{after}'


def _label(box: Box) -> str:
    return "<br/>".join(map(_text, filter(None, (box.title, box.subtitle, *box.notes))))


def _text(text: str) -> str:
    """The text with what Mermaid or HTML could read as more than text as numbered entities."""
    return _PLAIN.sub(lambda found: f"#{ord(found[0])};", text[:120])
