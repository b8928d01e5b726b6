"""A graph as an SVG picture: no other program and no font needed, dark text on light."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from adjoin.dag.diagram import Arrow, Box, Diagram, diagram
from adjoin.dag.graph import Graph
from adjoin.dag.layout import Point, arrange

_ROW, _GAP, _MARGIN = 96.0, 28.0, 20.0
_HEIGHT, _LINE = 48.0, 17.0
#: Width of a character of each size, in pixels; wider than most fonts need.
_TITLE, _SMALL = 7.9, 6.6
_FILLS = {
    "input": ("#eef2f6", "#64748b"),
    "output": ("#eef2f6", "#64748b"),
    "model": ("#e8f0fe", "#2563eb"),
    "collection": ("#e7f6ec", "#16803c"),
    "user": ("#fdf1e3", "#c2620a"),
    "plain": ("#f5f3fa", "#7c5cc4"),
    "workflow": ("#fafafa", "#334155"),
}
_STYLE = (
    "text{font-family:system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif}"
    ".t{font-size:14px;font-weight:600;fill:#111827}.s{font-size:12px;fill:#374151}"
    ".l{font-size:11px;fill:#374151}.e{fill:none;stroke:#6b7280;stroke-width:1.4}"
)
_MARKER = (
    '<defs><marker id="adjoin-arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
    'markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z" fill="#6b7280"/></marker></defs>'
)
#: What XML cannot hold.
_FORBIDDEN = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def to_svg(graph: Graph) -> str:
    """See ``Graph.to_svg``."""
    return draw(diagram(graph), f"Workflow {graph.name}")


def draw(shown: Diagram, title: str) -> str:
    """Any diagram as an SVG picture."""
    found = _picture(shown)
    width, height = found.width + 2 * _MARGIN, found.height + 2 * _MARGIN
    size = f'width="{width:.0f}" height="{height:.0f}"'
    view = f'viewBox="{-_MARGIN:g} {-_MARGIN:g} {width:.0f} {height:.0f}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} {view} role="img">',
        f"<title>{_text(title)}</title><style>{_STYLE}</style>{_MARKER}",
        f'<rect x="{-_MARGIN:g}" y="{-_MARGIN:g}" {size} rx="12" fill="#ffffff"/>',
        *found.parts,
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


@dataclass(frozen=True)
class _Picture:
    """A drawn diagram, its upper left corner at the origin."""

    parts: list[str]
    width: float
    height: float


@dataclass(frozen=True)
class _Shape:
    """How large a box is; the picture of a nested workflow is in its lower part.

    Attributes:
        stack: by how much the boxes behind it stand out.
    """

    width: float
    height: float
    stack: float
    inner: _Picture | None = None


def _picture(found: Diagram) -> _Picture:
    shapes = {box.key: _shape(box) for box in found.boxes}
    layout = arrange(
        {key: shape.width for key, shape in shapes.items()},
        [(arrow.source, arrow.target) for arrow in found.arrows],
        row=_ROW,
        gap=_GAP,
        sinks=[box.key for box in found.boxes if box.kind == "output"],
        extra={key: shape.height - _HEIGHT for key, shape in shapes.items()},
    )
    parts: list[str] = []
    routes = []
    for arrow in found.arrows:
        ends = (
            shapes[arrow.source].height / 2,
            shapes[arrow.target].height / 2 + shapes[arrow.target].stack,
        )
        route = _between(layout.routes[arrow.source, arrow.target], *ends)
        routes.append(route)
        parts.append(_path(route, arrow.conditional))
    for box in found.boxes:
        parts += _box(box, shapes[box.key], layout.centres[box.key])
    for arrow, route in zip(found.arrows, routes, strict=True):
        parts += _label(arrow, route)
    return _Picture(parts, layout.width, layout.height)


def _shape(box: Box) -> _Shape:
    lines = _lines(box)
    width = max(88.0, 28 + max(min(len(text), 60) * size for _, text, size in lines))
    height = _HEIGHT + _LINE * max(0, len(lines) - 2)
    stack = 8.0 if box.many else 0.0
    if box.inner is None:
        return _Shape(width, height, stack)
    inner = _picture(box.inner)
    return _Shape(max(width, inner.width + 2 * _MARGIN), height + inner.height, stack, inner)


def _lines(box: Box) -> list[tuple[str, str, float]]:
    """The class, the text and the width of a character of each line."""
    lines = [("t", box.title, _TITLE)]
    return lines + [("s", text, _SMALL) for text in (box.subtitle, *box.notes) if text]


def _text(text: str, limit: int = 60) -> str:
    text = text if len(text) <= limit else text[: limit - 1] + "…"
    return html.escape(_FORBIDDEN.sub("\ufffd", text))


def _box(box: Box, shape: _Shape, centre: Point) -> Iterator[str]:
    (x, y), width, height = centre, shape.width, shape.height
    left, top = x - width / 2, y - height / 2
    fill, stroke = _FILLS[box.kind]
    fill = box.fill or fill
    radius = _HEIGHT / 2 if box.kind in ("input", "output") else 9
    dash = ' stroke-dasharray="5 4"' if box.conditional else ""
    for shift in (shape.stack, shape.stack / 2, 0) if box.many else (0,):
        yield (
            f'<rect x="{left + shift:.1f}" y="{top - shift:.1f}" width="{width:.1f}" '
            f'height="{height:g}" rx="{radius:g}" fill="{fill}" stroke="{stroke}" '
            f'stroke-width="1.3"{dash}/>'
        )
    lines = _lines(box)
    rest = shape.inner.height if shape.inner is not None else 0.0
    first = y - rest / 2 + 5 - _LINE / 2 * (len(lines) - 1)
    for index, (style, text, _) in enumerate(lines):
        yield (
            f'<text class="{style}" x="{x:.1f}" y="{first + _LINE * index:.1f}" '
            f'text-anchor="middle">{_text(text)}</text>'
        )
    if shape.inner is not None:
        at = f"{x - shape.inner.width / 2:.1f} {top + height - rest:.1f}"
        yield f'<g transform="translate({at})">'
        yield from shape.inner.parts
        yield "</g>"


def _between(route: tuple[Point, ...], above: float, below: float) -> tuple[Point, ...]:
    """The route from the lower edge of its first box to the upper edge of its last."""
    (x, y), (to_x, to_y) = route[0], route[-1]
    return ((x, y + above), *route[1:-1], (to_x, to_y - below - 1))


def _path(points: tuple[Point, ...], dashed: bool) -> str:
    found = f"M{points[0][0]:.1f} {points[0][1]:.1f}"
    for (x, y), (to_x, to_y) in pairwise(points):
        bend = (y + to_y) / 2
        found += f"C{x:.1f} {bend:.1f} {to_x:.1f} {bend:.1f} {to_x:.1f} {to_y:.1f}"
    dash = ' stroke-dasharray="5 4"' if dashed else ""
    return f'<path class="e" d="{found}"{dash} marker-end="url(#adjoin-arrow)"/>'


def _label(arrow: Arrow, route: tuple[Point, ...]) -> Iterator[str]:
    """The type, on the last piece of the arrow, where arrows from one box have parted."""
    if not arrow.label:
        return
    (x, y), (to_x, to_y) = route[-2:]
    x, y = (x + to_x) / 2, (y + to_y) / 2
    shown = _text(arrow.label, 32)
    width = min(len(arrow.label), 32) * 6.1 + 8
    yield (
        f'<rect x="{x - width / 2:.1f}" y="{y - 8:.1f}" width="{width:.1f}" height="16" rx="4" '
        'fill="#ffffff" fill-opacity="0.92"/>'
    )
    yield f'<text class="l" x="{x:.1f}" y="{y + 4:.1f}" text-anchor="middle">{shown}</text>'
