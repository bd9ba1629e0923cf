"""A checkpoint in Python: `brainbrr.load`, and annotations that mne takes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import mne
import numpy as np
import pytest

import brainbrr
from brainbrr.config import ELECTRODES
from brainbrr.configure import build_config
from brainbrr.data.errors import RecordingError
from brainbrr.data.labels import Event, LabelFile
from brainbrr.loaded import from_raw, to_annotations
from brainbrr.training.checkpoint import Checkpoint, CheckpointError, save_checkpoint
from brainbrr.training.setup import new_detector


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    values = {
        "data": {"window_size": 10, "stride": 10},
        "preprocessing": {"causal": True},
        "model": {"architecture": "tcn", "tcn": {"num_layers": 1, "channels": [4], "stride_down": 512}},
        "evaluation": {"stride": 5},
    }
    config = build_config(values, source="test")
    path = tmp_path_factory.mktemp("loaded") / "best.pt"
    state = {"model": new_detector(config).state_dict(), "optimizer": {}, "scheduler": {}, "scaler": {}}
    save_checkpoint(
        path, Checkpoint(config=config, step=0, epoch=0, batch=0, state=state, rng={}, progress={}, backends={})
    )
    return path


def raw_of(names: list[str], seconds: float = 30) -> mne.io.RawArray:
    info = mne.create_info(names, sfreq=250.0, ch_types="eeg", verbose="ERROR")
    data = np.random.default_rng(0).normal(0, 30e-6, (len(names), int(seconds * 250)))
    return mne.io.RawArray(data, info, verbose="ERROR")


def test_predict_gives_annotations_that_raw_takes(checkpoint: Path) -> None:
    detector = brainbrr.load(checkpoint, device="cpu")
    raw = raw_of([*reversed(ELECTRODES), "ECG"])
    annotations = detector.predict(raw)
    assert isinstance(annotations, mne.Annotations)
    raw.set_annotations(annotations)


def test_volts_become_microvolts() -> None:
    raw = raw_of(list(ELECTRODES))
    recording = from_raw(raw)
    np.testing.assert_allclose(recording.signal, 1e6 * raw.get_data(), rtol=1e-6)
    assert (recording.rate, recording.labels) == (250.0, ELECTRODES)


def test_events_become_annotations() -> None:
    labels = LabelFile(path=Path("a"), events=(Event(start_s=3, stop_s=5.5, label="fnsz"),), duration_s=30)
    raw = raw_of(list(ELECTRODES))
    raw.set_annotations(to_annotations(labels))
    assert (raw.annotations.onset[0], raw.annotations.duration[0], raw.annotations.description[0]) == (3, 2.5, "fnsz")


def test_a_stream_of_the_loaded_detector(checkpoint: Path) -> None:
    stream = brainbrr.load(checkpoint, device="cpu").stream(256.0, ELECTRODES)
    judged = stream.push(np.random.default_rng(0).normal(0, 20, (19, 20 * 256)))
    assert judged.probabilities.size == 20 * 256


def test_what_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        brainbrr.load(tmp_path / "none.pt")
    with pytest.raises(RecordingError, match="no signal for Fp1"):
        brainbrr.load(checkpoint, device="cpu").predict(raw_of(["C3", "C4"]))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = brainbrr.nothing


def test_importing_the_package_is_light() -> None:
    program = "import brainbrr, sys; assert 'torch' not in sys.modules; assert 'load' in dir(brainbrr)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_exports_are_what_they_say() -> None:
    assert all(getattr(brainbrr, name) is not None for name in brainbrr.__all__)
