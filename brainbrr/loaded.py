"""A trained detector in Python: `load(checkpoint)`, then recordings in, annotations out."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from brainbrr.config import Config
from brainbrr.data.edf import Recording
from brainbrr.data.labels import LabelFile
from brainbrr.evaluation.checkpointed import load_detector
from brainbrr.evaluation.predict import Prediction, predict_signal, read_and_predict
from brainbrr.evaluation.streaming import StreamingDetector
from brainbrr.models.detector import Detector
from brainbrr.training.setup import choose_device

if TYPE_CHECKING:
    import mne


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LoadedDetector:
    """A detector with the configuration it was trained with, on `device`."""

    detector: Detector
    config: Config
    device: torch.device

    def predict(self, raw: mne.io.BaseRaw) -> mne.Annotations:
        """The seizures in `raw`, for `raw.set_annotations` and `raw.plot`; its channels are found by name.

        Raises RecordingError where electrodes are missing.
        """
        return to_annotations(predict_signal(self.detector, self.config, from_raw(raw), device=self.device).labels)

    def predict_file(self, path: str | Path) -> Prediction:
        """The seizures in an EDF file, with the probability of every sample. Raises RecordingError."""
        return read_and_predict(self.detector, self.config, Path(path), device=self.device)

    def stream(self, rate: float, labels: Sequence[str]) -> StreamingDetector:
        """A stream of samples at `rate` Hz; see StreamingDetector for what it asks of the configuration."""
        return StreamingDetector(self.detector, self.config, rate=rate, labels=labels, device=self.device)


def load(checkpoint: str | Path, *, config: Config | None = None, device: str = "auto") -> LoadedDetector:
    """The detector in a checkpoint of `brainbrr train`; `config` for a file of weights alone.

    Raises CheckpointError and ConfigError as `load_detector`.
    """
    detector, found = load_detector(Path(checkpoint), config)
    where = choose_device(device)
    return LoadedDetector(detector=detector.to(where).eval(), config=found, device=where)


def from_raw(raw: mne.io.BaseRaw) -> Recording:
    """An `mne.io.Raw` (volts) as a recording (µV): its EEG channels by their names."""
    start = raw.info["meas_date"]
    return Recording(
        path=Path(str(raw.filenames[0] or "raw")),  # None for data that came from nowhere
        signal=(1e6 * raw.get_data()).astype(np.float32),
        labels=tuple(raw.ch_names),
        rate=float(raw.info["sfreq"]),
        start=None if start is None else start.replace(tzinfo=None),
        gaps=(),
        annotations=(),
        notes=(),
        found=tuple(raw.ch_names),
    )


def to_annotations(labels: LabelFile) -> mne.Annotations:
    """The events as `mne.Annotations`, their times relative to the first sample."""
    import mne

    events = labels.events
    return mne.Annotations(
        onset=[event.start_s for event in events],
        duration=[event.stop_s - event.start_s for event in events],
        description=[event.label for event in events],
    )
