"""The line-length detector: what a learned detector has to beat.

A seizure makes the trace longer: the mean of |x[t+1] - x[t]| over the electrodes, in steps of 2 s, smoothed over 10 s,
in units of the recording's own median. No parameter is learned; the threshold is chosen as for any detector.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from brainbrr.config import SAMPLING_RATE
from brainbrr.evaluation.events import EvaluationError
from brainbrr.evaluation.stitching import SignalReader

STEP_S = 2.0
SMOOTH_STEPS = 5
_STEPS_A_READ = 30


def line_length(recording: SignalReader, *, n_samples: int, rate: float = SAMPLING_RATE) -> npt.NDArray[np.float32]:
    """A score in [0, 1) for every sample, (N,) float32, that rises with the smoothed line length.

    It is r²/(1 + r²) of the ratio r to the recording's median: 0.5 at the median, 0.8 at twice, 0.9 at three times.
    The median leaves out steps without any movement; a recording that never moves scores 0 throughout. Raises
    EvaluationError when the signal is not finite.
    """
    step = round(STEP_S * rate)
    raw = _step_lengths(recording, n_samples, step, rate)
    smooth = _moving_mean(raw, SMOOTH_STEPS)
    moving = smooth[smooth > 0]
    ratio = smooth / np.median(moving) if moving.size else smooth
    score = np.square(ratio) / (1 + np.square(ratio))
    return np.repeat(score.astype(np.float32), step)[:n_samples]


def _step_lengths(recording: SignalReader, n_samples: int, step: int, rate: float) -> npt.NDArray[np.float64]:
    """Mean |x[t] - x[t-1]| of every step, of the last one over the samples it has; read block by block."""
    lengths = []
    block = step * _STEPS_A_READ
    for start in range(0, n_samples, block):
        stop = min(start + block, n_samples)
        signal = recording.read(max(0, start - 1), stop)
        if not np.isfinite(signal).all():
            raise EvaluationError(
                f"{recording.name}: the signal between {start / rate:g} and {stop / rate:g} s is not finite; "
                "expected finite σ: rebuild the cache"
            )
        if start == 0:  # the first sample has none before it: it does not move
            signal = np.pad(signal, ((0, 0), (1, 0)), mode="edge")
        moves = np.abs(np.diff(signal, axis=1)).mean(axis=0, dtype=np.float64)
        lengths += [moves[first : first + step].mean() for first in range(0, moves.size, step)]
    return np.array(lengths)


def _moving_mean(values: npt.NDArray[np.float64], width: int) -> npt.NDArray[np.float64]:
    """Centred mean of `width` values, of those there are at the borders."""
    kernel = np.ones(width)
    seen = np.convolve(np.ones_like(values), kernel, mode="full")
    total = np.convolve(values, kernel, mode="full")
    first = width // 2
    return (total / seen)[first : first + values.size]
