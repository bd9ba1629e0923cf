"""Background EEG: 1/f activity of smooth sources, posterior alpha, beta, drift, blinks, short bursts of muscle."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from brainbrr.config import SAMPLING_RATE
from brainbrr.data.synthesis import geometry
from brainbrr.data.synthesis.noise import Signal, coloured, muscle, narrow, slow_gain, taper

_SOURCES = 14
_SOURCE_WIDTH = 0.7  # rad; with neighbours 0.6 to 0.8 rad apart, they share most of what they see
_LOCAL_SHARE = 0.4  # of the amplitude, seen by one electrode only


@dataclass(frozen=True, kw_only=True)
class Traits:
    """What stays the same in all recordings of a patient."""

    amplitude_uv: float
    exponent: float
    alpha_hz: float
    alpha_uv: float
    beta_uv: float
    drift_uv: float
    blinks_per_minute: float
    blink_uv: float
    bursts_per_minute: float
    burst_uv: float


def draw_traits(rng: np.random.Generator) -> Traits:
    """Draw a patient."""
    return Traits(
        amplitude_uv=float(rng.uniform(14, 26)),
        exponent=float(rng.uniform(1.3, 1.9)),
        alpha_hz=float(rng.uniform(8.5, 11.0)),
        alpha_uv=float(rng.uniform(9, 20)),
        beta_uv=float(rng.uniform(1.5, 3.5)),
        drift_uv=float(rng.uniform(4, 12)),
        blinks_per_minute=float(rng.uniform(3, 14)),
        blink_uv=float(rng.uniform(60, 140)),
        bursts_per_minute=float(rng.uniform(0.3, 1.5)),
        burst_uv=float(rng.uniform(10, 35)),
    )


def background(rng: np.random.Generator, n: int, traits: Traits) -> Signal:
    """Background of one recording: (19, n) float32 µV at 256 Hz."""
    loudness = traits.amplitude_uv * rng.uniform(0.85, 1.15)
    signal = _ongoing(rng, n, traits.exponent) * slow_gain(rng, 1, n, 20.0, 0.15)
    signal *= np.float32(loudness)
    signal += _alpha(rng, n, traits)
    front = geometry.pattern(geometry.POSITIONS[geometry.at("Cz")[0]], 0.9).astype(np.float32)
    beta = narrow(rng, 1, n, rng.uniform(15, 22), 2.0)
    signal += np.float32(traits.beta_uv) * front[:, None] * beta
    signal += np.float32(traits.drift_uv) * _drift(rng, n)
    signal += rng.uniform(-20, 20, (19, 1)).astype(np.float32)  # electrode offsets
    _add_blinks(rng, signal, traits)
    _add_bursts(rng, signal, traits)
    return signal


def _ongoing(rng: np.random.Generator, n: int, exponent: float) -> Signal:
    """1/f activity of smooth sources plus what each electrode sees alone: (19, n), unit variance at each electrode."""
    centres = rng.standard_normal((_SOURCES, 3))
    centres[:, 2] = np.abs(centres[:, 2])
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    mixing = geometry.pattern(centres, _SOURCE_WIDTH) + 1e-3
    mixing *= np.sqrt(1 - _LOCAL_SHARE**2) / np.linalg.norm(mixing, axis=1, keepdims=True)
    electrodes = mixing.astype(np.float32) @ coloured(rng, _SOURCES, n, exponent)
    electrodes += np.float32(_LOCAL_SHARE) * coloured(rng, 19, n, exponent - 0.4)
    electrodes *= rng.uniform(0.85, 1.15, (19, 1)).astype(np.float32)
    return electrodes


def _alpha(rng: np.random.Generator, n: int, traits: Traits) -> Signal:
    """Posterior rhythm: one source a side and one they share; comes and goes over tens of seconds."""
    sources = narrow(rng, 3, n, traits.alpha_hz + rng.normal(0, 0.1), 0.5)
    left, right = (geometry.pattern(geometry.POSITIONS[geometry.at(name)[0]], 0.65) for name in ("O1", "O2"))
    mixing = np.stack([0.5 * left, 0.5 * right, 0.8 * np.maximum(left, right)], axis=1).astype(np.float32)
    blocking = slow_gain(rng, 1, n, 8.0, 0.5)
    return np.float32(traits.alpha_uv) * blocking * (mixing @ sources)


def _drift(rng: np.random.Generator, n: int) -> Signal:
    """Slow potentials of skin and sweat, below 0.3 Hz: a random walk between knots 4 s apart, (19, n), unit scale."""
    knots = int(n / SAMPLING_RATE / 4.0) + 2
    at = np.arange(n) / (SAMPLING_RATE * 4.0)
    values = rng.standard_normal((19, knots))
    return np.stack([np.interp(at, np.arange(knots), row) for row in values]).astype(np.float32)


def _times(rng: np.random.Generator, n: int, per_minute: float) -> np.ndarray:
    """Sample indices of a Poisson process over n samples."""
    count = rng.poisson(per_minute * n / SAMPLING_RATE / 60.0)
    return np.sort(rng.integers(0, n, count))


def _add_blinks(rng: np.random.Generator, signal: Signal, traits: Traits) -> None:
    eyes = np.array([0.0, 0.95, -0.3])
    where = geometry.pattern(eyes / np.linalg.norm(eyes), 0.45).astype(np.float32)
    where /= where.max()
    for start in _times(rng, signal.shape[1], traits.blinks_per_minute):
        length = int(rng.uniform(0.25, 0.45) * SAMPLING_RATE)
        bump = np.sin(np.pi * np.arange(length) / length).astype(np.float32) ** 2
        stop = min(start + length, signal.shape[1])
        peak = np.float32(traits.blink_uv * rng.uniform(0.6, 1.3))
        signal[:, start:stop] += peak * where[:, None] * bump[: stop - start]


def _add_bursts(rng: np.random.Generator, signal: Signal, traits: Traits) -> None:
    for start in _times(rng, signal.shape[1], traits.bursts_per_minute):
        length = min(int(rng.uniform(0.5, 3.0) * SAMPLING_RATE), signal.shape[1] - start)
        side = ("T3", "T4")[rng.integers(2)]
        where = geometry.pattern(geometry.POSITIONS[geometry.at(side)[0]], 0.5).astype(np.float32)
        peak = np.float32(traits.burst_uv * rng.uniform(0.5, 1.5))
        signal[:, start : start + length] += peak * where[:, None] * taper(length, 0.2, 0.4) * muscle(rng, 19, length)
