"""A stream gives, in any chunks, what the same rule gives for the whole recording."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from brainbrr import StreamingDetector
from brainbrr.config import ELECTRODES, Config, ConfigError
from brainbrr.configure import build_config
from brainbrr.data.errors import RecordingError
from brainbrr.data.preprocess import preprocess
from brainbrr.evaluation.events import NonFiniteOutput
from brainbrr.evaluation.streaming import newest_probabilities
from brainbrr.training.setup import new_detector

RATE = 250.0


def configured(*, causal: bool = True) -> Config:
    values = {
        "data": {"window_size": 4, "stride": 4},
        "preprocessing": {"causal": causal},
        "model": {"architecture": "tcn", "tcn": {"num_layers": 1, "channels": [4], "stride_down": 256}},
        "evaluation": {"stride": 2},
    }
    return build_config(values, source="test")


CONFIG = configured()
torch.manual_seed(0)
DETECTOR = new_detector(CONFIG)


def eeg(seconds: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 30, (19, int(seconds * RATE))).astype(np.float32)


def offline(signal: np.ndarray) -> np.ndarray:
    prepared = preprocess(signal, RATE, CONFIG.preprocessing).signal
    return newest_probabilities(DETECTOR, prepared, window=4 * 256, stride=2 * 256)


def stream() -> StreamingDetector:
    return StreamingDetector(DETECTOR, CONFIG, rate=RATE)


@settings(max_examples=25)
@given(seconds=st.sampled_from([0.7, 3.99, 4.0, 5.5, 11.3]), data=st.data())
def test_chunked_is_offline(seconds: float, data: st.DataObject) -> None:
    signal = eeg(seconds)
    cuts = sorted(data.draw(st.lists(st.integers(0, signal.shape[1]), max_size=8)))
    running, pieces, at = stream(), [], 0.0
    for part in (*np.split(signal, cuts, axis=1), None):
        judged = running.finish() if part is None else running.push(part)
        assert judged.start_s == at
        at += judged.probabilities.size / 256
        pieces.append(judged.probabilities)
    np.testing.assert_array_equal(np.concatenate(pieces), offline(signal))


def test_the_rule_window_by_window() -> None:
    """Brute force: every sample from the first window that ends at or behind it."""
    prepared = preprocess(eeg(11.3), RATE, CONFIG.preprocessing).signal
    n, found = prepared.shape[1], newest_probabilities(DETECTOR, prepared, window=1024, stride=512)
    for sample in (0, 1023, 1024, 1535, 1536, n - 1):
        end = next(end for end in (*range(1024, n, 512), n) if end > sample)
        with torch.no_grad():
            logits = DETECTOR(torch.from_numpy(prepared[:, end - 1024 : end].copy())[None])[0]
        assert found[sample] == torch.sigmoid(logits)[sample - end].item()


def test_no_sample_waits_longer_than_the_latency() -> None:
    running, judged, pushed = stream(), 0.0, 0.0
    for start in range(0, 5000, 50):
        judged += running.push(eeg(20)[:, start : start + 50]).probabilities.size / 256
        pushed += 50 / RATE
        if judged:  # from the first full window on
            assert pushed - judged <= running.latency_s + 1e-9


def test_state_saved_and_restored() -> None:
    signal = eeg(11.3)
    first = stream()
    head = first.push(signal[:, :1777]).probabilities
    second = stream()
    second.restore(first.state())
    first.push(eeg(5, seed=1))  # must not reach into what was saved
    rest = [second.push(signal[:, 1777:]).probabilities, second.finish().probabilities]
    np.testing.assert_array_equal(np.concatenate([head, *rest]), offline(signal))


def test_labels_in_any_order_and_without_the_midline() -> None:
    signal = eeg(6)
    order = [i for i, name in enumerate(ELECTRODES) if name not in ("Fz", "Pz")][::-1]
    labels = [f"EEG {ELECTRODES[i].upper()}-REF" for i in order]
    running = [StreamingDetector(DETECTOR, CONFIG, rate=RATE, labels=labels) for _ in range(2)]
    whole = running[0].push(signal[order]).probabilities
    parts = [running[1].push(part).probabilities for part in np.split(signal[order], [300, 301, 900], axis=1)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert whole.size


def test_what_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"preprocessing.causal is false: .* train with --set preprocessing.causal"):
        StreamingDetector(DETECTOR, configured(causal=False), rate=RATE)
    with pytest.raises(RecordingError, match="no signal for F3"):
        StreamingDetector(DETECTOR, CONFIG, rate=RATE, labels=["Fp1"])
    with pytest.raises(ValueError, match=r"samples of shape \(3, 10\); expected \(19, n\)"):
        stream().push(np.zeros((3, 10)))


def test_a_broken_detector_is_named() -> None:
    broken = new_detector(CONFIG)
    torch.nn.init.constant_(next(broken.parameters()), torch.nan)
    with pytest.raises(NonFiniteOutput, match="logits are not finite in the window ending at sample 1024"):
        StreamingDetector(broken, CONFIG, rate=RATE).push(eeg(8))
