"""A graph as an SVG picture: no other program and no font needed, dark text on light."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from itertools import pairwise

from adjoin.dag.diagram import Arrow, Box, diagram
from adjoin.dag.graph import Graph
from adjoin.dag.layout import Point, arrange

_ROW, _GAP, _MARGIN = 96.0, 28.0, 20.0
_HEIGHT = 48.0
#: Width of a character of each size, in pixels; wider than most fonts need.
_TITLE, _SMALL = 7.9, 6.6
_FILLS = {
    "input": ("#eef2f6", "#64748b"),
    "output": ("#eef2f6", "#64748b"),
    "model": ("#e8f0fe", "#2563eb"),
    "collection": ("#e7f6ec", "#16803c"),
    "user": ("#fdf1e3", "#c2620a"),
    "plain": ("#f5f3fa", "#7c5cc4"),
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
    found = diagram(graph)
    layout = arrange(
        {box.key: _width(box) for box in found.boxes},
        [(arrow.source, arrow.target) for arrow in found.arrows],
        row=_ROW,
        gap=_GAP,
        sinks=[box.key for box in found.boxes if box.kind == "output"],
    )
    width, height = layout.width + 2 * _MARGIN, layout.height + 2 * _MARGIN
    size = f'width="{width:.0f}" height="{height:.0f}"'
    view = f'viewBox="{-_MARGIN:g} {-_MARGIN:g} {width:.0f} {height:.0f}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} {view} role="img">',
        f"<title>{_text(f'Workflow {graph.name}')}</title><style>{_STYLE}</style>{_MARKER}",
        f'<rect x="{-_MARGIN:g}" y="{-_MARGIN:g}" {size} rx="12" fill="#ffffff"/>',
    ]
    routes = layout.routes
    parts += [_path(routes[arrow.source, arrow.target]) for arrow in found.arrows]
    for box in found.boxes:
        parts += _box(box, layout.centres[box.key])
    for arrow in found.arrows:
        parts += _label(arrow, routes[arrow.source, arrow.target])
    return "\n".join([*parts, "</svg>"]) + "\n"


def _text(text: str, limit: int = 60) -> str:
    text = text if len(text) <= limit else text[: limit - 1] + "…"
    return html.escape(_FORBIDDEN.sub("\ufffd", text))


def _width(box: Box) -> float:
    widest = max(min(len(box.title), 60) * _TITLE, min(len(box.subtitle), 60) * _SMALL)
    return max(88.0, widest + 28)


def _box(box: Box, centre: Point) -> Iterator[str]:
    (x, y), width = centre, _width(box)
    fill, stroke = _FILLS[box.kind]
    radius = _HEIGHT / 2 if box.kind in ("input", "output") else 9
    yield (
        f'<rect x="{x - width / 2:.1f}" y="{y - _HEIGHT / 2:.1f}" width="{width:.1f}" '
        f'height="{_HEIGHT:g}" rx="{radius:g}" fill="{fill}" stroke="{stroke}" stroke-width="1.3"/>'
    )
    lines = [("t", box.title)] + ([("s", box.subtitle)] if box.subtitle else [])
    top = y + 5 - 8.5 * (len(lines) - 1)
    for index, (style, text) in enumerate(lines):
        yield (
            f'<text class="{style}" x="{x:.1f}" y="{top + 17 * index:.1f}" '
            f'text-anchor="middle">{_text(text)}</text>'
        )


def _ends(route: tuple[Point, ...]) -> tuple[Point, ...]:
    """The route from the lower edge of its first box to the upper edge of its last."""
    (x, y), (to_x, to_y) = route[0], route[-1]
    return ((x, y + _HEIGHT / 2), *route[1:-1], (to_x, to_y - _HEIGHT / 2 - 1))


def _path(route: tuple[Point, ...]) -> str:
    points = _ends(route)
    found = f"M{points[0][0]:.1f} {points[0][1]:.1f}"
    for (x, y), (to_x, to_y) in pairwise(points):
        bend = (y + to_y) / 2
        found += f"C{x:.1f} {bend:.1f} {to_x:.1f} {bend:.1f} {to_x:.1f} {to_y:.1f}"
    return f'<path class="e" d="{found}" marker-end="url(#adjoin-arrow)"/>'


def _label(arrow: Arrow, route: tuple[Point, ...]) -> Iterator[str]:
    """The type, on the last piece of the arrow, where arrows from one box have parted."""
    if not arrow.label:
        return
    (x, y), (to_x, to_y) = _ends(route)[-2:]
    x, y = (x + to_x) / 2, (y + to_y) / 2
    shown = _text(arrow.label, 32)
    width = min(len(arrow.label), 32) * 6.1 + 8
    yield (
        f'<rect x="{x - width / 2:.1f}" y="{y - 8:.1f}" width="{width:.1f}" height="16" rx="4" '
        'fill="#ffffff" fill-opacity="0.92"/>'
    )
    yield f'<text class="l" x="{x:.1f}" y="{y + 4:.1f}" text-anchor="middle">{shown}</text>'
