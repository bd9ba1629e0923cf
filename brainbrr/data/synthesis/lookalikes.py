"""Stretches that resemble a seizure in length, rhythm or loudness but are none: they do not evolve, or lack rhythm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from brainbrr.config import SAMPLING_RATE
from brainbrr.data.synthesis import geometry
from brainbrr.data.synthesis.noise import Signal, muscle, narrow, slow_gain, taper


@dataclass(frozen=True, kw_only=True)
class Lookalike:
    """One stretch of a recording, in seconds from its start."""

    kind: str
    start_s: float
    stop_s: float


def render(rng: np.random.Generator, lookalike: Lookalike) -> Signal:
    """The stretch alone: (19, n) float32 µV."""
    n = round((lookalike.stop_s - lookalike.start_s) * SAMPLING_RATE)
    signal = _KINDS[lookalike.kind](rng, n)
    return (signal * taper(n, rng.uniform(1, 4), rng.uniform(1, 3))).astype(np.float32)


def _field(rng: np.random.Generator, names: tuple[str, ...], width: float) -> Signal:
    """Spatial pattern (19, 1) around one of the named electrodes."""
    name = names[rng.integers(len(names))]
    return geometry.pattern(geometry.POSITIONS[geometry.at(name)[0]], width)[:, None].astype(np.float32)


def _loudness(rng: np.random.Generator, low: float, high: float) -> np.float32:
    """µV, as often in the lower octave as in the upper."""
    return np.float32(np.exp(rng.uniform(np.log(low), np.log(high))))


def _sinusoid(rng: np.random.Generator, n: int, hertz: float, field: Signal) -> Signal:
    """A rhythm of constant frequency and nearly constant height; small lags across the head."""
    phase = 2 * np.pi * (hertz * np.arange(n) / SAMPLING_RATE + rng.random())
    lags = rng.uniform(0, 0.3, (19, 1))
    return field * slow_gain(rng, 1, n, 2.0, 0.15) * np.sin(phase - lags).astype(np.float32)


def _rhythmic_delta(rng: np.random.Generator, n: int) -> Signal:
    field = _field(rng, ("Fz", "F3", "F4", "T3", "T4"), rng.uniform(0.7, 1.2))
    return np.float32(rng.uniform(45, 90)) * _sinusoid(rng, n, rng.uniform(1.4, 2.6), field)


def _theta_train(rng: np.random.Generator, n: int) -> Signal:
    field = _field(rng, ("T3", "T4", "Fz", "Cz"), rng.uniform(0.5, 0.8))
    return np.float32(rng.uniform(25, 50)) * _sinusoid(rng, n, rng.uniform(4.5, 7.0), field)


def _alpha_train(rng: np.random.Generator, n: int) -> Signal:
    field = _field(rng, ("C3", "C4", "Pz", "O1", "O2"), rng.uniform(0.6, 1.0))
    return np.float32(rng.uniform(25, 50)) * _sinusoid(rng, n, rng.uniform(8.0, 11.0), field)


def _periodic_discharges(rng: np.random.Generator, n: int) -> Signal:
    """A sharp wave about once a second, the baseline flat in between."""
    field = _field(rng, ("F3", "F4", "T3", "T4", "C3", "C4", "Fz"), rng.uniform(0.7, 1.2))
    hertz = rng.uniform(0.8, 1.3)
    jitter = narrow(rng, 1, n, 0.3, 0.15)[0] * 0.02
    seconds = (np.arange(n) / SAMPLING_RATE + jitter) % (1 / hertz) - 0.25
    sharp = np.exp(-0.5 * (seconds / 0.03) ** 2) - 0.5 * np.exp(-0.5 * ((seconds - 0.16) / 0.08) ** 2)
    train: Signal = np.float32(rng.uniform(60, 120)) * field * sharp.astype(np.float32)
    return train


def _chewing(rng: np.random.Generator, n: int) -> Signal:
    """Bursts of muscle once or twice a second on both sides."""
    seconds = np.arange(n) / SAMPLING_RATE
    beat = np.clip(np.sin(2 * np.pi * rng.uniform(1.0, 2.0) * seconds), 0, None).astype(np.float32)
    sides = np.maximum(_field(rng, ("T3",), 0.7), _field(rng, ("T4",), 0.7))
    return _loudness(rng, 15, 70) * sides * beat * slow_gain(rng, 1, n, 1.0, 0.2) * muscle(rng, 19, n)


def _clenching(rng: np.random.Generator, n: int) -> Signal:
    """Sustained muscle activity all over, most over the temples."""
    sides = np.maximum(_field(rng, ("T3",), 0.8), _field(rng, ("T4",), 0.8)) + np.float32(0.15)
    return _loudness(rng, 12, 60) * sides * slow_gain(rng, 1, n, 1.5, 0.35) * muscle(rng, 19, n)


def _movement(rng: np.random.Generator, n: int) -> Signal:
    """Cables and electrodes sway: large, slow, irregular, with some muscle."""
    sway = narrow(rng, 3, n, rng.uniform(0.8, 1.4), 0.6)
    mixing = rng.normal(0, 0.6, (19, 3)).astype(np.float32)
    bursts = slow_gain(rng, 1, n, 2.0, 0.7)
    muscles = muscle(rng, 19, n) * rng.uniform(0.2, 1.0, (19, 1)).astype(np.float32)
    moved = _loudness(rng, 60, 150) * (mixing @ sway) + _loudness(rng, 12, 45) * muscles
    moved *= bursts
    return moved


_KINDS: dict[str, Callable[[np.random.Generator, int], Signal]] = {
    "rhythmic delta": _rhythmic_delta,
    "clenching": _clenching,
    "theta train": _theta_train,
    "chewing": _chewing,
    "periodic discharges": _periodic_discharges,
    "movement": _movement,
    "alpha train": _alpha_train,
}
KINDS = tuple(_KINDS)
"""All kinds; a corpus deals them out in turns, so that a few recordings hold every one."""
