"""Masks, runs and events: three forms of the same stretches of a recording, and the ways between them.

Letters: N samples of a recording, R runs. A run is a half-open pair of samples [start, stop); runs are int64 (R, 2),
ascending and free of overlap. Everything behind the thresholds works on runs: there are few of them, and what dense
morphology does sample by sample is a comparison of lengths here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from brainbrr.data.labels import Event, sample_bounds

Runs: TypeAlias = npt.NDArray[np.int64]
Mask: TypeAlias = npt.NDArray[np.bool_]


class EvaluationError(ValueError):
    """A recording or a detector that cannot be evaluated: what was found, what was expected, what to do."""


class NonFiniteOutput(EvaluationError):
    """A detector that gives logits which are no numbers."""


def no_runs() -> Runs:
    """Zero runs, (0, 2)."""
    return np.empty((0, 2), dtype=np.int64)


def runs_of(mask: Mask) -> Runs:
    """The maximal stretches of True in `mask` (N,)."""
    if mask.size == 0:
        return no_runs()
    edges = np.flatnonzero(mask[1:] != mask[:-1]) + 1
    first = [0] if mask[0] else []
    last = [mask.size] if mask[-1] else []
    return np.concatenate([first, edges, last]).astype(np.int64).reshape(-1, 2)


def mask_of(runs: Runs, n: int) -> Mask:
    """Bool (n,): True inside the runs. Runs that touch become one stretch."""
    lengths = np.diff(runs.reshape(-1), prepend=0, append=n)
    values = np.arange(lengths.size) % 2 == 1
    return np.repeat(values, lengths)


def runs_from_events(events: Iterable[Event], rate: float, n: int) -> Runs:
    """Events in seconds as runs of a recording of `n` samples at `rate` Hz.

    Times are rounded to the nearest sample and cut to the recording; what is left without a sample is dropped, and
    events that overlap become one. Events that only touch stay apart: a table that lists two seizures means two.
    """
    events = tuple(events)
    if not all(math.isfinite(event.start_s) and math.isfinite(event.stop_s) for event in events):
        raise EvaluationError("an event starts or stops at a non-finite time; expected seconds")
    runs = sample_bounds(events, n, rate)
    runs = runs[runs[:, 1] > runs[:, 0]]
    if len(runs) == 0:
        return no_runs()
    runs = runs[np.lexsort((runs[:, 1], runs[:, 0]))]
    reach = np.maximum.accumulate(runs[:, 1])
    fresh = np.append(True, runs[1:, 0] >= reach[:-1])
    last = np.append(np.flatnonzero(fresh)[1:], len(runs)) - 1
    return np.stack([runs[fresh, 0], reach[last]], axis=1)


def events_from_runs(runs: Runs, rate: float, confidences: Sequence[float] | None = None) -> tuple[Event, ...]:
    """Runs at `rate` Hz as events in seconds; without `confidences` each is certain (1.0)."""
    sure = [1.0] * len(runs) if confidences is None else confidences
    return tuple(
        Event(start_s=start / rate, stop_s=stop / rate, confidence=float(confidence))
        for (start, stop), confidence in zip(runs.tolist(), sure, strict=True)
    )
