"""The local check of a submission: each of its checks on a detector that is fine and on one that would score zero."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
import yaml
from torch import nn

from brainbrr.config import ELECTRODES, Config
from brainbrr.configure import build_config
from brainbrr.data.edf import Recording
from brainbrr.data.montage import Montaged
from brainbrr.evaluation import predict, submission
from brainbrr.evaluation.submission import check_submission

ROOT = Path(__file__).parents[2]
SCHEMA = ROOT.parent / "shared" / "data" / "szcore" / "schema.json"


class First(nn.Module):
    """Logits are the first electrode, less three."""

    def forward(self, signal: torch.Tensor) -> torch.Tensor:
        return signal[:, 0] - 3


class Divides(nn.Module):
    """What a detector that divides by its input's deviation does to a flat stretch."""

    def forward(self, signal: torch.Tensor) -> torch.Tensor:
        x = signal[:, 0]
        return x / nn.functional.max_pool1d(x.abs()[:, None], 257, 1, 128)[:, 0].round(decimals=1)


def configured(**postprocessing: Any) -> Config:
    return build_config(
        {"data": {"window_size": 10, "stride": 10}, "evaluation": {"stride": 10}, "postprocessing": postprocessing},
        source="test",
    )


def failing(detector: nn.Module, config: Config) -> list[str]:
    outcomes = check_submission(detector, config, device=torch.device("cpu"))
    assert len(outcomes) == 7
    return [outcome.check for outcome in outcomes if not outcome.holds]


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A minute stands for the ten of the real check."""
    made = submission._eeg
    monkeypatch.setattr(submission, "_eeg", lambda seconds: made(60 if seconds > 100 else seconds))


def test_a_sound_detector_passes() -> None:
    assert failing(First(), configured()) == []


def test_a_detector_that_breaks_on_a_flat_stretch() -> None:
    assert "a disconnected amplifier gives numbers" in failing(Divides(), configured())


def test_events_shorter_than_the_grid() -> None:
    assert failing(First(), configured(duration={"min": 0.3})) == ["no event vanishes on the grid of 1 Hz"]


def test_electrodes_by_position(monkeypatch: pytest.MonkeyPatch) -> None:
    def by_position(recording: Recording, *, estimate: bool) -> Montaged:
        return Montaged(signal=recording.signal[: len(ELECTRODES)], interpolated=(), notes=())

    class Fifth(First):
        def forward(self, signal: torch.Tensor) -> torch.Tensor:
            return signal[:, 4] - 3  # F7 with us, O1 there

    monkeypatch.setattr(predict, "to_electrodes", by_position)
    assert failing(Fifth(), configured()) == ["electrodes are found by name"]


def test_names_that_are_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submission, "_TEN_TEN", {"T3": "T77"})
    assert failing(First(), configured()) == ["T7, T8, P7 and P8 are known"]


def test_a_length_in_whole_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    read = predict.read_and_predict

    def rounded(*args: Any, **kwargs: Any) -> Any:
        found = read(*args, **kwargs)
        assert found.labels.duration_s is not None
        return dataclasses.replace(
            found, labels=dataclasses.replace(found.labels, duration_s=int(found.labels.duration_s))
        )

    monkeypatch.setattr(submission, "read_and_predict", rounded)
    assert failing(First(), configured()) == ["recordingDuration is that of the file"]


def test_a_table_without_its_columns_and_a_slow_detector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submission, "COLUMNS", ("onset", "offset"))
    monkeypatch.setattr(submission.time, "perf_counter", iter(range(0, 10**6, 700)).__next__)
    assert failing(First(), configured()) == ["a recording of 2 s gives a table", "a day of EEG takes less than a day"]


@pytest.mark.skipif(not SCHEMA.is_file(), reason="the shared recordings are not here")
def test_the_description_fits_the_schema() -> None:
    description = yaml.safe_load((ROOT / "deploy/szcore/brainbrr.yaml").read_text())
    jsonschema.validate(description, json.loads(SCHEMA.read_text()))
    assert len(description["short_title"]) <= 20


def test_the_dockerfile_runs_the_command_that_there_is() -> None:
    text = (ROOT / "deploy/szcore/Dockerfile").read_text()
    assert 'CMD brainbrr predict "/data/$INPUT" "/output/$OUTPUT" --to bids --force' in text
    assert "VOLUME /data" in text and "VOLUME /output" in text and "USER 10001" in text
