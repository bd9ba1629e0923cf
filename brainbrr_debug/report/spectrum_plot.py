"""Plots of a spectrum as inline SVG: gaps or condition numbers sample by sample, and the values of two matrices."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from brainbrr_debug.report.chart import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH
from brainbrr_debug.report.figure import cross, figure, line, text

FLOOR, CEILING = -18, 18
"""Powers of ten at which zero and infinity are drawn."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """The matrices of one sample, from the worst to the best; None where none is finite."""

    label: str
    worst: float | None
    best: float | None
    bad: bool


SHAPES = {"worst": "■", "healthy": "●"}
STYLE = """
svg polyline { fill: none; stroke-width: 1.8; } svg .span { stroke: var(--curve); opacity: .5; }
svg polyline.worst { stroke: var(--bad); } svg polyline.healthy { stroke: var(--curve); }
svg rect.worst, svg text.worst { fill: var(--bad); } svg circle.healthy, svg text.healthy { fill: var(--curve); }
"""


def scatter(title: str, bars: Sequence[Bar], *, limit: float, low: bool) -> str:
    """A dot for the worst matrix of each sample (a cross where it is degenerate) with a line up to the best one, over a
    logarithmic scale with the limit; `low` says that small is bad."""
    powers = [_power(value) for bar in bars for value in (bar.worst, bar.best) if value is not None]
    bottom, top = math.floor(min([*powers, _power(limit)])), math.ceil(max([*powers, _power(limit)]))
    top += top == bottom
    step = (WIDTH - LEFT - RIGHT) / max(1, len(bars))

    def y(power: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (top - power) / (top - bottom)

    parts = [_power_line(power, y(power)) for power in range(bottom, top + 1, max(1, math.ceil((top - bottom) / 6)))]
    every = max(1, math.ceil(len(bars) / 16))
    for place, bar in enumerate(bars):
        x = LEFT + step * (place + 0.5)
        if place % every == 0:
            parts.append(text(x, HEIGHT - 6, bar.label, anchor="middle"))
        if bar.worst is None or bar.best is None:
            parts.append(text(x, HEIGHT - BOTTOM - 4, "?", anchor="middle"))
            continue
        worst, best = y(_power(bar.worst)), y(_power(bar.best))
        parts.append(line(x, worst, x, best, kind="span"))
        parts.append(cross(x, worst) if bar.bad else f'<circle class="point" cx="{x:.1f}" cy="{worst:.1f}" r="3"/>')
    height = y(_power(limit))
    parts.append(line(LEFT, height, WIDTH - RIGHT, height, kind="mark"))
    parts.append(text(WIDTH - RIGHT, height - 4, f"limit {limit:.2g}", anchor="end", kind="mark"))
    parts.append(text(LEFT - 16, HEIGHT - 6, "sample", anchor="end"))
    crossed = sum(bar.bad for bar in bars)
    side = "below" if low else "above"
    told = f"{crossed} of {len(bars)} degenerate, at or {side} the limit {limit:.2g}"
    return figure(title, told, parts, width=WIDTH, height=HEIGHT)


def levels(title: str, worst: Sequence[float], best: Sequence[float]) -> str:
    """Values by their rank, over the largest magnitude: the worst matrix in red, a healthy one (if any) beside it."""
    curves = [(_scaled(values), kind) for values, kind in ((best, "healthy"), (worst, "worst")) if values]
    bottom = min(0.0, *(value for values, _ in curves for value in values))
    n = max(len(values) for values, _ in curves)

    def x(rank: int) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (rank + 0.5) / n

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - value) / (1 - bottom)

    parts = [_level(value, y(value)) for value in (-1.0, -0.5, 0.0, 0.5, 1.0) if value >= bottom]
    parts += [text(x(rank), HEIGHT - 6, str(rank), anchor="middle") for rank in range(0, n, -(-n // 20))]
    parts.append(text(LEFT - 16, HEIGHT - 6, "rank", anchor="end"))
    for place, kind in enumerate(kind for _, kind in reversed(curves)):
        parts.append(text(WIDTH - RIGHT - 62 * place, 16, f"{SHAPES[kind]} {kind}", anchor="end", kind=kind))
    for values, kind in curves:
        points = [(x(rank), y(value)) for rank, value in enumerate(values)]
        line = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
        parts.append(f'<polyline class="{kind}" points="{line}"/>')
        parts += [_marker(a, b, kind) for a, b in points]
    told = f"{n} values by rank, each matrix over its own largest magnitude"
    return figure(title, told, parts, width=WIDTH, height=HEIGHT)


def _scaled(values: Sequence[float]) -> list[float]:
    largest = max(map(abs, values)) or 1.0
    return [value / largest for value in values]


def _marker(x: float, y: float, kind: str) -> str:
    if kind == "worst":
        return f'<rect class="worst" x="{x - 3:.1f}" y="{y - 3:.1f}" width="6" height="6"/>'
    return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>'


def _level(value: float, y: float) -> str:
    return line(LEFT, y, WIDTH - RIGHT, y, kind="grid") + text(LEFT - 5, y + 4, f"{value:g}", anchor="end")


def _power(value: float) -> float:
    if math.isnan(value):
        return float(FLOOR)
    return min(CEILING, max(FLOOR, math.log10(value))) if value > 0 else float(FLOOR)


def _power_line(power: int, y: float) -> str:
    name = {FLOOR: "0", CEILING: "∞"}.get(power, f"1e{power}")
    return line(LEFT, y, WIDTH - RIGHT, y, kind="grid") + text(LEFT - 5, y + 4, name, anchor="end")
