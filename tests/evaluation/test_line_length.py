from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from brainbrr.evaluation.baseline import line_length
from brainbrr.evaluation.events import EvaluationError

RATE = 256


def recording_of(make_recording: Any, signal: np.ndarray) -> Any:
    recording = make_recording(np.zeros(signal.shape[1]))
    recording.signal = signal.astype(np.float32)
    return recording


def brute_line_length(signal: np.ndarray) -> np.ndarray:
    n, step = signal.shape[1], 2 * RATE
    move = [0.0] + [float(np.abs(signal[:, t] - signal[:, t - 1]).mean()) for t in range(1, n)]
    steps = [float(np.mean(move[first : first + step])) for first in range(0, n, step)]
    smooth = np.array([np.mean(steps[max(0, k - 2) : k + 3]) for k in range(len(steps))])
    ratio = smooth / np.median(smooth)
    return (ratio**2 / (1 + ratio**2)).repeat(step)[:n]


@pytest.mark.parametrize("n", [2, 300, 512, 513, 15_360, 15_361, 16_000])
def test_it_is_what_it_says(n: int, make_recording: Any) -> None:
    signal = np.random.default_rng(n).normal(size=(19, n)) * np.linspace(1, 3, n)
    score = line_length(recording_of(make_recording, signal), n_samples=n)
    assert score.shape == (n,) and score.dtype == np.float32
    np.testing.assert_allclose(score, brute_line_length(signal.astype(np.float32)), rtol=1e-5)


def test_it_rises_where_the_trace_is_long_and_knows_the_recording_by_its_median(make_recording: Any) -> None:
    rng = np.random.default_rng(0)
    signal = rng.normal(size=(19, 300 * RATE))
    signal[:, 100 * RATE : 130 * RATE] *= 4
    score = line_length(recording_of(make_recording, signal), n_samples=signal.shape[1])
    assert score[110 * RATE : 120 * RATE].min() > 0.9
    assert abs(np.median(score) - 0.5) < 0.01
    louder = line_length(recording_of(make_recording, signal * 50), n_samples=signal.shape[1])
    np.testing.assert_allclose(louder, score, rtol=1e-4)


def test_a_flat_recording_scores_zero_and_half_a_flat_one_keeps_its_median(make_recording: Any) -> None:
    assert set(line_length(make_recording(np.full(5000, 3.0)), n_samples=5000)) == {0.0}
    signal = np.random.default_rng(0).normal(size=(19, 200 * RATE))
    signal[:, 40 * RATE :] = 0
    score = line_length(recording_of(make_recording, signal), n_samples=signal.shape[1])
    assert abs(score[10 * RATE] - 0.5) < 0.05 and score[-1] == 0


def test_a_recording_of_one_sample() -> None:
    class One:
        name = "one"

        def read(self, start: int, stop: int) -> np.ndarray:
            return np.ones((19, stop - start), dtype=np.float32)

    assert line_length(One(), n_samples=1).tolist() == [0.0]


def test_a_signal_that_is_no_number_is_an_error(make_recording: Any) -> None:
    trace = np.zeros(40_000)
    trace[20_000] = np.nan
    with pytest.raises(EvaluationError, match="rec_a: the signal between 60 and 120 s is not finite"):
        line_length(make_recording(trace, name="rec_a"), n_samples=40_000)
