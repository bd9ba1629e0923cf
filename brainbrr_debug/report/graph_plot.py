"""The graph of a matrix: its off-diagonal entries as edges, between places on a head or, without those, on a circle."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from brainbrr_debug.report.figure import figure, line, shown

WIDTH, HEIGHT = 400, 420
RADIUS = 168
CENTRE = (WIDTH / 2, 232.0)
WIDTHS = 4
"""An edge is so much wider than another one, at most."""
SMALLEST = 1e-6
"""Of the largest entry; what is smaller is no edge."""


def graph(
    title: str,
    entries: Sequence[Sequence[float]],
    *,
    names: Sequence[str] = (),
    places: Mapping[str, Sequence[float]] | None = None,
    marked: Sequence[str] = (),
) -> str:
    """Nodes are the rows of `entries` (n, n), by their `names` where there are n of them; those `marked` are squares.

    `places` are (x, y) by name, on a head seen from above, nose up, within the unit circle; all n names or none.
    """
    n = len(entries)
    called = list(names) if len(names) == n else [str(row) for row in range(n)]
    on_head = places is not None and all(name in places for name in called)
    spots = [_on_head(places[name]) for name in called] if on_head and places else [_on_circle(k, n) for k in range(n)]
    edges = _edges(entries)
    largest = max((weight for _, _, weight in edges), default=0.0)
    parts = _head() if on_head else []
    for one, other, weight in sorted(edges, key=lambda edge: edge[2]):
        parts.append(
            _edge(spots[one], spots[other], weight / largest, f"{called[one]}–{called[other]} {shown(weight)}")
        )
    parts += [_node(x, y, name, name in marked) for (x, y), name in zip(spots, called, strict=True)]
    degrees = [sum(row in edge[:2] for edge in edges) for row in range(n)]
    alone = [name for name, degree in zip(called, degrees, strict=True) if not degree]
    told = f"{n} nodes, {len(edges)} edges"
    if edges:
        hub = max(range(n), key=lambda row: degrees[row])
        told += f", most at {called[hub]} ({degrees[hub]})"
    told += f"; without an edge: {', '.join(alone)}" if alone else ""
    told += f"; marked: {', '.join(name for name in called if name in marked)}" if set(marked) & set(called) else ""
    return figure(title, told, parts, width=WIDTH, height=HEIGHT, kind="head")


def _edges(entries: Sequence[Sequence[float]]) -> list[tuple[int, int, float]]:
    """Pairs of nodes with the larger magnitude of their two entries."""
    n = len(entries)
    pairs = [(i, j, max(abs(entries[i][j]), abs(entries[j][i]))) for i in range(n) for j in range(i)]
    floor = SMALLEST * max((weight for *_, weight in pairs), default=0.0)
    return [(i, j, weight) for i, j, weight in pairs if weight > floor]


def _on_head(place: Sequence[float]) -> tuple[float, float]:
    return CENTRE[0] + RADIUS * place[0], CENTRE[1] - RADIUS * place[1]


def _on_circle(k: int, n: int) -> tuple[float, float]:
    angle = math.pi / 2 - 2 * math.pi * k / n
    return _on_head((0.9 * math.cos(angle), 0.9 * math.sin(angle)))


def _head() -> list[str]:
    """The outline, with nose and ears."""
    x, y = CENTRE
    return [
        f'<path class="outline" d="M{x - 18:g} {y - RADIUS + 1:g}l18 -20l18 20"/>',
        *(f'<ellipse class="outline" cx="{x + side * (RADIUS + 5):g}" cy="{y:g}" rx="7" ry="24"/>' for side in (-1, 1)),
        f'<circle class="outline" cx="{x:g}" cy="{y:g}" r="{RADIUS}"/>',
    ]


def _edge(one: tuple[float, float], other: tuple[float, float], share: float, told: str) -> str:
    drawn = line(*one, *other, kind="edge")
    style = f'stroke-width="{0.6 + (WIDTHS - 0.6) * share:.2f}" stroke-opacity="{0.35 + 0.65 * share:.2f}"'
    return f"<g {style}><title>{escape(told)}</title>{drawn}</g>"


def _node(x: float, y: float, name: str, marked: bool) -> str:
    shape = (
        f'<rect class="node marked" x="{x - 16:.1f}" y="{y - 12:.1f}" width="32" height="24"/>'
        if marked
        else f'<circle class="node" cx="{x:.1f}" cy="{y:.1f}" r="13"/>'
    )
    return f'{shape}<text class="name" x="{x:.1f}" y="{y + 4:.1f}" text-anchor="middle">{escape(name)}</text>'
