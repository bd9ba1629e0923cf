"""What a report is made of, gathered from a run directory. Imports no torch."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from brainbrr_debug.records import Finding, Reading
from brainbrr_debug.report.curves import Point, curves, first_abnormal
from brainbrr_debug.report.heat import Heat, heat
from brainbrr_debug.rundir import RunDir, RunDirError

CERTIFICATE = "certificate.json"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """One run: verdicts in the order they were reached, latest last; `curves` by quantity; `damaged` torn lines."""

    name: str
    verdicts: tuple[Mapping[str, Any], ...] = ()
    findings: tuple[Finding, ...] = ()
    environment: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    curves: Mapping[str, tuple[Point, ...]] = dataclasses.field(default_factory=dict)
    heat: Heat | None = None
    first_abnormal: Reading | None = None
    certificate: Mapping[str, Any] = dataclasses.field(default_factory=dict)
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
        heat=heat(readings.items),
        first_abnormal=first_abnormal(readings.items),
        certificate=_certificate(run.path / CERTIFICATE),
        captures=tuple(f"captures/{path.name}" for path in run.list_captures()),
        steps=len({reading.step for reading in readings.items}),
        damaged=readings.damaged + findings.damaged,
    )


def _verdict(path: Path) -> dict[str, Any]:
    values = _document(path, "bisect the capture again")
    if "sentence" not in values:
        raise RunDirError(f"{path}: is no verdict; remove it, or bisect the capture again")
    return values


def _certificate(path: Path) -> dict[str, Any]:
    return _document(path, "prove the change again") if path.exists() else {}


def _document(path: Path, remedy: str) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunDirError(f"{path}: cannot be read: {error}; remove it, or {remedy}") from error
    if not isinstance(values, dict):
        raise RunDirError(f"{path}: holds a {type(values).__name__}, expected an object; remove it, or {remedy}")
    return values
