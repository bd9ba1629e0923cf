"""Event scores over a sweep of thresholds: any-overlap matching, false alarms per 24 h, choice of a threshold.

Letters: K thresholds of the grid, R runs (see `events`), N samples of a recording.

The rule is that of OVLP: a reference event is detected when any predicted event of the same recording shares time with
it, once however many do; a predicted event that shares time with no reference event is one false alarm. Borders that
only touch share nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from brainbrr.config import Postprocessing
from brainbrr.evaluation.events import EvaluationError, Runs
from brainbrr.evaluation.postprocess import Probabilities, runs_from_probabilities

SECONDS_PER_DAY = 86_400
LARGEST_FALSE_SHARE = 0.25  # of all time: ten false alarms a day of the longest allowed event are 0.07
# Even steps where thresholds usually lie, and tails for detectors that are very sure of themselves.
DEFAULT_THRESHOLDS = (
    *(0.0005, 0.001, 0.002, 0.005),
    *(step / 100 for step in range(1, 100)),
    *(0.995, 0.998, 0.999, 0.9995, 0.9999),
)


def fa_key(rate: float) -> str:
    """The name of the metric at `rate` false alarms per 24 h: "sensitivity_at_10fa", "sensitivity_at_2.5fa"."""
    return f"sensitivity_at_{rate:g}fa"


@dataclass(frozen=True, kw_only=True)
class Matching:
    """How predicted events meet reference events in one recording."""

    detected: int
    false_alarms: int
    false_samples: int


def match(references: Runs, predictions: Runs) -> Matching:
    """Match by any overlap; both are runs of one recording. `false_samples`: predicted samples outside references."""
    detected = int(_meets(references, predictions).sum())
    false_alarms = int(len(predictions) - _meets(predictions, references).sum())
    predicted = int((predictions[:, 1] - predictions[:, 0]).sum())
    return Matching(
        detected=detected, false_alarms=false_alarms, false_samples=predicted - _shared(references, predictions)
    )


def _meets(runs: Runs, others: Runs) -> np.ndarray:
    """Bool (R,): which of `runs` share a sample with any of `others`: more of them begin than have ended."""
    begun = np.searchsorted(others[:, 0], runs[:, 1], side="left")
    ended = np.searchsorted(others[:, 1], runs[:, 0], side="right")
    return begun > ended


def _shared(runs: Runs, others: Runs) -> int:
    """Samples in both: the samples of `runs` up to x are piecewise linear in x."""
    if len(runs) == 0 or len(others) == 0:
        return 0
    lengths = np.cumsum(runs[:, 1] - runs[:, 0])
    heights = np.stack([lengths - (runs[:, 1] - runs[:, 0]), lengths], axis=1)
    covered = np.interp(others, runs.reshape(-1), heights.reshape(-1))
    return round(float((covered[:, 1] - covered[:, 0]).sum()))


@dataclass(frozen=True, kw_only=True)
class Score:
    """What one threshold gives. `sensitivity` is None where there is no reference event."""

    threshold: float
    detected: int
    references: int
    false_alarms: int
    hours: float
    sensitivity: float | None
    fa_per_24h: float
    false_share: float
    """Share of the time that is marked and is no seizure: one endless event shows here, and not in its false alarms."""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Counts at every threshold of a grid, of one recording or of many; counts are all that many recordings keep."""

    thresholds: tuple[float, ...]
    rate: float
    samples: int
    references: int
    detected: tuple[int, ...]
    false_alarms: tuple[int, ...]
    false_samples: tuple[int, ...]

    @property
    def hours(self) -> float:
        """Length of what was swept."""
        return self.samples / self.rate / 3600

    def score_at(self, threshold: float) -> Score:
        """The score at a threshold of the grid. Raises EvaluationError for any other."""
        if threshold not in self.thresholds:
            raise EvaluationError(
                f"threshold {threshold} is not among the {len(self.thresholds)} that were swept; pass it to evaluate "
                "in `thresholds`"
            )
        k = self.thresholds.index(threshold)
        return Score(
            threshold=threshold,
            detected=self.detected[k],
            references=self.references,
            false_alarms=self.false_alarms[k],
            hours=self.hours,
            sensitivity=self.detected[k] / self.references if self.references else None,
            fa_per_24h=self.false_alarms[k] * SECONDS_PER_DAY * self.rate / self.samples,
            false_share=self.false_samples[k] / self.samples,
        )


def grid_of(*groups: Iterable[float]) -> tuple[float, ...]:
    """The ascending grid of all thresholds in `groups`. Raises EvaluationError when empty or not within 0 and 1."""
    grid = tuple(sorted({float(threshold) for group in groups for threshold in group}))
    if not grid or not all(0 < threshold < 1 for threshold in grid):
        raise EvaluationError(f"thresholds are {list(grid)}; expected at least one, each between 0 and 1")
    return grid


def sweep_recording(
    prob: Probabilities, references: Runs, rate: float, postprocessing: Postprocessing, grid: Sequence[float]
) -> Sweep:
    """Post-process and match the probabilities (N,) of one recording at every tau_on of `grid`, ascending."""
    matchings = [
        match(references, runs_from_probabilities(prob, rate, postprocessing, tau_on=tau_on)) for tau_on in grid
    ]
    return Sweep(
        thresholds=tuple(grid),
        rate=rate,
        samples=prob.size,
        references=len(references),
        detected=tuple(matching.detected for matching in matchings),
        false_alarms=tuple(matching.false_alarms for matching in matchings),
        false_samples=tuple(matching.false_samples for matching in matchings),
    )


def pool(sweeps: Sequence[Sweep]) -> Sweep:
    """The sum of sweeps over the same grid. Raises EvaluationError when there is none or their grids differ."""
    if not sweeps:
        raise EvaluationError("nothing to pool: no recording was scored")
    first = sweeps[0]
    if any((sweep.thresholds, sweep.rate) != (first.thresholds, first.rate) for sweep in sweeps):
        raise EvaluationError("sweeps differ in thresholds or sampling rate; expected one grid for all recordings")
    return Sweep(
        thresholds=first.thresholds,
        rate=first.rate,
        samples=sum(sweep.samples for sweep in sweeps),
        references=sum(sweep.references for sweep in sweeps),
        detected=tuple(map(sum, zip(*(sweep.detected for sweep in sweeps), strict=True))),
        false_alarms=tuple(map(sum, zip(*(sweep.false_alarms for sweep in sweeps), strict=True))),
        false_samples=tuple(map(sum, zip(*(sweep.false_samples for sweep in sweeps), strict=True))),
    )


def choose_threshold(sweep: Sweep, fa_rate: float) -> float | None:
    """The threshold that detects most at no more than `fa_rate` false alarms per 24 h; None when it is unreachable.

    Thresholds are taken from the highest down to the first that exceeds the rate or falsely marks more than
    LARGEST_FALSE_SHARE of the time. Far below it events melt into one that overlaps a seizure somewhere, and false
    alarms seem to vanish: a detector that calls a whole recording one seizure would be perfect by any overlap. Of
    thresholds that detect equally many the ones with fewest false alarms count, and of these the middle one, which has
    room to both sides on other recordings.
    """
    allowed: list[int] = []
    for k in reversed(range(len(sweep.thresholds))):
        # Products of whole numbers and a rate: a rate that is met exactly is not lost to rounding.
        too_many = sweep.false_alarms[k] * SECONDS_PER_DAY * sweep.rate > fa_rate * sweep.samples
        if too_many or sweep.false_samples[k] > LARGEST_FALSE_SHARE * sweep.samples:
            break
        allowed.append(k)
    if not allowed:
        return None
    merits = {k: (sweep.detected[k], -sweep.false_alarms[k]) for k in allowed}
    equal = [k for k in allowed if merits[k] == max(merits.values())]
    return sweep.thresholds[equal[len(equal) // 2]]
