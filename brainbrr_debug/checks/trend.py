"""A straight line through logarithms: how a quantity grows or shrinks by the step. Imports no torch."""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """Least squares of log2(value) on the step, over `points` values from step `first` to step `last`.

    `start` and `end` are log2 of what the line has there, `r2` is the share of variance that it explains.
    """

    points: int
    first: int
    last: int
    start: float
    end: float
    r2: float

    @property
    def slope(self) -> float:
        """Doublings a step; negative where the value shrinks."""
        return (self.end - self.start) / (self.last - self.first)

    def steps_to(self, value: float) -> float:
        """Steps after the last one until the line reaches `value`; infinite where it leads elsewhere."""
        ahead = math.log2(value) - self.end
        return ahead / self.slope if self.slope * ahead > 0 else math.inf


def fit(points: Sequence[tuple[int, float]]) -> Trend:
    """The Trend of (step, value) pairs in order of step; values are positive, steps differ, two pairs at least."""
    n = len(points)
    logs = [math.log2(value) for _, value in points]
    middle, level = sum(step for step, _ in points) / n, sum(logs) / n
    steps = sum((step - middle) ** 2 for step, _ in points)
    both = sum((step - middle) * (log - level) for (step, _), log in zip(points, logs, strict=True))
    spread = sum((log - level) ** 2 for log in logs)
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
    """What counts as a trend: a line that explains one of the `windows` (numbers of values) to at least `r2`.

    It must rise (`sign` 1) or fall (−1) by at least `doublings` over the window.
    """

    windows: tuple[int, ...]
    doublings: float
    r2: float
    sign: int = 1


class Series:
    """The last values of one quantity at one place, as many as the longest window of `shape` needs."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._points: collections.deque[tuple[int, float]] = collections.deque(maxlen=max(shape.windows))
        self._largest_gone = 0.0

    def add(self, step: int, value: float) -> None:
        """One more value. The series breaks off at one without a logarithm, and where a run went back to a step."""
        if self._points and step <= self._points[-1][0]:
            self._points.clear()
        usable = 0 < value < math.inf
        if self._points and (not usable or len(self._points) == self._points.maxlen):
            gone = self._points[0][1] if usable else max(value for _, value in self._points)
            self._largest_gone = max(self._largest_gone, gone)
        if usable:
            self._points.append((step, value))
        else:
            self._points.clear()

    def trend(self) -> Trend | None:
        """The trend of the longest window that shows one and ends at the last value; None where none does."""
        shape = self._shape
        for window in sorted(shape.windows, reverse=True):
            if len(self._points) < window:
                continue
            first, last = self._points[-window][1], self._points[-1][1]
            if shape.sign * (math.log2(last) - math.log2(first)) < shape.doublings / 2:
                continue  # most of the time nothing need be fitted
            found = fit([self._points[i] for i in range(-window, 0)])
            if shape.sign * (found.end - found.start) >= shape.doublings and found.r2 >= shape.r2:
                return found
        return None

    def largest_before(self, step: int) -> float:
        """The largest value older than `step`; 0 where there is none."""
        return max([self._largest_gone, *(value for at, value in self._points if at < step)])
