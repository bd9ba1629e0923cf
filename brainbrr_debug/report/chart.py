"""A curve over the steps on a logarithmic scale, as inline SVG: no script, no fonts, no network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from brainbrr_debug.report.material import Point, abnormal

WIDTH, HEIGHT = 760, 190
LEFT, RIGHT, TOP, BOTTOM = 64, 14, 24, 28
FLOOR = 1e-18
"""A gap of zero has no logarithm; it is drawn here."""


def chart(title: str, quantity: str, points: Sequence[Point]) -> str:
    """The curve, with every abnormal value marked and the first of them named; a table is not needed to read it."""
    scale = _Scale(points)
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(_summary(title, quantity, points))}">',
        f'<text x="{LEFT}" y="14" class="title">{escape(title)}</text>',
        *_axes(scale),
    ]
    for line in _lines(points, scale):
        parts.append(f'<polyline class="curve" points="{line}"/>')
    if len([p for p in points if math.isfinite(p.value)]) == 1:
        parts.append(_dot(next(p for p in points if math.isfinite(p.value)), scale, "point"))
    bad = [p for p in points if abnormal(quantity, p.value)]
    parts += [_cross(p, scale) for p in bad]
    if bad:
        parts.append(_named(bad[0], scale))
    return "".join([*parts, "</svg>"])


class _Scale:
    """From steps and values to picture coordinates."""

    def __init__(self, points: Sequence[Point]) -> None:
        steps = [p.step for p in points]
        self.first, self.last = min(steps), max(steps)
        finite = [max(abs(p.value), FLOOR) for p in points if math.isfinite(p.value)]
        logs = [math.log10(value) for value in finite] or [0.0]
        self.low, self.high = math.floor(min(logs)), math.ceil(max(logs))
        if self.low == self.high:
            self.low, self.high = self.low - 1, self.high + 1

    def x(self, step: int) -> float:
        span = max(1, self.last - self.first)
        return LEFT + (WIDTH - LEFT - RIGHT) * (step - self.first) / span

    def y(self, value: float) -> float:
        """What is not finite stands at the top."""
        log = math.log10(max(abs(value), FLOOR)) if math.isfinite(value) else float(self.high)
        return TOP + (HEIGHT - TOP - BOTTOM) * (self.high - log) / (self.high - self.low)


def _axes(scale: _Scale) -> list[str]:
    parts = []
    every = max(1, math.ceil((scale.high - scale.low) / 5))
    for power in range(scale.low, scale.high + 1, every):
        y = scale.y(10.0**power)
        parts.append(f'<line class="grid" x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_power(power)}</text>')
    for step in _ticks(scale.first, scale.last):
        parts.append(f'<text class="tick" x="{scale.x(step):.1f}" y="{HEIGHT - 10}" text-anchor="middle">{step}</text>')
    parts.append(f'<text class="tick" x="{LEFT - 6}" y="{HEIGHT - 10}" text-anchor="end">step</text>')
    return parts


def _power(power: int) -> str:
    return f"1e{power}" if abs(power) > 3 else f"{10.0**power:g}"


def _ticks(first: int, last: int) -> list[int]:
    """At most eleven round numbers."""
    every = next(f * 10**k for k in range(12) for f in (1, 2, 5) if last - first <= 10 * f * 10**k)
    return list(range(-(-first // every) * every, last + 1, every))


def _lines(points: Sequence[Point], scale: _Scale) -> list[str]:
    """Runs of finite values; a gap where there is none."""
    runs: list[list[str]] = [[]]
    for point in points:
        if math.isfinite(point.value):
            runs[-1].append(f"{scale.x(point.step):.1f},{scale.y(point.value):.1f}")
        elif runs[-1]:
            runs.append([])
    return [" ".join(run) for run in runs if len(run) > 1]


def _dot(point: Point, scale: _Scale, kind: str) -> str:
    return f'<circle class="{kind}" cx="{scale.x(point.step):.1f}" cy="{scale.y(point.value):.1f}" r="3"/>'


def _cross(point: Point, scale: _Scale) -> str:
    x, y = scale.x(point.step), scale.y(point.value)
    return f'<path class="bad" d="M{x - 4:.1f} {y - 4:.1f}l8 8m-8 0l8 -8"/>'


def _named(point: Point, scale: _Scale) -> str:
    x = scale.x(point.step)
    right = x > WIDTH / 2
    anchor, place = ("end", x - 8) if right else ("start", x + 8)
    text = f"first abnormal: step {point.step}, {_shown(point.value)}"
    return (
        f'<line class="mark" x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{HEIGHT - BOTTOM}"/>'
        f'<text class="mark" x="{place:.1f}" y="{HEIGHT - BOTTOM - 8}" text-anchor="{anchor}">{escape(text)}</text>'
    )


def _shown(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else ("NaN" if math.isnan(value) else "infinite")


def _summary(title: str, quantity: str, points: Sequence[Point]) -> str:
    bad = next((p for p in points if abnormal(quantity, p.value)), None)
    found = f"first abnormal at step {bad.step}, {_shown(bad.value)}" if bad else "nothing abnormal"
    return f"{title} over {len(points)} steps on a logarithmic scale: {found}"
