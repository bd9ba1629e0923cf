"""Preprocessing without a future: the same in any chunks, deaf to what comes later, and as good as the other."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brainbrr.config import Preprocessing
from brainbrr.data.causal import FLOOR_UV, TAU_S, CausalPreprocessor
from brainbrr.data.preprocess import preprocess

RATES = [128.0, 200.0, 250.0, 256.0, 400.0, 512.0, 1000.0]
OPTIONS = Preprocessing(causal=True, bandpass=(0.5, 50), notch_freq=None)


def noise(rate: float, seconds: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    n = int(seconds * rate) + 3
    return (40 * np.sin(2 * np.pi * 9 * np.arange(n) / rate) + rng.normal(0, 20, (19, n)) + 500).astype(np.float32)


def streamed(signal: np.ndarray, rate: float, cuts: list[int]) -> np.ndarray:
    causal = CausalPreprocessor(rate, OPTIONS)
    pieces = [causal.push(piece) for piece in np.split(signal, sorted(cuts), axis=1)]
    return np.concatenate([*pieces, causal.finish()], axis=1)


@settings(max_examples=20)
@given(rate=st.sampled_from(RATES), data=st.data())
def test_chunks_change_no_bit(rate: float, data: st.DataObject) -> None:
    signal = noise(rate, 4.3)
    cuts = data.draw(st.lists(st.integers(0, signal.shape[1]), max_size=6))
    whole = preprocess(signal, rate, OPTIONS).signal
    assert whole.shape[1] == round(signal.shape[1] * 256 / rate)
    np.testing.assert_array_equal(streamed(signal, rate, cuts), whole)


@pytest.mark.parametrize("rate", RATES)
def test_what_comes_later_changes_nothing_before(rate: float) -> None:
    signal = noise(rate, 6)
    other = signal.copy()
    other[:, int(4 * rate) :] = 1e4
    reach = round((4 - CausalPreprocessor(rate, OPTIONS).latency_s) * 256)
    first, second = (preprocess(x, rate, OPTIONS).signal[:, :reach] for x in (signal, other))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("rate", [200.0, 250.0, 400.0, 512.0, 1000.0])
def test_resampled_as_the_other_way_does(rate: float) -> None:
    off = Preprocessing(normalize=False, bandpass=(0.5, 50), notch_freq=None)
    causal = off.model_copy(update={"causal": True})
    t = np.arange(int(8 * rate)) / rate
    signal = np.stack([50 * np.sin(2 * np.pi * (2 + 2 * i) * t + i) for i in range(19)]).astype(np.float32)
    ours, theirs = (preprocess(signal, rate, options).signal[:, 256:-256] for options in (causal, off))
    np.testing.assert_allclose(ours, theirs, atol=1e-3)


def test_the_scale_is_the_running_root_mean_square() -> None:
    signal = noise(256, 20)
    plain = preprocess(signal, 256, OPTIONS.model_copy(update={"normalize": False, "clip_sigma": 1e4})).signal * 20.0
    weights = np.exp(-np.arange(plain.shape[1]) / (TAU_S * 256))
    for n in (0, 300, 5000):
        power = np.sum(weights[: n + 1][::-1] * plain[:, : n + 1].astype(np.float64) ** 2, axis=1)
        expected = plain[:, n] / np.maximum(np.sqrt(power / weights[: n + 1].sum()), FLOOR_UV)
        np.testing.assert_allclose(preprocess(signal, 256, OPTIONS).signal[:, n], expected, rtol=1e-4, atol=1e-5)


def test_a_dead_electrode_stays_silent() -> None:
    signal = noise(250, 20)
    signal[4] = 123.0
    assert np.abs(preprocess(signal, 250, OPTIONS).signal[4]).max() < 1e-6


def test_non_finite_samples_are_held_and_told() -> None:
    signal = noise(250, 8)
    signal[2, 500:510] = np.nan
    found = preprocess(signal, 250, OPTIONS)
    assert np.isfinite(found.signal).all()
    assert found.notes == ("10 non-finite samples of C3 from 2 s held",)
    np.testing.assert_array_equal(streamed(signal, 250, [505]), found.signal)


def test_state_saved_and_restored() -> None:
    signal = noise(400, 5)
    first = CausalPreprocessor(400, OPTIONS)
    head = first.push(signal[:, :900])
    saved = copy.deepcopy(first.state)
    second = CausalPreprocessor(400, OPTIONS)
    second.state = saved
    rest = np.concatenate([second.push(signal[:, 900:]), second.finish()], axis=1)
    np.testing.assert_array_equal(np.concatenate([head, rest], axis=1), preprocess(signal, 400, OPTIONS).signal)


def test_a_rate_of_no_simple_ratio_is_refused() -> None:
    with pytest.raises(ValueError, match=r"256\.002 Hz is no simple ratio of 256 Hz"):
        CausalPreprocessor(256.0017, OPTIONS)
