"""Seizures: a rhythmic discharge rich in harmonics that evolves in frequency, amplitude and spread."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from brainbrr.config import ELECTRODES, SAMPLING_RATE
from brainbrr.data.synthesis import geometry
from brainbrr.data.synthesis.noise import Signal, muscle, narrow, slow_gain, taper

POSTICTAL_S = (10.0, 30.0)
"""Length of the slowing that follows a seizure, s; it is background to the labels."""

# Where a focal seizure begins: more often temporal than elsewhere.
_FOCI = ("T3", "T4", "F7", "F8", "T5", "T6", "F3", "F4", "C3", "C4", "P3", "P4", "T3", "T4")


@dataclass(frozen=True, kw_only=True)
class SeizureTraits:
    """What a patient's seizures have in common."""

    onset: str  # electrode; where a generalized seizure is largest
    generalized: bool
    course: Literal["falling", "rising then falling"]
    amplitude_uv: float
    muscle_uv: float
    sharpness: float
    wave: float


@dataclass(frozen=True, kw_only=True)
class Seizure:
    """One seizure of a recording: seconds from its start, and how it runs."""

    start_s: float
    stop_s: float
    onset: str  # electrode; where a generalized seizure is largest
    generalized: bool
    frequencies: tuple[tuple[float, float], ...]  # (share of the duration, Hz), joined in log frequency
    amplitude_uv: float
    muscle_uv: float  # of the muscles in a convulsion; 0: none
    sharpness: float
    wave: float


def draw_traits(rng: np.random.Generator) -> SeizureTraits:
    """Draw how the seizures of a patient look."""
    generalized = bool(rng.random() < 0.35)
    focus = "Fz" if generalized else _FOCI[rng.integers(len(_FOCI))]
    convulsive = generalized and bool(rng.random() < 0.6)
    return SeizureTraits(
        onset=focus,
        generalized=generalized,
        course="falling" if rng.random() < 0.5 else "rising then falling",
        amplitude_uv=float(rng.uniform(130, 200) if convulsive else rng.uniform(80, 130)),
        muscle_uv=float(rng.uniform(45, 90) if convulsive else 0.0),
        sharpness=float(rng.uniform(12, 24)),
        wave=float(rng.uniform(0.3, 0.5)),
    )


def draw(rng: np.random.Generator, traits: SeizureTraits, start_s: float, stop_s: float) -> Seizure:
    """Draw a seizure of a patient with these traits."""
    end = rng.uniform(2.3, 3.2)
    knots = [(0.0, rng.uniform(5.0, 6.5)), (1.0, end)]
    if not traits.generalized:
        knots[0] = (0.0, rng.uniform(6.5, 8.0))
        if traits.course == "rising then falling":
            knots[0] = (0.0, rng.uniform(3.6, 4.4))
            knots.insert(1, (rng.uniform(0.25, 0.4), rng.uniform(6.5, 7.5)))
    return Seizure(
        start_s=start_s,
        stop_s=stop_s,
        onset=traits.onset,
        generalized=traits.generalized,
        frequencies=tuple((float(share), float(hertz)) for share, hertz in knots),
        amplitude_uv=traits.amplitude_uv * float(rng.uniform(0.85, 1.2)),
        muscle_uv=traits.muscle_uv * float(rng.uniform(0.8, 1.25)),
        sharpness=traits.sharpness,
        wave=traits.wave,
    )


def frequency(seizure: Seizure, n: int) -> NDArray[np.float64]:
    """Frequency of the discharge over its n samples: (n,) Hz."""
    share, hertz = np.array(seizure.frequencies).T
    course: NDArray[np.float64] = np.exp(np.interp(np.arange(n) / max(n, 1), share, np.log(hertz)))
    return course


def render(rng: np.random.Generator, seizure: Seizure) -> Signal:
    """The seizure alone: (19, n) float32 µV."""
    n = round((seizure.stop_s - seizure.start_s) * SAMPLING_RATE)
    hertz = frequency(seizure, n) * slow_gain(rng, 1, n, 1.5, 0.04)[0]  # no brain is a metronome
    phase = 2 * np.pi * np.cumsum(hertz) / SAMPLING_RATE
    gains, delays = _spread(seizure, n)
    lagged = (phase - 2 * np.pi * delays[:, None] * hertz).astype(np.float32)
    cycles = slow_gain(rng, 1, n, 0.6, 0.12)
    # Grows over the first third, never quite steady, ends within a second.
    growth = np.interp(np.arange(n) / max(n, 1), (0, 0.35, 1), (0.35, 1.0, 0.9)).astype(np.float32)
    envelope = np.float32(seizure.amplitude_uv) * growth * taper(n, 1.0, 1.0) * cycles
    discharge: Signal = gains * envelope * spike_and_wave(lagged, seizure.sharpness, seizure.wave)
    if seizure.muscle_uv:
        discharge += _convulsion(rng, seizure, n)
    return discharge.astype(np.float32, copy=False)


def _convulsion(rng: np.random.Generator, seizure: Seizure, n: int) -> Signal:
    """Muscles of a convulsion: they set in after the onset, fade before the end and are strongest at the temples."""
    where = np.maximum(*(geometry.pattern(geometry.POSITIONS[geometry.at(name)[0]], 0.7) for name in ("T3", "T4")))
    course = np.interp(np.arange(n) / max(n, 1), (0.1, 0.3, 0.6, 0.9), (0, 1, 0.8, 0)).astype(np.float32)
    gain = np.float32(seizure.muscle_uv) * (where + 0.3)[:, None].astype(np.float32)
    return gain * course * slow_gain(rng, 1, n, 1.0, 0.2) * muscle(rng, 19, n)


def spike_and_wave(phase: Signal, sharpness: float, wave: float) -> Signal:
    """Periodic discharge of unit spike: a narrow spike, and a slow wave of amplitude `wave` behind it; zero mean."""
    spike: Signal = np.exp(np.float32(sharpness) * (np.cos(phase) - np.float32(1.0)))
    mean = np.float32(1.0 / np.sqrt(2 * np.pi * sharpness))  # of the spike over a cycle, for sharpness >> 1
    discharge: Signal = spike - mean - np.float32(wave) * np.cos(phase - np.float32(2.2))
    return discharge


def _spread(seizure: Seizure, n: int) -> tuple[Signal, NDArray[np.float64]]:
    """Gain of every electrode over time (19, n) and the delay of its discharge (19,) s.

    A focal discharge reaches the neighbours first, the hemisphere by the middle of the seizure, and the other side
    late and weak. A generalized one is everywhere within a second, largest in front.
    """
    seconds = np.arange(n, dtype=np.float32) / SAMPLING_RATE
    if seizure.generalized:
        final = 0.55 + 0.45 * geometry.pattern(geometry.POSITIONS[geometry.at("Fz")[0]], 0.8)
        arrival, pace, delays = np.full(19, 0.5), 0.3, np.zeros(19)
    else:
        row = ELECTRODES.index(seizure.onset)
        distance = geometry.angles_to(geometry.POSITIONS[row])
        other = geometry.SIDES * geometry.SIDES[row] < 0
        final = np.maximum(geometry.pattern(geometry.POSITIONS[row], 1.0), 0.45) * np.where(other, 0.45, 1.0)
        length = n / SAMPLING_RATE
        arrival = length * (0.22 * distance / (np.pi / 2) + np.where(other, 0.2, 0.0))
        pace, delays = length / 40, 0.012 * distance
        arrival[row] = -10 * pace
    rise = 1.0 / (1.0 + np.exp(-(seconds[None] - arrival[:, None].astype(np.float32)) / np.float32(pace)))
    return (final[:, None].astype(np.float32) * rise).astype(np.float32), delays


def postictal(rng: np.random.Generator, seizure: Seizure, n: int) -> Signal:
    """Irregular slow waves of 1 to 2 Hz that fade over n samples behind the seizure: (19, n) float32 µV."""
    where = np.full(19, 0.7)
    if not seizure.generalized:
        where = np.maximum(geometry.pattern(geometry.POSITIONS[ELECTRODES.index(seizure.onset)], 0.9), 0.3)
    waves = 0.8 * narrow(rng, 1, n, 1.4, 0.4) + 0.6 * narrow(rng, 19, n, 1.4, 0.4)
    fade = np.linspace(1, 0, n, dtype=np.float32) * taper(n, 1.0, 1.0)
    return np.float32(0.35 * seizure.amplitude_uv) * where[:, None].astype(np.float32) * fade * waves
