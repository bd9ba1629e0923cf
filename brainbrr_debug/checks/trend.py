"""Straight lines through values or their logarithms: how a quantity moves with the step. Imports no torch."""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """Least squares over `points` values from step `first` to step `last`.

    `start` and `end` are what the line has there, `r2` is the share of variance that it explains.
    """

    points: int
    first: int
    last: int
    start: float
    end: float
    r2: float

    @property
    def slope(self) -> float:
        """By the step; of a line through binary logarithms, doublings a step."""
        return (self.end - self.start) / (self.last - self.first)

    def steps_to(self, level: float) -> float:
        """Steps after the last one until the line reaches `level`; infinite where it leads elsewhere."""
        ahead = level - self.end
        return ahead / self.slope if self.slope * ahead > 0 else math.inf


def fit(points: Sequence[tuple[int, float]]) -> Trend:
    """The Trend of (step, value) pairs in order of step; steps differ, two pairs at least."""
    n = len(points)
    middle, level = sum(step for step, _ in points) / n, sum(value for _, value in points) / n
    away = [(step - middle, value - level) for step, value in points]
    steps, both, spread = sum(x * x for x, _ in away), sum(x * y for x, y in away), sum(y * y for _, y in away)
    slope = both / steps
    first, last = points[0][0], points[-1][0]
    return Trend(
        points=n,
        first=first,
        last=last,
        start=level + slope * (first - middle),
        end=level + slope * (last - middle),
        r2=both * both / (steps * spread) if spread else 0.0,
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What counts as a trend: a line through the binary logarithms of one of the `windows` (numbers, longest first).

    It must explain them to at least `r2`, and rise (`sign` 1) or fall (−1) by at least `doublings` over the window.
    """

    windows: tuple[int, ...]
    doublings: float
    r2: float
    sign: int = 1


class Series:
    """Logarithms of the last values of one quantity at one place, as many as the longest window of `shape` needs."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._points: collections.deque[tuple[int, float]] = collections.deque(maxlen=max(shape.windows))
        self._largest_gone = -math.inf

    def add(self, step: int, value: float) -> None:
        """One more value. The series breaks off at one without a logarithm, and where a run went back to a step."""
        if self._points and step <= self._points[-1][0]:
            self._points.clear()
        usable = 0 < value < math.inf
        if self._points and (not usable or len(self._points) == self._points.maxlen):
            gone = self._points[0][1] if usable else max(value for _, value in self._points)
            self._largest_gone = max(self._largest_gone, gone)
        if usable:
            self._points.append((step, math.log2(value)))
        else:
            self._points.clear()

    def trend(self) -> Trend | None:
        """The trend of the first window that shows one and ends at the last value; None where none does."""
        shape = self._shape
        for window in shape.windows:
            if len(self._points) < window:
                continue
            first, last = self._points[-window][1], self._points[-1][1]
            if shape.sign * (last - first) < shape.doublings / 2:
                continue  # most of the time nothing need be fitted
            found = fit([self._points[i] for i in range(-window, 0)])
            if shape.sign * (found.end - found.start) >= shape.doublings and found.r2 >= shape.r2:
                return found
        return None

    def largest_before(self, step: int) -> float:
        """The largest logarithm older than `step`; −inf where there is none."""
        return max([self._largest_gone, *(value for at, value in self._points if at < step)])
