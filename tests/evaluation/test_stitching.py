from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from brainbrr.evaluation.events import EvaluationError
from brainbrr.evaluation.stitching import probabilities, window_starts


def stitch(detector: nn.Module, recording: Any, **changes: Any) -> np.ndarray:
    given = {"window": 100, "stride": 40, "batch_size": 3, "device": "cpu", "n_samples": recording.n_samples}
    return probabilities(detector, recording, **{**given, **changes})


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.asarray(x, dtype=np.float64)))


@pytest.mark.parametrize("n", [1, 37, 99, 100, 101, 140, 141, 1000])
def test_overlap_add_of_the_same_everywhere_is_the_identity(n: int, make_recording: Any, echo: nn.Module) -> None:
    logits = np.random.default_rng(n).normal(0, 3, n)
    prob = stitch(echo, make_recording(logits))
    assert prob.shape == (n,) and prob.dtype == np.float32
    np.testing.assert_allclose(prob, sigmoid(logits), rtol=1e-5)
    constant = stitch(echo, make_recording(np.full(n, 1.25)))
    np.testing.assert_allclose(constant, np.full(n, sigmoid(1.25)), rtol=1e-6)


def test_certainty_stays_within_0_and_1(make_recording: Any, echo: nn.Module) -> None:
    assert set(stitch(echo, make_recording(np.full(333, 200.0)), stride=7)) == {1.0}
    assert set(stitch(echo, make_recording(np.full(333, -200.0)), stride=7)) == {0.0}


@given(st.integers(1, 400), st.integers(1, 90), st.integers(1, 90))
def test_every_sample_lies_in_a_window_and_no_window_reaches_out(n: int, window: int, stride: int) -> None:
    starts = window_starts(n, window, min(stride, window))
    covered = np.zeros(n, dtype=int)
    for start in starts:
        assert start == 0 or start + window <= n
        covered[start : start + window] += 1
    assert covered.min() >= 1
    assert list(starts) == sorted(set(starts))


class Place(nn.Module):
    """Logits that tell where in the window a sample lies: +4 in the middle half, -4 outside."""

    def forward(self, signal: torch.Tensor) -> torch.Tensor:
        place = torch.arange(signal.shape[2]) / signal.shape[2]
        return torch.where((place >= 0.25) & (place < 0.75), 4.0, -4.0).expand(signal.shape[0], -1)


def brute_stitch(logits: dict[int, np.ndarray], n: int) -> np.ndarray:
    out = np.empty(n)
    for t in range(n):
        pairs = []
        for start, values in logits.items():
            if start <= t < start + values.size:
                place = t - start
                pairs.append((min(place + 1, values.size - place), sigmoid(values[place])))
        weights, probs = np.array(pairs).T
        out[t] = (weights * probs).sum() / weights.sum()
    return out


@settings(max_examples=20)
@given(st.integers(20, 120), st.integers(1, 20), st.integers(1, 5))
def test_overlap_add_is_the_weighted_mean_of_the_windows(n: int, stride: int, batch_size: int) -> None:
    class Reader:
        name = "rec"
        n_samples = n

        def read(self, start: int, stop: int) -> np.ndarray:
            return np.zeros((19, stop - start), dtype=np.float32)

    found = stitch(Place(), Reader(), window=20, stride=stride, batch_size=batch_size)
    window = Place()(torch.zeros(1, 19, 20))[0].numpy()
    np.testing.assert_allclose(found, brute_stitch(dict.fromkeys(window_starts(n, 20, stride), window), n), rtol=1e-5)


def test_the_middle_of_a_window_outweighs_the_edge_of_another(make_recording: Any) -> None:
    prob = stitch(Place(), make_recording(np.zeros(400)), stride=50)
    assert prob[60:340].min() > 0.5


def test_the_size_of_a_batch_changes_nothing(make_recording: Any, echo: nn.Module) -> None:
    recording = make_recording(np.random.default_rng(0).normal(size=777))
    whole = stitch(echo, recording, batch_size=100)
    assert all(np.array_equal(whole, stitch(echo, recording, batch_size=size)) for size in (1, 2, 5))


def test_a_short_recording_is_padded_with_zeros_and_cut_back(make_recording: Any) -> None:
    seen: list[torch.Tensor] = []

    class Look(nn.Module):
        def forward(self, signal: torch.Tensor) -> torch.Tensor:
            seen.append(signal)
            return signal[:, 0]

    prob = stitch(Look(), make_recording(np.ones(30)))
    assert prob.shape == (30,)
    assert seen[0].shape == (1, 19, 100)
    assert seen[0][0, 0].tolist() == [1.0] * 30 + [0.0] * 70


def test_the_detector_is_left_in_its_mode_and_without_gradients(make_recording: Any) -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))
            self.dropout = nn.Dropout(0.5)

        def forward(self, signal: torch.Tensor) -> torch.Tensor:
            assert not torch.is_grad_enabled()
            return self.dropout(signal[:, 0] * self.scale)

    detector, recording = Noisy().train(), make_recording(np.full(500, 2.0))
    before = torch.get_rng_state()
    np.testing.assert_allclose(stitch(detector, recording), sigmoid(2.0), rtol=1e-6)
    assert detector.training and detector.dropout.training
    assert torch.equal(torch.get_rng_state(), before)
    stitch(detector.eval(), recording)
    assert not detector.training


def test_half_precision_logits_are_taken(make_recording: Any) -> None:
    class Half(nn.Module):
        def forward(self, signal: torch.Tensor) -> torch.Tensor:
            return signal[:, 0].bfloat16()

    prob = stitch(Half(), make_recording(np.full(200, 0.5)))
    np.testing.assert_allclose(prob, sigmoid(0.5), rtol=1e-6)


class Fails(nn.Module):
    """NaN wherever the first electrode is 7."""

    def forward(self, signal: torch.Tensor) -> torch.Tensor:
        return torch.where(signal[:, 0] == 7, torch.nan, signal[:, 0])


def test_a_logit_that_is_no_number_is_an_error_with_recording_and_second(make_recording: Any) -> None:
    trace = np.zeros(2000)
    trace[1024:1030] = 7
    detector = Fails().train()
    with pytest.raises(
        EvaluationError, match=r"p1_s001: 6 logits are not finite, the first at 4\.000 s .*signal is finite, so the"
    ):
        stitch(detector, make_recording(trace, name="p1_s001"), batch_size=1, stride=100)
    assert detector.training


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_signal_that_is_no_number_is_told_from_bad_weights(
    value: float, make_recording: Any, echo: nn.Module
) -> None:
    trace = np.zeros(300)
    trace[256] = value
    with pytest.raises(EvaluationError, match=r"the first at 1\.000 s .*signal is not finite either: rebuild"):
        stitch(echo, make_recording(trace))


def test_padding_behind_a_short_recording_is_judged_by_nobody(make_recording: Any) -> None:
    class FailsOnZero(nn.Module):
        def forward(self, signal: torch.Tensor) -> torch.Tensor:
            return torch.log(signal[:, 0].abs()) + 1

    assert np.isfinite(stitch(FailsOnZero(), make_recording(np.ones(30)))).all()


def test_what_does_not_fit_is_said(make_recording: Any, echo: nn.Module) -> None:
    recording = make_recording(np.zeros(500), name="rec_a")
    with pytest.raises(EvaluationError, match=r"rec_a: .*set evaluation\.stride <= data\.window_size"):
        stitch(echo, recording, stride=101)
    with pytest.raises(EvaluationError, match=r"rec_a: .*stride above 0 s"):
        stitch(echo, recording, stride=0)
    with pytest.raises(EvaluationError, match="rec_a: the recording has no samples"):
        stitch(echo, recording, n_samples=0)
    with pytest.raises(EvaluationError, match=r"rec_a: the detector gave \(3, 19, 100\).*expected logits \(3, 100\)"):
        stitch(nn.Identity(), recording)


def test_a_reader_that_gives_less_than_asked_for_is_an_error(make_recording: Any, echo: nn.Module) -> None:
    recording = make_recording(np.zeros(500), name="rec_a")
    recording.read = lambda start, stop: np.zeros((19, 3), dtype=np.float32)
    with pytest.raises(EvaluationError, match=r"samples 0 to 100 gave an array of shape \(19, 3\); expected"):
        stitch(echo, recording)


def test_every_batch_of_logits_is_seen(make_recording: Any, echo: nn.Module) -> None:
    seen: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    stitch(echo, make_recording(np.zeros(250)), on_logits=lambda x, starts: seen.append((tuple(x.shape), starts)))
    assert seen == [((3, 100), (0, 40, 80)), ((2, 100), (120, 150))]
