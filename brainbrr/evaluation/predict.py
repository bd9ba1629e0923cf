"""Seizures in one recording: from an EDF file to events, one stage after the other.

C = 19 electrodes, N samples of the recording at 256 Hz.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from brainbrr.config import SAMPLING_RATE, Config
from brainbrr.data.edf import Recording, read_recording
from brainbrr.data.labels import LabelFile, clip_events
from brainbrr.data.montage import to_electrodes
from brainbrr.data.preprocess import preprocess
from brainbrr.evaluation.postprocess import Probabilities, events_from_probabilities
from brainbrr.evaluation.stitching import probabilities
from brainbrr.files import atomic_write


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The seizures found (`labels`, with the recording's start and length), and the probability of every sample.

    `probabilities`: (N,) float32 at 256 Hz. `seconds` names the stages in their order. `notes` say what was odd about
    the recording.
    """

    labels: LabelFile
    probabilities: Probabilities
    seconds: dict[str, float]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As one document; probabilities are an array and go into a file of their own."""
        events = [dataclasses.asdict(event) for event in self.labels.events]
        return {
            "stopped": False,
            "recording": self.labels.path.name,
            "duration_s": self.labels.duration_s,
            "events": events,
            "seconds": self.seconds,
            "notes": list(self.notes),
        }

    def text(self) -> str:
        """One line an event, and one for where the time went."""
        lines = [
            f"seizure  {event.start_s:10.2f} to {event.stop_s:10.2f} s  confidence {event.confidence:.2f}"
            for event in self.labels.events
        ]
        spent = "  ".join(f"{stage} {seconds:.2f}" for stage, seconds in self.seconds.items())
        return "\n".join([*(lines or ["no seizure"]), f"seconds  {spent}"])


@dataclass(frozen=True, kw_only=True)
class InMemory:
    """A preprocessed recording, (C, N) float32 in σ."""

    name: str
    signal: npt.NDArray[np.float32]

    def read(self, start: int, stop: int) -> npt.NDArray[np.float32]:
        """Samples [start, stop) as (C, stop - start)."""
        return self.signal[:, start:stop]


def read_and_predict(detector: nn.Module, config: Config, path: Path, *, device: torch.device) -> Prediction:
    """`predict_signal` of the EDF file at `path`, bipolar or not. Raises RecordingError for what cannot be read."""
    seconds: dict[str, float] = {}
    with _timed("read", seconds):
        recording = read_recording(path, derivations=True)
    prediction = predict_signal(detector, config, recording, device=device)
    return dataclasses.replace(prediction, seconds=seconds | prediction.seconds)


def predict_signal(detector: nn.Module, config: Config, recording: Recording, *, device: torch.device) -> Prediction:
    """Find the seizures in `recording` with `detector` (on `device`), preprocessed as `config` says.

    Raises RecordingError where electrodes are missing, NonFiniteOutput for a broken detector.
    """
    seconds: dict[str, float] = {}
    with _timed("preprocess", seconds):
        montaged = to_electrodes(recording, estimate=True)
        prepared = preprocess(montaged.signal, recording.rate, config.preprocessing, gaps=recording.gaps)
    with _timed("detect", seconds):
        prob = probabilities(
            detector,
            InMemory(name=recording.path.name, signal=prepared.signal),
            n_samples=prepared.signal.shape[1],
            window=round(config.data.window_size * SAMPLING_RATE),
            stride=round(config.evaluation.stride * SAMPLING_RATE),
            batch_size=config.evaluation.batch_size,
            device=device,
        )
    with _timed("events", seconds):
        events = events_from_probabilities(prob, SAMPLING_RATE, config.postprocessing)
    # The last sample at 256 Hz may end a fraction of a sample behind the recording.
    events, _ = clip_events(events, recording.duration_s)
    return Prediction(
        labels=LabelFile(path=recording.path, events=events, duration_s=recording.duration_s, start=recording.start),
        probabilities=prob,
        seconds=seconds,
        notes=(*recording.notes, *montaged.notes, *prepared.notes),
    )


def write_probabilities(path: Path, prob: Probabilities) -> None:
    """Write `prob` (N,) as a NumPy array, whole or not at all."""
    with atomic_write(path) as file:
        np.save(file, prob)


@contextlib.contextmanager
def _timed(stage: str, seconds: dict[str, float]) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - started
