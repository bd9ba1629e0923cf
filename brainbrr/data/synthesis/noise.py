"""Gaussian noise with a chosen spectrum, made in the frequency domain: one FFT a row, whatever the length."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from brainbrr.config import SAMPLING_RATE

Signal = NDArray[np.float32]


def shaped(rng: np.random.Generator, rows: int, n: int, amplitude: Callable[[Signal], Signal]) -> Signal:
    """Noise (rows, n) of unit variance whose spectrum follows `amplitude(frequency in Hz)`; no DC.

    The variance is one in expectation, not in the sample: loud and quiet stretches stay.
    """
    from scipy.fft import next_fast_len

    # At least 8 s, so that a short piece does not see only the lowest bin of a narrow band.
    length = int(next_fast_len(max(n, 8 * SAMPLING_RATE), real=True))
    frequency = np.fft.rfftfreq(length, 1.0 / SAMPLING_RATE).astype(np.float32)
    gain = amplitude(frequency)
    gain[0] = 0.0
    gain *= np.float32(length / (2.0 * np.sqrt(np.sum(np.square(gain, dtype=np.float64)))))
    spectrum = rng.standard_normal((rows, frequency.size, 2), dtype=np.float32).view(np.complex64)[..., 0]
    spectrum *= gain
    return np.fft.irfft(spectrum, n=length, axis=-1)[:, :n].astype(np.float32, copy=False)


def coloured(rng: np.random.Generator, rows: int, n: int, exponent: float, knee: float = 0.7) -> Signal:
    """1/f noise: power falls as f^-exponent above `knee` Hz and is flat below it."""
    return shaped(rng, rows, n, lambda f: (f * f + np.float32(knee * knee)) ** np.float32(-exponent / 4))


def narrow(rng: np.random.Generator, rows: int, n: int, centre: float, width: float) -> Signal:
    """A rhythm that waxes and wanes: Gaussian spectrum around `centre` Hz, standard deviation `width` Hz."""
    return shaped(rng, rows, n, lambda f: np.exp(-0.5 * ((f - np.float32(centre)) / np.float32(width)) ** 2))


def muscle(rng: np.random.Generator, rows: int, n: int) -> Signal:
    """Broad-band noise of muscles: 20 to 110 Hz, widest around 40 Hz."""
    return shaped(rng, rows, n, lambda f: f**2 / (f**2 + 900.0) / (1.0 + (f / 60.0) ** 3) * (f > 12) * (f < 115))


def slow_gain(rng: np.random.Generator, rows: int, n: int, every_s: float, spread: float) -> Signal:
    """Positive gain (rows, n) that wanders around one: log-normal knots every `every_s` seconds, joined linearly."""
    knots = int(n / SAMPLING_RATE / every_s) + 2
    values = np.exp(spread * rng.standard_normal((rows, knots)) - 0.5 * spread**2)
    at = np.arange(n) / (SAMPLING_RATE * every_s)
    return np.stack([np.interp(at, np.arange(knots), row) for row in values]).astype(np.float32)


def taper(n: int, rise_s: float, fall_s: float) -> Signal:
    """Envelope (n,) that rises from 0 to 1 and falls back, raised-cosine edges; edges shrink to a third of n."""
    envelope = np.ones(n, dtype=np.float32)
    for seconds, edge in ((rise_s, slice(None)), (fall_s, slice(None, None, -1))):
        length = min(int(seconds * SAMPLING_RATE), n // 3)
        envelope[edge][:length] *= (0.5 - 0.5 * np.cos(np.pi * np.arange(length) / max(length, 1))).astype(np.float32)
    return envelope
