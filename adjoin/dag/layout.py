"""Where the boxes of a diagram go: layers from top to bottom, few crossings, straight arrows.

A small form of the method of Sugiyama, Tagawa and Toda (1981): layers by longest path, order within
a layer by barycentres, positions by least squares with minimal distances (isotonic regression).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

SWEEPS = 24
#: Arrows over more layers than this in all are drawn straight, without bends around boxes.
MAX_BENDS = 3000

Point = tuple[float, float]


@dataclass(frozen=True)
class Layout:
    """Centres of the boxes, the points that each arrow goes through, and the size of it all."""

    centres: dict[str, Point]
    routes: dict[tuple[str, str], tuple[Point, ...]]
    width: float
    height: float


def arrange(
    widths: Mapping[str, float],
    arrows: Sequence[tuple[str, str]],
    *,
    row: float,
    gap: float,
    sinks: Iterable[str] = (),
    extra: Mapping[str, float] | None = None,
) -> Layout:
    """Lay out an acyclic diagram.

    Args:
        widths: of each box, in an order in which arrows only go forwards.
        row: height of a layer of plain boxes, with the space around it.
        gap: least distance between two boxes of a layer.
        sinks: boxes for the last layer.
        extra: by how much boxes are higher than plain ones.
    """
    layer = _layers(list(widths), arrows, frozenset(sinks))
    bends = sum(layer[target] - layer[source] - 1 for source, target in arrows)
    chains = {
        pair: _chain(pair, layer, 0 if bends > MAX_BENDS else 1) for pair in dict.fromkeys(arrows)
    }
    sizes = dict(widths)
    for chain in chains.values():
        for depth, node in enumerate(chain[1:-1], 1):
            sizes[node] = 0.0
            layer[node] = layer[chain[0]] + depth
    neighbours: dict[str, list[str]] = {node: [] for node in sizes}
    for chain in chains.values():
        for one, two in pairwise(chain):
            # long arrows are worth more to be straight: weights of Gansner et al. (1993)
            weight = (1, 2, 8)[(one not in widths) + (two not in widths)]
            neighbours[one] += [two] * weight
            neighbours[two] += [one] * weight
    rows = _rows(layer, neighbours)
    across = _positions(rows, neighbours, layer, sizes, gap)
    left = min(across[node] - sizes[node] / 2 for node in sizes)
    right = max(across[node] + sizes[node] / 2 for node in sizes)
    heights = [row + max((extra or {}).get(node, 0.0) for node in nodes) for nodes in rows]
    tops = list(accumulate(heights, initial=0.0))
    points = {
        node: (across[node] - left, tops[layer[node]] + heights[layer[node]] / 2) for node in sizes
    }
    # beside a high box an arrow goes straight down, or its curve would pass behind the box
    passes = {
        node: _beside(points[node], heights[layer[node]] - row)
        for node in sizes.keys() - widths.keys()
    }
    routes = {
        pair: (
            points[chain[0]],
            *(point for node in chain[1:-1] for point in passes[node]),
            points[chain[-1]],
        )
        for pair, chain in chains.items()
    }
    return Layout(
        {node: points[node] for node in widths},
        routes,
        right - left,
        tops[-1],
    )


def _chain(pair: tuple[str, str], layer: Mapping[str, int], bend: int) -> list[str]:
    """The arrow's ends and, between them, a stand-in in each layer that it passes."""
    source, target = pair
    between = (layer[target] - layer[source] - 1) * bend
    return [source, *(f"{source}>{target}>{index}" for index in range(between)), target]


def _beside(point: Point, extra: float) -> tuple[Point, ...]:
    """The point of an arrow in a layer, or two where the layer is higher than a plain one."""
    x, y = point
    return ((x, y - extra / 2), (x, y + extra / 2)) if extra else (point,)


def _layers(
    boxes: list[str], arrows: Sequence[tuple[str, str]], sinks: frozenset[str]
) -> dict[str, int]:
    """Longest paths from the top; a box without arrows into it sits right above its first taker."""
    into: dict[str, list[str]] = {box: [] for box in boxes}
    out: dict[str, list[str]] = {box: [] for box in boxes}
    for source, target in arrows:
        into[target].append(source)
        out[source].append(target)
    layer: dict[str, int] = {}
    for box in boxes:
        layer[box] = max((layer[source] + 1 for source in into[box]), default=0)
    last = max(layer.values(), default=0)
    for box in boxes:
        if box in sinks:
            layer[box] = last
        elif not into[box] and out[box]:
            layer[box] = min(layer[target] for target in out[box]) - 1
    return layer


def _rows(layer: Mapping[str, int], neighbours: Mapping[str, list[str]]) -> list[list[str]]:
    rows: list[list[str]] = [[] for _ in range(max(layer.values(), default=0) + 1)]
    for node, depth in layer.items():
        rows[depth].append(node)
    place = {node: float(index) for row in rows for index, node in enumerate(row)}
    for sweep in range(SWEEPS):
        side = -1 if sweep % 2 == 0 else 1
        for depth in range(len(rows))[::-side]:
            keys = {}
            for node in rows[depth]:
                beside = [place[n] for n in neighbours[node] if layer[n] == depth + side]
                keys[node] = (_mean(beside, place[node]), place[node])
            rows[depth].sort(key=keys.__getitem__)
            place |= {node: float(index) for index, node in enumerate(rows[depth])}
    return rows


def _positions(
    rows: list[list[str]],
    neighbours: Mapping[str, list[str]],
    layer: Mapping[str, int],
    sizes: Mapping[str, float],
    gap: float,
) -> dict[str, float]:
    across = {node: 0.0 for row in rows for node in row}
    for sweep in range(SWEEPS):
        for row in rows if sweep % 2 == 0 else rows[::-1]:
            wanted = [_mean([across[n] for n in neighbours[node]], 0.0) for node in row]
            placed = _apart(wanted, [sizes[node] for node in row], gap)
            across |= dict(zip(row, placed, strict=True))
    return across


def _apart(wanted: Sequence[float], sizes: Sequence[float], gap: float) -> list[float]:
    """The positions nearest to the wanted ones that keep the order and the gap.

    Shifted by the distances that they must keep, positions need only not decrease: pool adjacent
    violators.
    """
    shifts = [0.0]
    for one, two in pairwise(sizes):
        shifts.append(shifts[-1] + (one + two) / 2 + gap)
    pools: list[tuple[float, int]] = []
    for value, shift in zip(wanted, shifts, strict=True):
        total, count = value - shift, 1
        while pools and pools[-1][0] / pools[-1][1] > total / count:
            before, many = pools.pop()
            total, count = total + before, count + many
        pools.append((total, count))
    flat = [total / count for total, count in pools for _ in range(count)]
    return [value + shift for value, shift in zip(flat, shifts, strict=True)]


def _mean(values: Sequence[float], default: float) -> float:
    return sum(values) / len(values) if values else default
