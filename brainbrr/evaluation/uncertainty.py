"""The intervals of a report: every pooled metric over patients drawn anew, thresholds held."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from brainbrr.evaluation.auroc import BINS, ScoreHistogram
from brainbrr.evaluation.bootstrap import (
    COVERAGE,
    FEWEST,
    REPLICATES,
    SEED,
    Floats,
    Interval,
    Statistic,
    draws,
    interval,
    of_sums,
    ratio,
)
from brainbrr.evaluation.nedc import EPOCH_S
from brainbrr.evaluation.patients import PatientResult
from brainbrr.evaluation.scoring import SECONDS_PER_DAY, Score, fa_key
from brainbrr.evaluation.szcore import RULES


@dataclass(frozen=True, kw_only=True)
class Uncertainty:
    """Intervals by the name of their metric; none where there are too few patients, and `why` says so."""

    patients: int
    why: str
    intervals: Mapping[str, Interval]

    def text(self, metric: str) -> str:
        """One interval for a table."""
        return self.intervals[metric].text() if metric in self.intervals else "–"

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe, with how they were drawn."""
        if not self.intervals:
            return {"given": False, "why": self.why, "patients": self.patients}
        return {
            "given": True,
            "method": "percentile bootstrap over patients, thresholds held",
            "patients": self.patients,
            "replicates": REPLICATES,
            "seed": SEED,
            "coverage": COVERAGE,
            "intervals": {name: dataclasses.asdict(found) for name, found in self.intervals.items()},
        }


def uncertainty(patients: Sequence[PatientResult], points: Mapping[float, Score | None]) -> Uncertainty:
    """The intervals over `patients`; `points` are the pooled operating points by their rate of false alarms."""
    if len(patients) < FEWEST:
        why = f"{len(patients)} patient; expected at least {FEWEST} to draw from, else every draw is the same"
        return Uncertainty(patients=len(patients), why=why, intervals={})
    weights = draws(len(patients))
    statistics = {**_overall(patients), **_points(patients, points), **_rules(patients)}
    found = {name: interval(statistic, weights) for name, statistic in statistics.items()}
    return Uncertainty(patients=len(patients), why="", intervals=found)


def fa_at_key(rate: float) -> str:
    """The name of the false alarms that there are at the threshold for `rate`."""
    return f"fa_per_24h_at_{rate:g}fa"


def _overall(patients: Sequence[PatientResult]) -> dict[str, Statistic]:
    counts = np.array(
        [np.concatenate([patient.histogram.positives, patient.histogram.negatives]) for patient in patients],
        dtype=np.float64,
    )
    bins = np.array(
        [
            np.concatenate(
                [patient.reliability.positives - patient.reliability.confidence, patient.reliability.samples]
            )
            for patient in patients
        ]
    )
    return {"auroc": of_sums(counts, _auroc), "ece": of_sums(bins, _ece)}


def _auroc(counts: Floats) -> float | None:
    return ScoreHistogram(positives=counts[:BINS].astype(np.int64), negatives=counts[BINS:].astype(np.int64)).auroc


def _ece(bins: Floats) -> float:
    errors, samples = np.split(bins, 2)
    return float(np.abs(errors).sum() / samples.sum())


def _points(patients: Sequence[PatientResult], points: Mapping[float, Score | None]) -> dict[str, Statistic]:
    found: dict[str, Statistic] = {}
    for rate, score in points.items():
        if score is None:
            continue
        scores = [patient.sweep.score_at(score.threshold) for patient in patients]
        found[fa_key(rate)] = ratio([each.detected for each in scores], [each.references for each in scores])
        found[fa_at_key(rate)] = ratio([24 * each.false_alarms for each in scores], [each.hours for each in scores])
    return found


def _rules(patients: Sequence[PatientResult]) -> dict[str, Statistic]:
    found: dict[str, Statistic] = {}
    days = [patient.rules.duration_s / SECONDS_PER_DAY for patient in patients]
    for rule, unit in (("epoch", EPOCH_S), ("ovlp", 1.0), ("taes", 1.0)):
        parts = [getattr(patient.rules, rule) for patient in patients]
        tp, fp, fn = (
            np.array([getattr(part, name) for part in parts], dtype=np.float64) for name in ("tp", "fp", "fn")
        )
        found |= _of_counts(f"nedc.{rule}", tp, tp + fn, fp) | {f"nedc.{rule}.fa24": ratio(fp * unit, days)}
    for rule in RULES:
        hits = [patient.rules.szcore[rule] for patient in patients]
        tp, targets, fp = (np.array([getattr(h, name) for h in hits]) for name in ("tp", "ref_true", "fp"))
        seconds = np.array([h.seconds for h in hits])
        found |= _of_counts(f"szcore.{rule}", tp, targets, fp)
        found[f"szcore.{rule}.fp_per_24h"] = ratio(fp * SECONDS_PER_DAY, seconds)
    return found


def _of_counts(prefix: str, tp: Any, targets: Any, fp: Any) -> dict[str, Statistic]:
    return {
        f"{prefix}.sensitivity": ratio(tp, targets),
        f"{prefix}.precision": ratio(tp, tp + fp),
        f"{prefix}.f1": ratio(2 * tp, targets + tp + fp),
    }
