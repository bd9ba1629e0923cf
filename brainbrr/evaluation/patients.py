"""What an evaluation keeps of a recording and of a patient: counts, events, a picture's worth of probabilities.

None of it grows with the length of a recording but its events.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from brainbrr.data.labels import Event
from brainbrr.evaluation.auroc import ScoreHistogram
from brainbrr.evaluation.calibration import Reliability
from brainbrr.evaluation.compare import Comparison, compare_events, pooled
from brainbrr.evaluation.scoring import Sweep, pool

COLUMNS = 600
"""Of the picture of a recording."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RecordingResult:
    """One recording. `auroc` is None without or with only seizures.

    `references` are its seizures within the recording, overlapping ones joined; `altered_references` counts labelled
    events that were cut to the recording, dropped as empty, or united because they overlap. `events` are those of the
    configured thresholds, `events_at` those at thresholds that were given. `peaks` (at most COLUMNS,) float32 are the
    largest probabilities of equal stretches.
    """

    name: str
    patient: str
    auroc: float | None
    ece: float | None
    altered_references: int
    references: tuple[Event, ...]
    events: tuple[Event, ...]
    events_at: dict[float, tuple[Event, ...]]
    peaks: npt.NDArray[np.float32]
    sweep: Sweep

    @property
    def hours(self) -> float:
        """Length of the recording."""
        return self.sweep.hours

    @property
    def seizures(self) -> int:
        """Reference events."""
        return self.sweep.references

    @property
    def duration_s(self) -> float:
        """Length of the recording, s."""
        return self.sweep.samples / self.sweep.rate

    @functools.cached_property
    def rules(self) -> Comparison:
        """The events at the configured thresholds by NEDC's and SzCORE's rules."""
        return compare_events(self.references, self.events, self.duration_s)

    def rules_at(self, threshold: float) -> Comparison:
        """The same at one of the given thresholds."""
        return compare_events(self.references, self.events_at[threshold], self.duration_s)


@dataclass(frozen=True, kw_only=True, eq=False)
class PatientResult:
    """All recordings of one patient; their samples, binned."""

    name: str
    recordings: tuple[RecordingResult, ...]
    histogram: ScoreHistogram
    reliability: Reliability

    @functools.cached_property
    def sweep(self) -> Sweep:
        """The sum over the recordings."""
        return pool([recording.sweep for recording in self.recordings])

    @functools.cached_property
    def rules(self) -> Comparison:
        """The sum over the recordings, at the configured thresholds."""
        return pooled([recording.rules for recording in self.recordings])


def mean_over_patients(patients: Sequence[PatientResult]) -> dict[str, dict[str, float | None]]:
    """SzCORE's ratios as its tables have them: of each patient, then their mean without those that are undefined."""
    parts = [{rule: hits.to_dict() for rule, hits in patient.rules.szcore.items()} for patient in patients]
    names = ("sensitivity", "precision", "f1", "fp_per_24h")
    return {rule: {name: _mean([part[rule][name] for part in parts]) for name in names} for rule in parts[0]}


def _mean(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else None


def peaks(prob: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The largest of each of at most COLUMNS equal stretches of `prob` (N,)."""
    columns = min(COLUMNS, prob.size)
    return np.maximum.reduceat(prob, np.arange(columns, dtype=np.int64) * prob.size // columns)
