"""What an evaluation found: per recording, per patient and pooled, as metrics by name and as rows of tables."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from brainbrr.evaluation.auroc import ScoreHistogram
from brainbrr.evaluation.calibration import Reliability
from brainbrr.evaluation.compare import Comparison, pooled
from brainbrr.evaluation.events import EvaluationError
from brainbrr.evaluation.patients import PatientResult, RecordingResult
from brainbrr.evaluation.scoring import Score, Sweep, fa_key
from brainbrr.evaluation.uncertainty import Uncertainty, fa_at_key, uncertainty
from brainbrr.terminal import table

THESE_RECORDINGS = "these recordings"


@dataclass(frozen=True, kw_only=True)
class OperatingPoint:
    """The threshold for one rate of false alarms, and what it gives; both None where the rate is unreachable.

    `rules` are NEDC's and SzCORE's at this threshold, for one that was given; `chosen_on` is the score on the
    recordings that gave it.
    """

    fa_rate: float
    threshold: float | None
    score: Score | None
    rules: Comparison | None = None
    chosen_on: Score | None = None

    @property
    def reachable(self) -> bool:
        """Whether any threshold keeps to the rate."""
        return self.threshold is not None


@dataclass(frozen=True, kw_only=True, eq=False)
class EvaluationReport:
    """All recordings. `sweep` is their sum: `choose_threshold(report.sweep, rate)` serves other patients.

    `points` hold one operating point for each rate, the threshold chosen on these very recordings or given, as
    `threshold_source` says ("given", or the name of the split that gave them). `loss` is the mean over windows, None
    for scores that come from no detector. `unlabelled` names recordings that were left out because nothing is known
    about their seizures.
    """

    recordings: tuple[RecordingResult, ...]
    patients: tuple[PatientResult, ...]
    unlabelled: tuple[str, ...]
    sweep: Sweep
    histogram: ScoreHistogram
    reliability: Reliability
    loss: float | None
    points: tuple[OperatingPoint, ...]
    threshold_source: str
    configured: Score
    """The score at the configured thresholds."""

    @property
    def auroc(self) -> float | None:
        """Area under the ROC curve over all samples; None without or with only seizures."""
        return self.histogram.auroc

    @functools.cached_property
    def rules(self) -> Comparison:
        """NEDC's and SzCORE's scores at the configured thresholds, summed over the recordings."""
        return pooled([recording.rules for recording in self.recordings])

    @functools.cached_property
    def uncertainty(self) -> Uncertainty:
        """Intervals over patients."""
        return uncertainty(self.patients, {point.fa_rate: point.score for point in self.points})

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

    def rows(self) -> list[list[str]]:
        """A table: header, a row each recording and patient, pooled; "2/3 · 1 FA": 2 of 3 seizures, 1 false alarm."""
        header = ["recording", "patient", "hours", "AUROC", *(f"at {p.fa_rate:g} FA/24 h" for p in self.points)]
        recordings = [self._row(each.name, each.patient, each.sweep, each.auroc) for each in self.recordings]
        patients = [self._row("all", each.name, each.sweep, each.histogram.auroc) for each in self.patients]
        return [header, *recordings, *patients, self._row("pooled", "", self.sweep, self.auroc)]

    def _row(self, name: str, patient: str, sweep: Sweep, auroc: float | None) -> list[str]:
        cells = [_cell(at(point, sweep)) for point in self.points]
        return [name, patient, f"{sweep.hours:.2f}", shown(auroc), *cells]

    def point_rows(self) -> list[list[str]]:
        """A table of the operating points: the rate allowed, threshold, sensitivity and the rate there is."""
        head = ["allowed FA/24 h", "threshold", "sensitivity", "95 %", "FA/24 h", "95 %", "falsely marked", "SzCORE F1"]
        return [head, *map(self._point_row, self.points)]

    def _point_row(self, point: OperatingPoint) -> list[str]:
        rate, score = f"{point.fa_rate:g}", point.score
        if score is None:
            return [rate, "unreachable", *["–"] * 6]
        return [
            rate,
            f"{score.threshold:g}",
            shown(score.sensitivity),
            self.uncertainty.text(fa_key(point.fa_rate)),
            f"{score.fa_per_24h:.2f}",
            self.uncertainty.text(fa_at_key(point.fa_rate)),
            f"{score.false_share:.2%}",
            "–" if point.rules is None else shown(point.rules.szcore["event"].to_dict()["f1"]),
        ]

    def reliability_rows(self) -> list[list[str]]:
        """A table of the bins that hold samples."""
        rows = [
            [
                f"{each.low:.2f} to {each.high:.2f}",
                str(each.samples),
                shown(each.mean_probability),
                shown(each.seizure_share),
            ]
            for each in self.reliability.table()
            if each.samples
        ]
        return [["probability", "samples", "mean probability", "in seizures"], *rows]

    def headline(self) -> str:
        """AUROC and ECE with their intervals, and where the thresholds come from, in sentences."""
        found = self.uncertainty
        whence = "these recordings: optimistic" if self.threshold_source == THESE_RECORDINGS else self.threshold_source
        lines = [
            f"AUROC {shown(self.auroc)} ({found.text('auroc')}), "
            f"ECE {shown(self.reliability.ece)} ({found.text('ece')}); thresholds chosen on {whence}"
        ]
        lines += [f"no intervals: {found.why}"] if found.why else []
        return "\n".join(lines)


def text(report: EvaluationReport) -> str:
    """All tables, for a person."""
    tables = [report.rows(), report.point_rows(), report.rules.rows(), report.reliability_rows()]
    whole, points, rules, calibration = map(table, tables)
    return "\n\n".join([whole, report.headline(), points, f"at the configured thresholds\n{rules}", calibration])


def at(point: OperatingPoint, sweep: Sweep) -> OperatingPoint:
    """The pooled operating point in a part of the recordings: the same threshold, that part's score."""
    score = None if point.threshold is None else sweep.score_at(point.threshold)
    return dataclasses.replace(point, score=score, rules=None)


def shown(value: float | None) -> str:
    """A number for a table."""
    return "–" if value is None else f"{value:.3f}"


def _cell(point: OperatingPoint) -> str:
    if point.score is None:
        return "unreachable"
    return f"{point.score.detected}/{point.score.references} · {point.score.false_alarms} FA"


def results_by_patient(recordings: Sequence[RecordingResult]) -> dict[str, tuple[RecordingResult, ...]]:
    """The recordings of each patient, in the order in which patients first appear."""
    found: dict[str, list[RecordingResult]] = {}
    for recording in recordings:
        found.setdefault(recording.patient, []).append(recording)
    return {name: tuple(several) for name, several in found.items()}
