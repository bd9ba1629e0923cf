"""The curves of a run: of some quantities the worst value of each step, and what counts as out of order."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

from brainbrr_debug.quantities import EIGENGAP, GRADIENT_NORM, LOSS
from brainbrr_debug.records import Reading

THRESHOLD = 1e-6
"""Relative gap at or below which a reading counts as abnormal; the same as `spectral.THRESHOLD`, which needs torch."""

CURVES = (LOSS, GRADIENT_NORM, EIGENGAP)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One step of a curve: the largest loss or norm, or the smallest gap, of that step."""

    step: int
    value: float


def curves(readings: Iterable[Reading]) -> dict[str, tuple[Point, ...]]:
    """For each quantity of `CURVES` its worst value of each step; a value that is not finite is always the worst."""
    found: dict[str, dict[int, float]] = {quantity: {} for quantity in CURVES}
    for reading in readings:
        steps = found.get(reading.quantity)
        if steps is not None:
            worse = min if reading.quantity == EIGENGAP else max
            before = steps.get(reading.step, reading.value)
            values = (before, reading.value)
            steps[reading.step] = next((v for v in values if not math.isfinite(v)), worse(values))
    return {
        quantity: tuple(Point(step=step, value=value) for step, value in sorted(steps.items()))
        for quantity, steps in found.items()
        if steps
    }


def first_abnormal(readings: Iterable[Reading]) -> Reading | None:
    """The first reading that is not finite, or a gap that is too small."""
    return next((r for r in readings if abnormal(r.quantity, r.value)), None)


def abnormal(quantity: str, value: float) -> bool:
    """Whether one value of a quantity is out of order. An infinite gap belongs to a matrix of order one."""
    if quantity == EIGENGAP:
        return not value > THRESHOLD
    return not math.isfinite(value)
