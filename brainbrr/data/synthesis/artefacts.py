"""Technical faults of a recording, at exact times: what they are, how long they last, what they do to the signal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from brainbrr.config import ELECTRODES, SAMPLING_RATE
from brainbrr.data.synthesis import geometry
from brainbrr.data.synthesis.noise import Signal

RAIL_UV = 6553.4
"""Largest voltage the converter can express: 32767 steps of 0.2 µV."""
POP_SIGMA = 100.0
"""Height of an electrode pop in standard deviations of its electrode over the recording."""


@dataclass(frozen=True, kw_only=True)
class Artefact:
    """One fault: `start_s` and `stop_s` bound exactly the samples that it alters."""

    recording: str
    kind: str
    start_s: float
    stop_s: float
    electrodes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Kind:
    seconds: tuple[float, float]
    electrodes: Callable[[np.random.Generator], list[int]]
    apply: Callable[[np.random.Generator, Signal, list[int], Signal], None]  # changes (electrodes, n) in place


def apply(rng: np.random.Generator, signal: Signal, artefact: Artefact) -> None:
    """Put the artefact into `signal` (19, N) µV, in place."""
    rows = [ELECTRODES.index(name) for name in artefact.electrodes]
    start, stop = (round(seconds * SAMPLING_RATE) for seconds in (artefact.start_s, artefact.stop_s))
    deviation = signal[rows].std(axis=1, keepdims=True)
    stretch = signal[rows, start:stop]
    _KINDS[artefact.kind].apply(rng, stretch, rows, deviation)
    signal[rows, start:stop] = stretch


def draw_electrodes(rng: np.random.Generator, kind: str) -> tuple[str, ...]:
    """The electrodes that a fault of this kind affects."""
    return tuple(ELECTRODES[row] for row in sorted(_KINDS[kind].electrodes(rng)))


def draw_seconds(rng: np.random.Generator, kind: str) -> float:
    """How long a fault of this kind lasts, in quarters of a second."""
    return float(np.round(rng.uniform(*_KINDS[kind].seconds) * 4) / 4)


def _everywhere(_: np.random.Generator) -> list[int]:
    return list(range(19))


def _one(rng: np.random.Generator) -> list[int]:
    return [int(rng.integers(19))]


def _pair(rng: np.random.Generator) -> list[int]:
    first = int(rng.integers(19))
    return [first, geometry.neighbours(first, 1)[0]]


def _flat(rng: np.random.Generator, stretch: Signal, rows: list[int], deviation: Signal) -> None:
    """The amplifier is disconnected: the converter delivers one value."""
    stretch[:] = 0.0


def _bridged(rng: np.random.Generator, stretch: Signal, rows: list[int], deviation: Signal) -> None:
    """Gel joins two electrodes: both show their mean."""
    stretch[:] = stretch.mean(axis=0)


def _saturation(rng: np.random.Generator, stretch: Signal, rows: list[int], deviation: Signal) -> None:
    """The amplifier sits at its rail."""
    stretch[:] = RAIL_UV * rng.choice((-1.0, 1.0))


def _pop(rng: np.random.Generator, stretch: Signal, rows: list[int], deviation: Signal) -> None:
    """The electrode comes loose: a step that discharges with a time constant of 0.3 s."""
    decay = np.exp(-np.arange(stretch.shape[1]) / (0.3 * SAMPLING_RATE)).astype(np.float32)
    stretch += np.float32(POP_SIGMA * rng.choice((-1.0, 1.0))) * deviation * decay


def _calibration(rng: np.random.Generator, stretch: Signal, rows: list[int], deviation: Signal) -> None:
    """Inputs on the calibrator: a square wave of 1 Hz and 100 µV peak to peak, with the amplifier's own noise."""
    high = np.arange(stretch.shape[1]) % SAMPLING_RATE < SAMPLING_RATE // 2
    stretch[:] = np.where(high, 50.0, -50.0) + rng.normal(0, 0.5, stretch.shape)


def _mains(rng: np.random.Generator, stretch: Signal, rows: list[int], deviation: Signal) -> None:
    """60 Hz and a little of its second harmonic, of different strength at every electrode."""
    cycles = 60.0 * np.arange(stretch.shape[1]) / SAMPLING_RATE + rng.random()
    gain = rng.uniform(15, 60, (len(rows), 1))
    stretch += (gain * (np.sin(2 * np.pi * cycles) + 0.1 * np.sin(4 * np.pi * cycles))).astype(np.float32)


_KINDS = {
    "flat": _Kind(seconds=(40, 55), electrodes=_everywhere, apply=_flat),
    "bridged": _Kind(seconds=(60, 120), electrodes=_pair, apply=_bridged),
    "saturation": _Kind(seconds=(5, 20), electrodes=_one, apply=_saturation),
    "pop": _Kind(seconds=(1.5, 2.5), electrodes=_one, apply=_pop),
    "calibration": _Kind(seconds=(10, 20), electrodes=_everywhere, apply=_calibration),
    "mains": _Kind(seconds=(30, 90), electrodes=_everywhere, apply=_mains),
}
KINDS = tuple(_KINDS)
"""flat: all electrodes deliver one constant value · bridged: two electrodes deliver the same values · saturation: one
electrode at the converter's rail · pop: a step of 100 σ at one electrode · calibration: a square wave at all · mains:
60 Hz at all."""
