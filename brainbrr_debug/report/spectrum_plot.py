"""Plots of a spectrum as inline SVG: gaps or condition numbers sample by sample, and the values of two matrices."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from html import escape

from brainbrr_debug.report.chart import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH

FLOOR, CEILING = -18, 18
"""Powers of ten at which zero and infinity are drawn."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """The matrices of one sample, from the worst to the best; None where none is finite."""

    label: str
    worst: float | None
    best: float | None
    bad: bool


STYLE = """
svg polyline { fill: none; stroke-width: 1.8; } svg .span { stroke: var(--curve); opacity: .5; }
svg polyline.worst { stroke: var(--bad); } svg polyline.healthy { stroke: var(--curve); }
svg circle.worst, svg text.worst { fill: var(--bad); } svg circle.healthy, svg text.healthy { fill: var(--curve); }
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
    every = max(1, math.ceil(len(bars) / 24))
    for place, bar in enumerate(bars):
        x = LEFT + step * (place + 0.5)
        if place % every == 0:
            parts.append(_text(x, HEIGHT - 10, bar.label, "middle"))
        if bar.worst is None or bar.best is None:
            parts.append(_text(x, HEIGHT - BOTTOM - 4, "?", "middle"))
            continue
        worst, best = y(_power(bar.worst)), y(_power(bar.best))
        parts.append(f'<line class="span" x1="{x:.1f}" y1="{worst:.1f}" x2="{x:.1f}" y2="{best:.1f}"/>')
        parts.append(_cross(x, worst) if bar.bad else f'<circle class="point" cx="{x:.1f}" cy="{worst:.1f}" r="3"/>')
    height = y(_power(limit))
    parts.append(f'<line class="mark" x1="{LEFT}" y1="{height:.1f}" x2="{WIDTH - RIGHT}" y2="{height:.1f}"/>')
    parts.append(
        f'<text class="mark" x="{WIDTH - RIGHT}" y="{height - 4:.1f}" text-anchor="end">limit {limit:.2g}</text>'
    )
    parts.append(_text(LEFT - 6, HEIGHT - 10, "sample", "end"))
    crossed = sum(bar.bad for bar in bars)
    side = "below" if low else "above"
    return _figure(title, f"{title}: {crossed} of {len(bars)} degenerate, at or {side} the limit {limit:.2g}", parts)


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
    parts += [_text(x(rank), HEIGHT - 10, str(rank), "middle") for rank in range(0, n, -(-n // 24))]
    parts.append(_text(LEFT - 6, HEIGHT - 10, "rank", "end"))
    for place, kind in enumerate(kind for _, kind in reversed(curves)):
        parts.append(f'<text class="{kind}" x="{WIDTH - RIGHT - 48 * place}" y="14" text-anchor="end">{kind}</text>')
    for values, kind in curves:
        points = [(x(rank), y(value)) for rank, value in enumerate(values)]
        line = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
        parts.append(f'<polyline class="{kind}" points="{line}"/>')
        parts += [f'<circle class="{kind}" cx="{a:.1f}" cy="{b:.1f}" r="3"/>' for a, b in points]
    return _figure(title, f"{title}, each over its own largest magnitude", parts)


def _scaled(values: Sequence[float]) -> list[float]:
    largest = max(map(abs, values)) or 1.0
    return [value / largest for value in values]


def _level(value: float, y: float) -> str:
    grid = f'<line class="grid" x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}"/>'
    return grid + _text(LEFT - 6, y + 4, f"{value:g}", "end")


def _power(value: float) -> float:
    if math.isnan(value):
        return float(FLOOR)
    return min(CEILING, max(FLOOR, math.log10(value))) if value > 0 else float(FLOOR)


def _power_line(power: int, y: float) -> str:
    name = {FLOOR: "0", CEILING: "∞"}.get(power, f"1e{power}")
    grid = f'<line class="grid" x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}"/>'
    return grid + _text(LEFT - 6, y + 4, name, "end")


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text class="tick" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _cross(x: float, y: float) -> str:
    return f'<path class="bad" d="M{x - 4:.1f} {y - 4:.1f}l8 8m-8 0l8 -8"/>'


def _figure(title: str, told: str, parts: Sequence[str]) -> str:
    head = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(told)}">'
    return f'{head}<text x="{LEFT}" y="14" class="title">{escape(title)}</text>{"".join(parts)}</svg>'
