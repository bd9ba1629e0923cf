"""What a report is made of, gathered from a run directory. Imports no torch."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brainbrr_debug.records import Finding, Reading
from brainbrr_debug.report.curves import Point, curves, first_abnormal
from brainbrr_debug.report.heat import Heat, heat
from brainbrr_debug.rundir import RunDir, RunDirError

if TYPE_CHECKING:
    from brainbrr_debug.report.signal import Signal

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
    signals: tuple[Signal, ...] = ()
    steps: int = 0
    damaged: int = 0


def gather(run: RunDir, *, show_signal: bool = False) -> Material:
    """Everything of a run; with `show_signal` the signal of the samples that its latest verdict names, too.

    Raises RunDirError for a verdict that cannot be read or whose signal is not to be had, and CaptureError for a
    capture that is damaged.
    """
    readings, findings = run.readings(), run.findings()
    verdicts = tuple(read_verdict(path) for path in run.list_verdicts())
    return Material(
        name=run.path.resolve().name,
        verdicts=verdicts,
        findings=findings.items,
        environment=run.environment(),
        curves=curves(readings.items),
        heat=heat(readings.items),
        first_abnormal=first_abnormal(readings.items),
        certificate=_certificate(run.path / CERTIFICATE),
        captures=tuple(f"captures/{path.name}" for path in run.list_captures()),
        signals=_signals(run, verdicts) if show_signal else (),
        steps=len({reading.step for reading in readings.items}),
        damaged=readings.damaged + findings.damaged,
    )


def _signals(run: RunDir, verdicts: Sequence[Mapping[str, Any]]) -> tuple[Signal, ...]:
    from brainbrr_debug.report.signal import signals_of

    if not verdicts:
        raise RunDirError(
            f"{run.path}: has no verdict, so there is no sample whose signal could be shown; bisect first"
        )
    captures = [path for path in run.list_captures() if int(path.stem[:6]) == verdicts[-1]["step"]]
    if not captures:
        raise RunDirError(f"{run.path}: holds no capture of step {verdicts[-1]['step']}, so there is no signal to show")
    return signals_of(captures[0], verdicts[-1])


def read_verdict(path: Path) -> dict[str, Any]:
    """A verdict as it was written. Raises RunDirError for a file that is none."""
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
