"""A graph as a Mermaid flowchart (https://mermaid.js.org), for documents that render it."""

from __future__ import annotations

import re

from adjoin.dag.diagram import Box, diagram
from adjoin.dag.graph import Graph

_SHAPES = {"input": ("([", "])"), "output": ("([", "])")}
_BOX = ("[", "]")
_PLAIN = re.compile(r"[^\w .,:/@|·\[\]-]")


def to_mermaid(graph: Graph) -> str:
    """See ``Graph.to_mermaid``."""
    found = diagram(graph)
    lines = ["flowchart TD"]
    lines += [f"    {_box(box)}" for box in found.boxes]
    for arrow in found.arrows:
        label = f'|"{_text(arrow.label)}"|' if arrow.label else ""
        lines.append(f"    {arrow.source} -->{label} {arrow.target}")
    return "\n".join(lines) + "\n"


def _box(box: Box) -> str:
    before, after = _SHAPES.get(box.kind, _BOX)
    lines = filter(None, (box.title, box.subtitle))
    return f'{box.key}{before}"{"<br/>".join(map(_text, lines))}"{after}'


def _text(text: str) -> str:
    """The text with what Mermaid or HTML could read as more than text as numbered entities."""
    return _PLAIN.sub(lambda found: f"#{ord(found[0])};", text[:120])
