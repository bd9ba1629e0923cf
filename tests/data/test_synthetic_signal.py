"""What the synthetic EEG looks like: spectrum, alpha, spatial correlation, and seizures that evolve."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainbrr.config import ELECTRODES
from brainbrr.data.synthesis import background, geometry, lookalikes, noise, seizures
from brainbrr.data.synthetic import plan_corpus, render_electrodes

RATE = 256


def spectrum(signal: np.ndarray, seconds: float = 4.0) -> tuple[np.ndarray, np.ndarray]:
    """Welch: frequencies (F,), power (..., F)."""
    n = round(seconds * RATE)
    pieces = signal[..., : signal.shape[-1] // n * n].reshape(*signal.shape[:-1], -1, n)
    pieces = pieces - pieces.mean(axis=-1, keepdims=True)
    return np.fft.rfftfreq(n, 1 / RATE), (np.abs(np.fft.rfft(pieces * np.hanning(n))) ** 2).mean(axis=-2)


@pytest.fixture(scope="module")
def backgrounds() -> list[tuple[background.Traits, np.ndarray]]:
    plans = plan_corpus(patients=6, minutes=4, seizures=0, lookalikes=0, seed=11, splits=("train",))
    return [(plan.traits, render_electrodes(plan)) for plan in plans]


def test_electrodes_lie_where_the_ten_twenty_system_has_them() -> None:
    np.testing.assert_allclose(np.linalg.norm(geometry.POSITIONS, axis=1), 1)
    left, right = geometry.POSITIONS[geometry.at("F3")[0]], geometry.POSITIONS[geometry.at("F4")[0]]
    np.testing.assert_allclose(left * (-1, 1, 1), right, atol=1e-12)
    assert {ELECTRODES[row] for row in geometry.neighbours(geometry.at("T3")[0], 3)} == {"F7", "T5", "C3"}
    assert [ELECTRODES[i] for i in np.flatnonzero(geometry.SIDES == 0)] == ["Fz", "Cz", "Pz"]


@given(exponent=st.floats(0.5, 2.5), seed=st.integers(0, 1000))
def test_coloured_noise_has_the_exponent_and_the_variance_asked_for(exponent: float, seed: int) -> None:
    signal = noise.coloured(np.random.default_rng(seed), 8, 60 * RATE, exponent)
    hertz, power = spectrum(signal)
    band = (hertz >= 4) & (hertz <= 100)
    slope = np.polyfit(np.log(hertz[band]), np.log(power.mean(axis=0)[band]), 1)[0]
    assert slope == pytest.approx(-exponent, abs=0.15)
    assert signal.var() == pytest.approx(1, abs=0.35) and signal.dtype == np.float32


@given(n=st.integers(1, 700))
def test_noise_of_any_length_is_finite_and_of_that_length(n: int) -> None:
    rng = np.random.default_rng(n)
    for signal in (noise.coloured(rng, 2, n, 1.5), noise.narrow(rng, 2, n, 10, 0.5), noise.muscle(rng, 2, n)):
        assert signal.shape == (2, n) and np.isfinite(signal).all()
    envelope = noise.taper(n, 1.0, 2.0)
    assert envelope.shape == (n,) and envelope.min() >= 0 and envelope.max() <= 1


def test_background_is_of_human_size_and_falls_with_frequency(
    backgrounds: list[tuple[background.Traits, np.ndarray]],
) -> None:
    for _, signal in backgrounds:
        assert np.isfinite(signal).all()
        hertz, power = spectrum(signal)
        band = ((hertz >= 2) & (hertz <= 6)) | ((hertz >= 26) & (hertz <= 45))  # off alpha and beta
        slopes = np.polyfit(np.log(hertz[band]), np.log(power[:, band].T), 1)[0]
        assert -2.2 < np.median(slopes) < -0.8
        typical = np.sqrt(np.median(np.var(signal[:, : 200 * RATE].reshape(19, -1, RATE), axis=2), axis=1))
        assert (typical > 4).all() and (typical < 60).all()
    sizes = [signal.std() for _, signal in backgrounds]
    assert max(sizes) > 1.15 * min(sizes)  # patients differ


def test_alpha_is_posterior_and_at_the_patients_own_frequency(
    backgrounds: list[tuple[background.Traits, np.ndarray]],
) -> None:
    peaks = []
    for traits, signal in backgrounds:
        hertz, power = spectrum(signal)
        relative = power * hertz**traits.exponent  # the 1/f slope taken out
        band = (hertz >= 7) & (hertz <= 13)
        occipital, frontal = relative[geometry.at("O1", "O2")].mean(0), relative[geometry.at("F3", "F4")].mean(0)
        peaks.append(hertz[band][np.argmax(occipital[band])])
        assert peaks[-1] == pytest.approx(traits.alpha_hz, abs=0.75)
        at_peak = np.abs(hertz - peaks[-1]) < 0.6
        assert power[geometry.at("O1", "O2")][:, at_peak].mean() > 2 * power[geometry.at("F3", "F4")][:, at_peak].mean()
        assert occipital[at_peak].mean() > 2 * occipital[(hertz > 4) & (hertz < 6)].mean()
        assert frontal[at_peak].mean() < occipital[at_peak].mean()
    assert len(set(peaks)) >= 3


def test_alpha_waxes_and_wanes() -> None:
    traits = background.draw_traits(np.random.default_rng(1))
    alpha = background._alpha(np.random.default_rng(2), 120 * RATE, traits)[geometry.at("O1")[0]]
    height = np.sqrt(np.mean(alpha.reshape(-1, RATE) ** 2, axis=1))
    assert np.quantile(height, 0.9) > 3 * np.quantile(height, 0.1)


def test_neighbours_share_more_than_electrodes_far_apart(
    backgrounds: list[tuple[background.Traits, np.ndarray]],
) -> None:
    distance = geometry.angles_to(geometry.POSITIONS)
    near, far = (distance > 0) & (distance < 0.9), distance > 1.8
    for _, signal in backgrounds:
        correlation = np.corrcoef(np.diff(signal, axis=1))  # the difference takes drift out
        assert correlation[near].mean() > correlation[far].mean() + 0.15
        assert correlation[near].mean() < 0.95


def test_blinks_are_frontal(backgrounds: list[tuple[background.Traits, np.ndarray]]) -> None:
    traits = replace(backgrounds[0][0], blinks_per_minute=20, blink_uv=120, bursts_per_minute=0)
    rng = np.random.default_rng(3)
    signal = np.zeros((19, 60 * RATE), dtype=np.float32)
    background._add_blinks(rng, signal, traits)
    height = signal.max(axis=1)
    assert height[geometry.at("Fp1", "Fp2")].min() > 70
    assert height[geometry.at("O1", "O2", "Pz")].max() < 5


def example(*, generalized: bool = False, muscle_uv: float = 0.0) -> seizures.Seizure:
    return seizures.Seizure(
        start_s=0,
        stop_s=60,
        onset="T3",
        generalized=generalized,
        frequencies=((0.0, 4.0), (0.3, 7.0), (1.0, 2.5)),
        amplitude_uv=100,
        muscle_uv=muscle_uv,
        sharpness=16,
        wave=0.4,
    )


def dominant(signal: np.ndarray) -> float:
    """Fundamental frequency of a periodic signal (n,): the largest peak of the autocorrelation between 2 and 10 Hz."""
    signal = signal - signal.mean()
    correlation = np.correlate(signal, signal, mode="full")[signal.size - 1 :]
    lags = np.arange(RATE // 10, RATE // 2 + 1)
    return float(RATE / lags[np.argmax(correlation[lags])])


def test_a_seizure_changes_its_frequency_as_planned() -> None:
    discharge = seizures.render(np.random.default_rng(0), example())[geometry.at("T3")[0]]
    at = {second: dominant(discharge[(second - 2) * RATE : (second + 2) * RATE]) for second in (3, 18, 57)}
    assert at[3] == pytest.approx(4.3, rel=0.15)
    assert at[18] == pytest.approx(7.0, rel=0.15)
    assert at[57] == pytest.approx(2.6, rel=0.15)


def test_seizures_of_whole_recordings_slow_down() -> None:
    plans = plan_corpus(patients=6, minutes=3, seizures=1, lookalikes=0, seed=21, splits=("train",))
    for plan in plans:
        signal, seizure = render_electrodes(plan), plan.seizures[0]
        row = geometry.at(seizure.onset)[0]
        third = (seizure.stop_s - seizure.start_s) / 3
        middle, late = (
            signal[row, round(t * RATE) : round((t + 4) * RATE)] for t in (seizure.start_s + third, seizure.stop_s - 5)
        )
        assert dominant(np.diff(middle)) > 1.15 * dominant(np.diff(late))


def test_a_seizure_grows_and_spreads_from_its_onset() -> None:
    discharge = seizures.render(np.random.default_rng(0), example())
    height = np.sqrt(np.mean(discharge.reshape(19, 12, 5 * RATE) ** 2, axis=2))  # (19, 12) in steps of 5 s
    t3, f7, p3, t4 = (height[geometry.at(name)[0]] for name in ("T3", "F7", "P3", "T4"))
    assert t3[5] > 1.5 * t3[0]
    begins = [int(np.argmax(trace > 0.5 * trace.max())) for trace in (t3, f7, p3, t4)]
    assert begins[0] <= begins[1] <= begins[3] and begins[0] < begins[3]
    assert t3[0] > 5 * t4[0] and t3.max() > 1.5 * t4.max() > 0
    assert t4[8] > 3 * t4[0]


def test_a_generalized_seizure_is_everywhere_at_once() -> None:
    discharge = seizures.render(np.random.default_rng(0), example(generalized=True))
    early = discharge[:, 2 * RATE : 4 * RATE].std(axis=1)
    assert early.min() > 0.4 * early.max()


def test_a_convulsion_adds_muscle_after_the_onset() -> None:
    plain, convulsive = (
        np.diff(seizures.render(np.random.default_rng(0), example(generalized=True, muscle_uv=uv))) for uv in (0, 60)
    )
    assert np.abs(convulsive[:, : 5 * RATE]).mean() < 1.1 * np.abs(plain[:, : 5 * RATE]).mean()
    assert np.abs(convulsive[:, 20 * RATE : 30 * RATE]).mean() > 2 * np.abs(plain[:, 20 * RATE : 30 * RATE]).mean()


def test_a_discharge_is_rich_in_harmonics_and_a_rhythmic_lookalike_is_not() -> None:
    phase = (2 * np.pi * 4 * np.arange(8 * RATE) / RATE).astype(np.float32)
    power = np.abs(np.fft.rfft(seizures.spike_and_wave(phase, 16, 0.4))) ** 2
    assert sum(power[8 * 4 * k] for k in range(2, 8)) > 0.2 * power[8 * 4]
    assert power[0] < 1e-3 * power[8 * 4]  # zero mean
    for kind in ("rhythmic delta", "theta train", "alpha train"):
        rhythm = lookalikes.render(np.random.default_rng(4), lookalikes.Lookalike(kind=kind, start_s=0, stop_s=32))
        mean_power = (np.abs(np.fft.rfft(rhythm[:, 4 * RATE : -4 * RATE])) ** 2).sum(axis=0)
        peak = int(np.argmax(mean_power))
        around = mean_power[max(0, peak - 24) : peak + 25].sum()  # ± 1 Hz
        assert around > 0.95 * mean_power.sum(), kind


@pytest.mark.parametrize("kind", lookalikes.KINDS)
def test_lookalikes_begin_and_end_in_silence(kind: str) -> None:
    piece = lookalikes.render(np.random.default_rng(1), lookalikes.Lookalike(kind=kind, start_s=3, stop_s=23.25))
    assert piece.shape == (19, round(20.25 * RATE)) and np.isfinite(piece).all()
    assert piece.dtype == np.float32 and np.abs(piece[:, [0, -1]]).max() < 1 < np.abs(piece).max() < 2000


def test_slow_waves_follow_a_seizure() -> None:
    after = seizures.postictal(np.random.default_rng(0), example(), 20 * RATE)
    hertz, power = spectrum(after)
    assert power[:, (hertz > 0.5) & (hertz < 3)].sum() > 0.9 * power.sum()
    assert after[:, : 8 * RATE].std() > 1.5 * after[:, -8 * RATE :].std()


def test_a_recording_takes_a_hundredth_of_its_length_at_most() -> None:
    (plan,) = plan_corpus(patients=1, minutes=10, seizures=1, lookalikes=1, seed=1, splits=("train",))
    render_electrodes(plan)
    begin = time.process_time()
    render_electrodes(plan)
    assert time.process_time() - begin < 6
