"""From the probabilities of a recording to events: hysteresis, morphology, durations, merging, confidence.

Letters: N samples of a recording, R runs (see `events`). The order is hysteresis, opening, closing, drop what is too
short, merge what is close, split what is too long. Splitting comes last: before the merge, the merge would undo it.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import numpy.typing as npt

from brainbrr.config import Hysteresis, Postprocessing
from brainbrr.data.labels import Event
from brainbrr.evaluation.events import EvaluationError, Runs, events_from_runs, no_runs, runs_of

Probabilities = npt.NDArray[np.float32]


def events_from_probabilities(
    prob: Probabilities, rate: float, postprocessing: Postprocessing, *, tau_on: float | None = None
) -> tuple[Event, ...]:
    """The seizure events in the probabilities `prob` (N,) of a recording at `rate` Hz, by the configured thresholds.

    `tau_on` moves both of them (see `thresholds`). Raises EvaluationError when a probability is not finite.
    """
    require_finite(prob, rate)
    runs = runs_from_probabilities(prob, rate, postprocessing, tau_on=tau_on)
    return events_from_runs(runs, rate, confidences(prob, runs, postprocessing.events.confidence))


def require_finite(prob: Probabilities, rate: float) -> None:
    """Raises EvaluationError naming the first second of `prob` (N,) that is not finite: a NaN is below no threshold."""
    finite = np.isfinite(prob)
    if not finite.all():
        first = int(np.argmin(finite))
        raise EvaluationError(
            f"{prob.size - np.count_nonzero(finite)} of {prob.size} probabilities are not finite, the first at "
            f"{first / rate:.3f} s; expected numbers from 0 to 1: look at the detector that gave them"
        )


def runs_from_probabilities(
    prob: Probabilities, rate: float, postprocessing: Postprocessing, *, tau_on: float | None = None
) -> Runs:
    """As `events_from_probabilities`, as runs; `tau_on` moves both thresholds (see `thresholds`)."""
    rule = postprocessing.hysteresis
    on, off = thresholds(rule, tau_on)
    runs = hysteresis(
        prob, tau_on=on, tau_off=off, min_onset=rule.min_onset_samples, min_offset=rule.min_offset_samples
    )
    runs = opening(runs, postprocessing.morphology.opening)
    runs = closing(runs, postprocessing.morphology.closing)
    runs = drop_shorter(runs, postprocessing.duration.min * rate)
    runs = merge(runs, postprocessing.events.tau_merge * rate)
    return split_longer(runs, postprocessing.duration.max * rate)


def thresholds(rule: Hysteresis, tau_on: float | None = None) -> tuple[float, float]:
    """The pair (tau_on, tau_off): the configured one, or `tau_on` with tau_off in the configured proportion to it."""
    if tau_on is None or tau_on == rule.tau_on:  # the configured pair itself, not a rounded product
        return rule.tau_on, rule.tau_off
    return tau_on, tau_on * (rule.tau_off / rule.tau_on)


def hysteresis(prob: Probabilities, *, tau_on: float, tau_off: float, min_onset: int, min_offset: int) -> Runs:
    """Runs of `prob` (N,) that enter at `tau_on` and leave at `tau_off`.

    A run starts at the first of at least `min_onset` samples in a row with p >= tau_on, and stops at the first of at
    least `min_offset` samples in a row with p < tau_off, or at the end of the recording. Thresholds are compared in
    the precision of `prob`.
    """
    low, high = prob.dtype.type(tau_off), prob.dtype.type(tau_on)
    onsets = opening(runs_of(prob >= high), min_onset)[:, 0]
    if len(onsets) == 0:
        return no_runs()
    offsets = np.append(opening(runs_of(prob < low), min_offset)[:, 0], prob.size)
    # Onsets with the same next offset lie in one event, which the first of them began.
    leaving, first = np.unique(np.searchsorted(offsets, onsets), return_index=True)
    return np.stack([onsets[first], offsets[leaving]], axis=1)


def opening(runs: Runs, length: int) -> Runs:
    """Binary opening with a flat window of `length` samples: runs shorter than it vanish, the others stay as they are.

    Outside the recording is background, so that a run at its border counts with the samples it has.
    """
    return drop_shorter(runs, length)


def closing(runs: Runs, length: int) -> Runs:
    """Binary closing with a flat window of `length` samples: gaps between runs shorter than it are filled.

    Outside the recording is background, so that nothing is filled between a run and the recording's border.
    """
    return merge(runs, length - 1)


def drop_shorter(runs: Runs, samples: float) -> Runs:
    """The runs of at least `samples` samples."""
    return runs[runs[:, 1] - runs[:, 0] >= samples]


def merge(runs: Runs, gap: float) -> Runs:
    """Runs that are at most `gap` samples apart become one."""
    if len(runs) == 0:
        return runs
    apart = runs[1:, 0] - runs[:-1, 1] > gap
    return np.stack([runs[np.append(True, apart), 0], runs[np.append(apart, True), 1]], axis=1)


def split_longer(runs: Runs, samples: float) -> Runs:
    """Runs of more than `samples` samples in as few parts as it takes, equal to a sample and none longer than that.

    Equal parts, because a short rest at the end would be an event that the shortest duration had ruled out.
    """
    longest = max(1, math.floor(samples))
    lengths = runs[:, 1] - runs[:, 0]
    parts = -(-lengths // longest)
    run = np.repeat(np.arange(len(runs)), parts)
    part = np.arange(len(run)) - np.repeat(np.cumsum(parts) - parts, parts)
    start = runs[run, 0] + lengths[run] * part // parts[run]
    stop = runs[run, 0] + lengths[run] * (part + 1) // parts[run]
    return np.stack([start, stop], axis=1)


def confidences(prob: Probabilities, runs: Runs, how: Literal["mean", "peak"]) -> list[float]:
    """One confidence a run: the mean or the largest probability in it."""
    if how == "peak":
        return [float(prob[start:stop].max()) for start, stop in runs.tolist()]
    return [float(prob[start:stop].mean(dtype=np.float64)) for start, stop in runs.tolist()]
