"""The stable detector, small, on a corpus that holds the incident's artefact: 500 steps, no finding, and it learns."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from brainbrr.cli import cli
from brainbrr.config import Config
from brainbrr.configure import load_config
from brainbrr.data.cache import build_cache, open_cache
from brainbrr.data.synthetic import write_corpus
from brainbrr.evaluation.baseline import line_length
from brainbrr.evaluation.checkpointed import evaluate_checkpoint, load_detector
from brainbrr.evaluation.evaluate import evaluate_scores
from brainbrr.evaluation.scoring import choose_threshold

ROOT = Path(__file__).parents[2]
RATE = 10.0  # false alarms per 24 h


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Patients that no training saw: 8 to choose thresholds on (dev), 8 others to score (eval), 5.3 h each."""
    root = tmp_path_factory.mktemp("strangers")
    write_corpus(root, patients=8, minutes=40, seizures=3, lookalikes=3, seed=1042, splits=("dev", "eval"))
    return root


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("smoke")
    arguments = ["train", str(ROOT / "configs/local/smoke.yaml")]
    for value in (
        f"data.data_dir={place}/corpus",
        f"data.cache_dir={place}/cache",
        f"experiment.output_dir={place}/runs",
    ):
        arguments += ["--set", value]
    assert cli.main(arguments, standalone_mode=False) == 0
    assert json.loads((place / "corpus/artefacts.json").read_text())[0]["kind"] == "flat"
    (path,) = (place / "runs").iterdir()
    return path


@pytest.mark.slow
def test_five_hundred_steps_without_a_finding(run: Path) -> None:
    assert len((run / "readings.jsonl").read_text().splitlines()) == 500
    assert not (run / "findings.jsonl").exists()
    assert not list((run / "captures").iterdir())


@pytest.mark.slow
def test_it_finds_the_seizures_of_patients_it_never_saw(run: Path, strangers: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    detector, config = load_detector(run / "checkpoints/best.pt")
    report = evaluate_checkpoint(
        detector, config, strangers, split="eval", thresholds_from="dev", cache_dir=tmp_path / "cache"
    )
    assert report.sweep.references >= 24
    assert report.sweep.hours >= 5
    assert len({recording.patient for recording in report.recordings}) >= 8
    point = next(point for point in report.points if point.fa_rate == RATE)
    assert point.score is not None
    assert point.score.sensitivity > 0.8
    assert point.score.fa_per_24h <= RATE


@pytest.mark.slow
def test_line_length_does_not(strangers: Path, tmp_path: Path) -> None:
    config: Config = load_config(ROOT / "configs/local/smoke.yaml")
    reports = {}
    for split, chosen in (("dev", None), ("eval", "dev")):
        build_cache(strangers, tmp_path / "cache", split, config.preprocessing)
        recordings = open_cache(tmp_path / "cache", split, config.preprocessing).recordings
        threshold = choose_threshold(reports[chosen].sweep, RATE) if chosen else None
        reports[split] = evaluate_scores(
            lambda recording: line_length(recording, n_samples=recording.n_samples),
            recordings,
            config,
            chosen={RATE: threshold} if chosen else None,
        )
    score = reports["eval"].sweep.score_at(threshold)
    assert score.sensitivity < 0.5
