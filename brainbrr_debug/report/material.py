"""What a report is made of, gathered from a run directory. Imports no torch."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from brainbrr_debug.quantities import EIGENGAP, GRADIENT_NORM, LOSS
from brainbrr_debug.records import Finding, Reading
from brainbrr_debug.rundir import RunDir, RunDirError

THRESHOLD = 1e-6
"""Relative gap at or below which a reading counts as abnormal; the same as `spectral.THRESHOLD`, which needs torch."""

CURVES = (LOSS, GRADIENT_NORM, EIGENGAP)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One step of a curve: the largest loss or norm, or the smallest gap, of that step."""

    step: int
    value: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """One run: verdicts in the order they were reached, latest last; `curves` by quantity; `damaged` torn lines."""

    name: str
    verdicts: tuple[Mapping[str, Any], ...] = ()
    findings: tuple[Finding, ...] = ()
    environment: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    curves: Mapping[str, tuple[Point, ...]] = dataclasses.field(default_factory=dict)
    first_abnormal: Reading | None = None
    captures: tuple[str, ...] = ()
    steps: int = 0
    damaged: int = 0


def gather(run: RunDir) -> Material:
    """Everything of a run. Raises RunDirError for a verdict that cannot be read."""
    readings, findings = run.readings(), run.findings()
    return Material(
        name=run.path.resolve().name,
        verdicts=tuple(_verdict(path) for path in run.list_verdicts()),
        findings=findings.items,
        environment=run.environment(),
        curves=curves(readings.items),
        first_abnormal=first_abnormal(readings.items),
        captures=tuple(f"captures/{path.name}" for path in run.list_captures()),
        steps=len({reading.step for reading in readings.items}),
        damaged=readings.damaged + findings.damaged,
    )


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


def _verdict(path: Any) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunDirError(f"{path}: cannot be read: {error}; remove it, or bisect the capture again") from error
    if not isinstance(values, dict) or "sentence" not in values:
        raise RunDirError(f"{path}: is no verdict; remove it, or bisect the capture again")
    return values
