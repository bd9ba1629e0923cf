"""An evaluation as one JSON document."""

from __future__ import annotations

import dataclasses
from typing import Any

from brainbrr.evaluation.calibration import Reliability
from brainbrr.evaluation.patients import PatientResult, RecordingResult, mean_over_patients
from brainbrr.evaluation.report import EvaluationReport, OperatingPoint, at
from brainbrr.evaluation.scoring import Score


def document(report: EvaluationReport) -> dict[str, Any]:
    """JSON-safe: no NaN, no infinity, no arrays."""
    return {
        "pooled": _pooled(report),
        "bootstrap": report.uncertainty.to_dict(),
        "patients": [_patient(report, patient) for patient in report.patients],
        "recordings": [_recording(report, recording) for recording in report.recordings],
        "unlabelled": list(report.unlabelled),
    }


def _pooled(report: EvaluationReport) -> dict[str, Any]:
    sweep = report.sweep
    return {
        **report.metrics(),
        "auroc_error": report.histogram.auroc_error,
        **_calibration(report.reliability),
        "hours": sweep.hours,
        "seizures": sweep.references,
        "threshold_source": report.threshold_source,
        "configured": _score(report.configured),
        "rules": report.rules.to_dict(),
        "szcore_mean_over_patients": mean_over_patients(report.patients),
        "points": [_point(point) for point in report.points],
        "altered_references": sum(recording.altered_references for recording in report.recordings),
        "sweep": {
            "thresholds": list(sweep.thresholds),
            "detected": list(sweep.detected),
            "false_alarms": list(sweep.false_alarms),
            "false_seconds": [samples / sweep.rate for samples in sweep.false_samples],
        },
    }


def _calibration(reliability: Reliability) -> dict[str, Any]:
    return {"ece": reliability.ece, "reliability": [dataclasses.asdict(each) for each in reliability.table()]}


def _patient(report: EvaluationReport, patient: PatientResult) -> dict[str, Any]:
    return {
        "name": patient.name,
        "recordings": [recording.name for recording in patient.recordings],
        "hours": patient.sweep.hours,
        "seizures": patient.sweep.references,
        "auroc": patient.histogram.auroc,
        "ece": patient.reliability.ece,
        "configured": _score(patient.sweep.score_at(report.configured.threshold)),
        "rules": patient.rules.to_dict(),
        "points": [_point(at(point, patient.sweep)) for point in report.points],
    }


def _recording(report: EvaluationReport, recording: RecordingResult) -> dict[str, Any]:
    return {
        "name": recording.name,
        "patient": recording.patient,
        "hours": recording.hours,
        "seizures": recording.seizures,
        "altered_references": recording.altered_references,
        "auroc": recording.auroc,
        "ece": recording.ece,
        "configured": _score(recording.sweep.score_at(report.configured.threshold)),
        "rules": recording.rules.to_dict(),
        "points": [_point(at(point, recording.sweep)) for point in report.points],
        "references": [dataclasses.asdict(event) for event in recording.references],
        "events": [dataclasses.asdict(event) for event in recording.events],
    }


def _point(point: OperatingPoint) -> dict[str, Any]:
    return {
        "fa_rate": point.fa_rate,
        "reachable": point.reachable,
        "threshold": point.threshold,
        "score": _score(point.score),
        "chosen_on": _score(point.chosen_on),
        "rules": point.rules.to_dict() if point.rules else None,
    }


def _score(score: Score | None) -> dict[str, Any] | None:
    return None if score is None else dataclasses.asdict(score)
