"""Filters, resampling, scale: what comes through, what does not, and that nothing stays nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import signal as sp

from brainbrr.config import ELECTRODES, Preprocessing
from brainbrr.data.edf import Gap, read_recording
from brainbrr.data.montage import to_electrodes
from brainbrr.data.preprocess import NOMINAL_SIGMA_UV, design, preprocess

OPTIONS = Preprocessing()


def noise(seconds: float, rate: int = 256, seed: int = 0) -> np.ndarray:
    shape = (19, round(seconds * rate))
    return (np.random.default_rng(seed).standard_normal(shape) * 20).astype(np.float32)


def sine(frequency: float, rate: float, seconds: float = 20) -> np.ndarray:
    t = np.arange(round(seconds * rate)) / rate
    return np.tile(np.sin(2 * np.pi * frequency * t) * 50, (19, 1)).astype(np.float32)


def test_shape_dtype_and_scale() -> None:
    out = preprocess(noise(30) * np.linspace(0.1, 5, 19)[:, None], 256, OPTIONS)
    assert out.signal.shape == (19, 30 * 256)
    assert out.signal.dtype == np.float32
    np.testing.assert_allclose(out.signal.std(axis=1), 1, atol=1e-3)
    np.testing.assert_allclose(out.signal.mean(axis=1), 0, atol=1e-2)
    assert (out.notes, out.nonfinite) == ((), ())
    assert len(out.clipped) == 19


def test_the_filter_is_the_causal_butterworth_and_notch_of_the_contract() -> None:
    x = noise(30)
    x += np.float32(500)
    sos, _ = design(256, OPTIONS)
    bandpass = sp.butter(3, (0.5, 120), "bandpass", fs=256, output="sos")
    reference, _ = sp.sosfilt(bandpass, x[4].astype(float), zi=sp.sosfilt_zi(bandpass) * float(x[4, 0]))
    reference = sp.lfilter(*sp.iirnotch(60, 30, fs=256), reference)
    out = preprocess(x, 256, OPTIONS).signal[4]
    np.testing.assert_allclose(out, reference / reference.std(), atol=2e-3)
    assert sos.shape == (4, 6)
    # Causal: a later change leaves everything before it as it was, up to the scale.
    later = x.copy()
    later[:, 5000:] *= 3
    changed = preprocess(later, 256, OPTIONS).signal[4, :5000]
    np.testing.assert_allclose(changed / changed.std(), out[:5000] / out[:5000].std(), atol=1e-5)


def test_no_transient_at_the_start_whatever_the_offset() -> None:
    base = preprocess(noise(20), 256, OPTIONS)
    for offset in (3000.0, -1e5):
        out = preprocess(noise(20) + np.float32(offset), 256, OPTIONS)
        np.testing.assert_allclose(out.signal, base.signal, atol=0.01)
        assert sum(out.clipped) == 0


@pytest.mark.parametrize("rate", [128, 200, 250, 256, 400, 512, 1000, 249.9])
def test_frequencies_below_the_edge_come_through_at_any_rate(rate: float) -> None:
    options = Preprocessing(normalize=False)
    out = preprocess(sine(10, rate), rate, options)
    assert out.signal.shape[1] == round(round(20 * rate) * 256 / rate)
    middle = out.signal[0, 256 * 5 : 256 * 15] * NOMINAL_SIGMA_UV
    assert np.sqrt(2) * middle.std() == pytest.approx(50, rel=5e-3)
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(middle.size)))
    assert np.fft.rfftfreq(middle.size, 1 / 256)[spectrum.argmax()] == pytest.approx(10, abs=0.05)


def test_mains_drift_and_offset_are_removed() -> None:
    options = Preprocessing(normalize=False)
    for frequency, left in ((60, 0.02), (0.02, 1e-3)):
        out = preprocess(sine(frequency, 256, 60), 256, options).signal[:, 256 * 20 : -256]
        assert np.abs(out).max() * NOMINAL_SIGMA_UV < 50 * left
    kept = preprocess(sine(60, 256), 256, Preprocessing(normalize=False, notch_freq=None)).signal[0, 2560:]
    assert np.abs(kept).max() * NOMINAL_SIGMA_UV > 40
    fifty = preprocess(sine(50, 256, 60), 256, Preprocessing(normalize=False, notch_freq=50)).signal[0, 2560:]
    assert np.abs(fifty).max() * NOMINAL_SIGMA_UV < 1


@pytest.mark.parametrize(
    ("rate", "notes"),
    [
        (256, []),
        (512, []),
        (250, ["band-pass ends at 112.5 Hz instead of 120 Hz: the source is sampled at 250 Hz"]),
        (
            100,
            [
                "band-pass ends at 45 Hz instead of 120 Hz: the source is sampled at 100 Hz",
                "no notch at 60 Hz: the band-pass ends at 45 Hz",
            ],
        ),
    ],
)
def test_what_the_source_cannot_hold_is_said(rate: float, notes: list[str]) -> None:
    assert list(preprocess(noise(5, int(rate)), rate, OPTIONS).notes) == notes


def test_a_rate_below_the_band_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"a source at 1 Hz holds nothing above 0\.45 Hz; expected more than .* 0\.5 Hz"
    ):
        preprocess(noise(100, 1), 1, OPTIONS)


def test_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(3, 100\); expected \(19, N\)"):
        preprocess(np.zeros((3, 100), np.float32), 256, OPTIONS)


def test_a_fast_source_does_not_alias() -> None:
    x = sine(200, 1000)
    assert np.abs(preprocess(x, 1000, Preprocessing(normalize=False)).signal[:, 3 * 256 : -256]).max() < 1e-4


def test_resampling_has_no_edges() -> None:
    options = Preprocessing(normalize=False, bandpass=(0.5, 112.5))
    out = preprocess(sine(7, 250) + np.float32(400), 250, options).signal[0]
    direct = preprocess(sine(7, 256) + np.float32(400), 256, options).signal[0]
    assert out.shape == direct.shape
    np.testing.assert_allclose(out * NOMINAL_SIGMA_UV, direct * NOMINAL_SIGMA_UV, atol=0.5)


class TestNonFinite:
    def test_it_is_located_and_not_smeared(self) -> None:
        x = noise(20)
        bad = x.copy()
        bad[5, 1000:1010] = np.nan
        bad[5, 3000] = np.inf
        bad[7, 0] = -np.inf
        out = preprocess(bad, 256, OPTIONS)
        found = [(entry.electrode, entry.first_s, entry.count) for entry in out.nonfinite]
        assert found == [("T3", 1000 / 256, 11), ("O1", 0.0, 1)]
        assert out.notes[0] == "11 non-finite samples of T3 from 3.90625 s bridged"
        assert np.isfinite(out.signal).all()
        clean = preprocess(x, 256, OPTIONS).signal
        others = [i for i in range(19) if i not in (5, 7)]
        np.testing.assert_array_equal(out.signal[others], clean[others])
        np.testing.assert_allclose(out.signal[5, :1000], clean[5, :1000], atol=0.02)
        assert np.abs(out.signal[5] - clean[5])[1500:2990].max() < 0.05

    def test_an_electrode_of_nothing_else_is_zero(self) -> None:
        x = noise(2)
        x[0] = np.nan
        out = preprocess(x, 256, OPTIONS)
        assert not out.signal[0].any()
        assert out.nonfinite[0].count == 512
        assert out.notes[-1] == "constant throughout, left at 0: Fp1"


def test_constant_electrodes_stay_zero_and_are_named() -> None:
    x = noise(5)
    x[2], x[10] = 0.0, -3276.8
    out = preprocess(x, 256, OPTIONS)
    assert not out.signal[[2, 10]].any()
    assert out.notes == ("constant throughout, left at 0: C3, Pz",)


@pytest.mark.parametrize("value", [0.0, 1e-30, 1e30])
def test_degenerate_input_stays_finite(value: float) -> None:
    out = preprocess(np.full((19, 700), value, np.float32), 200, OPTIONS)
    assert not out.signal.any()


def test_clipping_is_counted() -> None:
    x = noise(60)
    x[3, 5000:5003] += 30000
    out = preprocess(x, 256, Preprocessing(clip_sigma=5))
    assert np.abs(out.signal).max() <= 5
    assert out.clipped[3] == pytest.approx(np.mean(np.abs(out.signal[3]) >= 5), abs=1e-9)
    assert out.clipped[3] > 0
    assert out.clipped[4] == 0


def test_gaps_do_not_count_for_the_scale() -> None:
    x = noise(30)
    gapped = np.concatenate([x, np.zeros((19, 256 * 300), np.float32)], axis=1)
    with_gap = preprocess(gapped, 256, OPTIONS, gaps=[Gap(start_s=30, stop_s=330)]).signal
    np.testing.assert_allclose(with_gap[:, :7680], preprocess(x, 256, OPTIONS).signal, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("rate", [256, 250, 512])
@pytest.mark.parametrize("level", [0, 32767, -12345])
def test_where_the_amplifier_delivers_a_constant_the_cache_holds_exact_zeros(
    write_edf: Callable[..., Path], eeg: Callable[..., dict], rate: int, level: int
) -> None:
    """In 16-bit input a flat stretch of 60 s is exactly zero in the int16 cache from at most 20 s after its start."""
    signals = eeg(150, rate)
    for samples in signals.values():
        samples += 900  # an offset as amplifiers have it
        samples[45 * rate : 105 * rate] = level
    recording = read_recording(write_edf(signals, samples=rate))
    out = preprocess(to_electrodes(recording).signal, recording.rate, OPTIONS).signal
    steps = np.rint(out * (32767 / OPTIONS.clip_sigma)).astype(np.int16)
    # The resampler looks ahead: the last second before the signal comes back is not asked for.
    assert not steps[:, 65 * 256 : 104 * 256].any()
    assert steps[:, : 45 * 256].any(axis=1).all()
    assert steps[:, 106 * 256 :].any(axis=1).all()


def test_an_interpolated_electrode_is_flat_where_the_others_are(
    write_edf: Callable[..., Path], eeg: Callable[..., dict]
) -> None:
    signals = eeg(90, names=[name for name in ELECTRODES if name not in ("Fz", "Pz")])
    for samples in signals.values():
        samples[20 * 256 : 80 * 256] = -32768
    montaged = to_electrodes(read_recording(write_edf(signals)))
    steps = np.rint(preprocess(montaged.signal, 256, OPTIONS).signal * 3276.7).astype(np.int16)
    assert not steps[:, 40 * 256 : 80 * 256].any()
