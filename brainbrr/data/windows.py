"""Windows of a recording: where they start, and how much seizure each holds.

Letters: W windows, L samples of a window, n samples of the recording. A run is a half-open pair of samples.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from brainbrr.config import SAMPLING_RATE
from brainbrr.data.labels import sample_bounds, unite
from brainbrr.data.stored import CachedRecording

Samples = npt.NDArray[np.int64]

BACKGROUND, PARTIAL, FULL = 0, 1, 2
_FULL_SHARE = 0.99  # a window of which at least this share is seizure counts as all seizure


def window_starts(n: int, length: int, stride: int) -> Samples:
    """(W,) first samples: every `stride` from 0 until a window reaches the end. The last one may reach past it.

    Raises ValueError for a length or stride below one sample.
    """
    if length < 1 or stride < 1:
        raise ValueError(f"windows of {length} samples every {stride}; expected at least 1 sample each")
    count = 1 + max(0, -(-(n - length) // stride))
    return np.arange(min(count, -(-n // stride)), dtype=np.int64) * stride


def seizure_runs(recording: CachedRecording) -> Samples:
    """(runs, 2) samples inside a seizure, joined; empty for an unlabelled recording."""
    return sample_bounds(unite(recording.events or (), touching=True), recording.n_samples, SAMPLING_RATE)


def gap_runs(recording: CachedRecording) -> Samples:
    """(runs, 2) samples in which nothing was recorded."""
    bounds = np.array([(gap.start_s, gap.stop_s) for gap in recording.gaps], dtype=np.float64).reshape(-1, 2)
    return np.clip(np.rint(bounds * SAMPLING_RATE), 0, recording.n_samples).astype(np.int64)


def window_kinds(recording: CachedRecording, starts: Samples, length: int) -> tuple[npt.NDArray[np.int8], Samples]:
    """(W,) kind of each window and (W,) its recorded samples: inside the recording and outside its gaps."""
    stops = np.minimum(starts + length, recording.n_samples)
    seizures, gaps = seizure_runs(recording), gap_runs(recording)
    recorded = stops - starts - _overlap(starts, stops, gaps)
    seizure = _overlap(starts, stops, seizures) - _overlap(starts, stops, _intersection(seizures, gaps))
    kinds = np.full(len(starts), BACKGROUND, dtype=np.int8)
    kinds[seizure > 0] = PARTIAL
    kinds[(seizure > 0) & (seizure >= _FULL_SHARE * recorded)] = FULL
    return kinds, recorded


def _overlap(starts: Samples, stops: Samples, runs: Samples) -> Samples:
    """(W,) samples of each window inside the runs, which must not overlap each other."""
    total = np.zeros(len(starts), dtype=np.int64)
    for first, last in runs:
        total += np.clip(np.minimum(stops, last) - np.maximum(starts, first), 0, None)
    return total


def _intersection(a: Samples, b: Samples) -> Samples:
    pairs = [(max(p, r), min(q, s)) for p, q in a for r, s in b if max(p, r) < min(q, s)]
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)
