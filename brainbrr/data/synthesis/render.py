"""From the plan of a recording to its samples."""

from __future__ import annotations

import numpy as np

from brainbrr.config import SAMPLING_RATE
from brainbrr.data.synthesis import artefacts, lookalikes, seizures
from brainbrr.data.synthesis.background import background
from brainbrr.data.synthesis.noise import Signal
from brainbrr.data.synthesis.plan import RecordingPlan, Stream


def render_electrodes(plan: RecordingPlan) -> Signal:
    """The 19 electrodes of a recording: (19, N) float32 µV at 256 Hz, order of `config.ELECTRODES`."""
    n = plan.duration_s * SAMPLING_RATE
    signal = background(plan.stream(Stream.BACKGROUND), n, plan.traits)
    for index, seizure in enumerate(plan.seizures):
        _add_seizure(plan.stream(Stream.SEIZURES, index), signal, seizure)
    for index, lookalike in enumerate(plan.lookalikes):
        _add(signal, lookalikes.render(plan.stream(Stream.LOOKALIKES, index), lookalike), lookalike.start_s)
    for index, artefact in enumerate(plan.artefacts):
        artefacts.apply(plan.stream(Stream.ARTEFACTS, index), signal, artefact)
    return signal


def render_heart(plan: RecordingPlan) -> Signal:
    """The ECG channel of a recording: (N,) float32 µV. It goes flat with the amplifier."""
    n = plan.duration_s * SAMPLING_RATE
    rng = plan.stream(Stream.HEART)
    beats = np.cumsum(rng.normal(60.0 / rng.uniform(55, 95), 0.03, 3 * plan.duration_s + 8).clip(0.3))
    signal = rng.normal(0, 5, n).astype(np.float32)
    length = int(0.12 * SAMPLING_RATE)
    at = (np.arange(length) - length / 2) / SAMPLING_RATE
    complex_ = 900 * np.exp(-0.5 * (at / 0.012) ** 2) - 250 * np.exp(-0.5 * ((at - 0.03) / 0.012) ** 2)
    for start in (beats * SAMPLING_RATE).astype(int):
        if start + length <= n:
            signal[start : start + length] += complex_.astype(np.float32)
    for artefact in plan.artefacts:
        if artefact.kind == "flat":
            signal[round(artefact.start_s * SAMPLING_RATE) : round(artefact.stop_s * SAMPLING_RATE)] = 0.0
    return signal


def _add(signal: Signal, piece: Signal, start_s: float) -> None:
    start = round(start_s * SAMPLING_RATE)
    signal[:, start : start + piece.shape[1]] += piece


def _add_seizure(rng: np.random.Generator, signal: Signal, seizure: seizures.Seizure) -> None:
    """The discharge, and behind it the slowing, as far as the recording goes."""
    _add(signal, seizures.render(rng, seizure), seizure.start_s)
    stop = round(seizure.stop_s * SAMPLING_RATE)
    after = min(round(rng.uniform(*seizures.POSTICTAL_S) * SAMPLING_RATE), signal.shape[1] - stop)
    if after > 0:
        _add(signal, seizures.postictal(rng, seizure, after), seizure.stop_s)
