"""A curve over the steps on a logarithmic scale. What has no logarithm stands in a lane of its own."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from brainbrr_debug.report.curves import Point, abnormal
from brainbrr_debug.report.figure import cross, figure, line, shown, text, ticks

WIDTH, HEIGHT = 540, 200
LEFT, RIGHT, TOP, BOTTOM = 62, 12, 28, 24
LANE = 22
"""Height of the lanes above and below the scale: for what is not finite, and for zeros."""
COLUMNS = 500
"""More points than this are drawn by their extremes."""


def chart(title: str, quantity: str, points: Sequence[Point]) -> str:
    """The curve with every abnormal value marked, and the first of them named."""
    scale = _Scale(points)
    bad = [point for point in points if abnormal(quantity, point.value)]
    parts = [*_axes(scale), *_curve(points, scale)]
    parts += [cross(scale.x(p.step), scale.y(p.value)) for p in thinned(bad)]
    if bad:
        parts += _named(bad[0], scale)
    if any(point.value < 0 for point in points):
        title += " (magnitude)"
    found = f"first abnormal at step {bad[0].step}, {shown(bad[0].value)}" if bad else "nothing abnormal"
    told = f"{len(points)} steps on a logarithmic scale, {found}"
    return figure(title, told, parts, width=WIDTH, height=HEIGHT)


def thinned(points: Sequence[Point]) -> list[Point]:
    """At most `COLUMNS` neighbourhoods of points, of each the smallest, the largest and one that is not finite."""
    if len(points) <= COLUMNS:
        return list(points)
    kept: list[Point] = []
    for place in range(COLUMNS):
        here = points[place * len(points) // COLUMNS : (place + 1) * len(points) // COLUMNS]
        finite = [point for point in here if math.isfinite(point.value)]
        lost = [point for point in here if not math.isfinite(point.value)]
        chosen = {id(p): p for p in (*_extremes(finite), *lost[:1])}
        kept += sorted(chosen.values(), key=lambda point: point.step)
    return kept


def _extremes(points: Sequence[Point]) -> Iterable[Point]:
    return (min(points, key=_magnitude), max(points, key=_magnitude)) if points else ()


def _magnitude(point: Point) -> float:
    return abs(point.value)


class _Scale:
    """From steps and values to places in the picture."""

    def __init__(self, points: Sequence[Point]) -> None:
        self.first, self.last = points[0].step, points[-1].step
        values = [abs(point.value) for point in points]
        logs = [math.log10(value) for value in values if value and math.isfinite(value)] or [0.0]
        self.low, self.high = math.floor(min(logs)), math.ceil(max(logs))
        if self.low == self.high:
            self.low, self.high = self.low - 1, self.high + 1
        self.lost = any(not math.isfinite(value) for value in values)
        self.zeros = 0.0 in values
        self._top, self._bottom = TOP + LANE * self.lost, HEIGHT - BOTTOM - LANE * self.zeros

    def x(self, step: int) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (step - self.first) / max(1, self.last - self.first)

    def y(self, value: float) -> float:
        """What is not finite stands above the scale, zero below it."""
        if not math.isfinite(value):
            return TOP + LANE / 4
        return self.of_log(math.log10(abs(value))) if value else HEIGHT - BOTTOM - LANE / 4

    def of_log(self, log: float) -> float:
        return self._top + (self._bottom - self._top) * (self.high - log) / (self.high - self.low)


def _axes(scale: _Scale) -> Iterable[str]:
    every = max(1, math.ceil((scale.high - scale.low) / 5))
    levels = [(scale.of_log(power), _power(power)) for power in range(scale.low, scale.high + 1, every)]
    levels += [(scale.y(math.nan), "not finite")] if scale.lost else []
    levels += [(scale.y(0.0), "0")] if scale.zeros else []
    for y, name in levels:
        yield line(LEFT, y, WIDTH - RIGHT, y, kind="grid")
        yield text(LEFT - 5, y + 4, name, anchor="end")
    yield text(LEFT - 16, HEIGHT - 6, "step", anchor="end")
    for step in ticks(scale.first, scale.last):
        yield text(scale.x(step), HEIGHT - 6, str(step), anchor="middle")


def _power(power: int) -> str:
    return f"1e{power}" if abs(power) > 3 else f"{10.0**power:g}"


def _curve(points: Sequence[Point], scale: _Scale) -> Iterable[str]:
    """Runs of values that have a logarithm; a gap where there is none. A value alone is a dot."""
    runs: list[list[str]] = [[]]
    for point in thinned(points):
        if point.value and math.isfinite(point.value):
            runs[-1].append(f"{scale.x(point.step):.1f},{scale.y(point.value):.1f}")
        elif runs[-1]:
            runs.append([])
    for run in runs:
        if len(run) == 1:
            x, y = run[0].split(",")
            yield f'<circle class="point" cx="{x}" cy="{y}" r="3"/>'
        elif run:
            yield f'<polyline class="curve" points="{" ".join(run)}"/>'


def _named(point: Point, scale: _Scale) -> Iterable[str]:
    x = scale.x(point.step)
    yield line(x, TOP, x, HEIGHT - BOTTOM, kind="mark")
    anchor, aside = ("end", -6) if x > WIDTH / 2 else ("start", 6)
    words = f"first abnormal: step {point.step}, {shown(point.value)}"
    yield text(x + aside, HEIGHT - BOTTOM - 6 - LANE * scale.zeros, words, anchor=anchor, kind="mark")
