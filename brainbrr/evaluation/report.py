"""What an evaluation found: per recording and pooled, as metrics by name, as JSON and as rows of a table."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

from brainbrr.data.labels import Event
from brainbrr.evaluation.events import EvaluationError
from brainbrr.evaluation.scoring import Score, Sweep, fa_key


@dataclass(frozen=True, kw_only=True)
class OperatingPoint:
    """The threshold for one rate of false alarms, and what it gives; both None where the rate is unreachable."""

    fa_rate: float
    threshold: float | None
    score: Score | None

    @property
    def reachable(self) -> bool:
        """Whether any threshold keeps to the rate."""
        return self.threshold is not None


@dataclass(frozen=True, kw_only=True)
class RecordingResult:
    """One recording. `events` are those of the configured thresholds; `auroc` is None without or with only seizures.

    `altered_references` counts labelled events that were cut to the recording, dropped as empty, or united because
    they overlap.
    """

    name: str
    patient: str
    auroc: float | None
    altered_references: int
    events: tuple[Event, ...]
    sweep: Sweep

    @property
    def hours(self) -> float:
        """Length of the recording."""
        return self.sweep.hours

    @property
    def seizures(self) -> int:
        """Reference events."""
        return self.sweep.references


@dataclass(frozen=True, kw_only=True)
class EvaluationReport:
    """All recordings. `sweep` is their sum: `choose_threshold(report.sweep, rate)` serves other patients.

    `points` hold one operating point for each rate, the threshold chosen on these very recordings or given, as
    `threshold_source` says. `loss` is the mean over windows, None for scores that come from no detector. `unlabelled`
    names recordings that were left out because nothing is known about their seizures.
    """

    recordings: tuple[RecordingResult, ...]
    unlabelled: tuple[str, ...]
    sweep: Sweep
    auroc: float | None
    auroc_error: float | None
    loss: float | None
    points: tuple[OperatingPoint, ...]
    threshold_source: Literal["these recordings", "given"]
    configured: Score
    """The score at the configured thresholds."""

    def metrics(self) -> dict[str, float | None]:
        """Pooled metrics by name: `loss`, `auroc` and `sensitivity_at_…fa` a rate; None: unreachable, undefined."""
        return {
            "loss": self.loss,
            "auroc": self.auroc,
            **{fa_key(point.fa_rate): point.score.sensitivity if point.score else None for point in self.points},
        }

    def scalars(self) -> dict[str, float]:
        """As `metrics`, with NaN for None: for what plots numbers or looks for the best of them."""
        return {name: math.nan if value is None else value for name, value in self.metrics().items()}

    def metric(self, name: str) -> float | None:
        """One of `metrics`. Raises EvaluationError for a name that is not among them."""
        metrics = self.metrics()
        if name not in metrics:
            raise EvaluationError(
                f"no metric {name!r}; there are {', '.join(metrics)}: add the rate to evaluation.fa_rates"
            )
        return metrics[name]

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe: no NaN, no infinity, no arrays."""
        sweep = self.sweep
        return {
            "pooled": {
                **self.metrics(),
                "auroc_error": self.auroc_error,
                "hours": sweep.hours,
                "seizures": sweep.references,
                "threshold_source": self.threshold_source,
                "configured": dataclasses.asdict(self.configured),
                "points": [_point(point) for point in self.points],
                "altered_references": sum(recording.altered_references for recording in self.recordings),
                "sweep": {
                    "thresholds": list(sweep.thresholds),
                    "detected": list(sweep.detected),
                    "false_alarms": list(sweep.false_alarms),
                    "false_seconds": [samples / sweep.rate for samples in sweep.false_samples],
                },
            },
            "recordings": [self._recording(recording) for recording in self.recordings],
            "unlabelled": list(self.unlabelled),
        }

    def _recording(self, recording: RecordingResult) -> dict[str, Any]:
        return {
            "name": recording.name,
            "patient": recording.patient,
            "hours": recording.hours,
            "seizures": recording.seizures,
            "altered_references": recording.altered_references,
            "auroc": recording.auroc,
            "configured": dataclasses.asdict(recording.sweep.score_at(self.configured.threshold)),
            "points": [_point(_at(point, recording.sweep)) for point in self.points],
            "events": [dataclasses.asdict(event) for event in recording.events],
        }

    def rows(self) -> list[list[str]]:
        """A table: header, one row a recording, the pooled row; "2/3 · 1 FA" is 2 of 3 seizures with 1 false alarm."""
        header = ["recording", "patient", "hours", "AUROC", *(f"at {p.fa_rate:g} FA/24 h" for p in self.points)]
        body = [
            [r.name, r.patient, f"{r.hours:.2f}", _number(r.auroc), *(_cell(_at(p, r.sweep)) for p in self.points)]
            for r in self.recordings
        ]
        pooled = ["pooled", "", f"{self.sweep.hours:.2f}", _number(self.auroc), *(_cell(p) for p in self.points)]
        return [header, *body, pooled]

    def point_rows(self) -> list[list[str]]:
        """A table of the operating points: the rate allowed, threshold, sensitivity and the rate there is."""
        header = ["allowed FA/24 h", "threshold", "sensitivity", "FA/24 h", "falsely marked"]
        return [header, *(_point_row(point) for point in self.points)]


def _at(point: OperatingPoint, sweep: Sweep) -> OperatingPoint:
    """The pooled operating point in one recording: the same threshold, that recording's score."""
    score = None if point.threshold is None else sweep.score_at(point.threshold)
    return dataclasses.replace(point, score=score)


def _point(point: OperatingPoint) -> dict[str, Any]:
    return {
        "fa_rate": point.fa_rate,
        "reachable": point.reachable,
        "score": dataclasses.asdict(point.score) if point.score else None,
    }


def _point_row(point: OperatingPoint) -> list[str]:
    if point.score is None:
        return [f"{point.fa_rate:g}", "unreachable", "–", "–", "–"]
    score = point.score
    return [
        f"{point.fa_rate:g}",
        f"{score.threshold:g}",
        _number(score.sensitivity),
        f"{score.fa_per_24h:.2f}",
        f"{score.false_share:.2%}",
    ]


def _cell(point: OperatingPoint) -> str:
    if point.score is None:
        return "unreachable"
    return f"{point.score.detected}/{point.score.references} · {point.score.false_alarms} FA"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
