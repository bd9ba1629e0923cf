"""What a cache's recordings are like: against the planted artefacts, and against counting by hand."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from brainbrr.cli import cli
from brainbrr.config import ELECTRODES, Preprocessing
from brainbrr.data.cache import build_cache, open_cache
from brainbrr.data.cache_inspection import QUANTILES, CacheInspection, inspect_cache
from brainbrr.data.cache_page import cache_page
from brainbrr.data.edf import read_recording
from brainbrr.data.montage import to_electrodes
from brainbrr.data.quality import amplitudes
from brainbrr.data.synthetic import write_corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("corpus")
    options = {"minutes": 3, "seizures": 1, "lookalikes": 0, "seed": 4}
    write_corpus(root, patients=2, splits=("train", "dev"), artefacts=("flat",), **options)
    (next((root / "edf/dev").rglob("*.csv_bi"))).unlink()
    return root


@pytest.fixture(scope="module")
def cache(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    for split in ("train", "dev"):
        build_cache(corpus, folder, split, Preprocessing())
    return folder


@pytest.fixture(scope="module")
def inspection(cache: Path) -> CacheInspection:
    return inspect_cache(cache)


def test_label_totals_patients_and_lengths(inspection: CacheInspection) -> None:
    train, dev = inspection.splits
    assert (train.scan.seizures, train.scan.unlabelled, dev.scan.unlabelled) == (2, 0, 1)
    assert len(train.patients) == 2 and sum(each["seizures"] for each in train.patients.values()) == 2
    assert train.durations_s == (180.0,) * len(QUANTILES)
    assert train.source_rates == {"256 Hz": 2}
    assert train.seizure_durations_s[0] > 0 and len(dev.seizure_durations_s) == len(QUANTILES)


def test_flat_seconds_are_those_that_were_planted(corpus: Path, inspection: CacheInspection) -> None:
    planted = [each for each in json.loads((corpus / "artefacts.json").read_text()) if each["kind"] == "flat"]
    train_names = {path.stem for path in (corpus / "edf/train").rglob("*.edf")}
    seconds = dict.fromkeys(ELECTRODES, 0.0)
    for each in planted:
        if each["recording"] in train_names:
            for name in each["electrodes"]:
                seconds[name] += each["stop_s"] - each["start_s"]
    assert max(seconds.values()) > 20
    for each in inspection.splits[0].electrodes:
        # The filter's answer to the step takes some 10 s to fall below the cache's resolution.
        assert seconds[each.electrode] - 15 * len(planted) <= each.flat_s <= seconds[each.electrode]
        assert each.dead == 0 and each.interpolated == 0


def test_tails_and_clipping_are_counted_by_hand(cache: Path, inspection: CacheInspection) -> None:
    signals = [recording.read(0, recording.n_samples) for recording in open_cache(cache, "train").recordings]
    values = np.abs(np.concatenate([signal.ravel() for signal in signals]))
    for sigma, share in inspection.splits[0].beyond.items():
        assert share == pytest.approx((values > float(sigma)).mean(), abs=1e-6)
    assert inspection.splits[0].clipped == pytest.approx((values >= 10).mean(), abs=1e-6)


def test_amplitudes_are_in_microvolts_of_the_source(corpus: Path, cache: Path) -> None:
    for recording in open_cache(cache, "train").recordings:
        source = to_electrodes(read_recording(next(corpus.rglob(f"{recording.name}.edf")))).signal
        assert recording.amplitudes_uv == amplitudes(source, 256)
    noise = np.random.default_rng(0).normal(0, 20, (19, 60 * 256)).astype(np.float32)
    noise += np.linspace(0, 600, noise.shape[1], dtype=np.float32)  # drift
    noise[:, 1000:3000] = 9000  # and a bad stretch
    assert amplitudes(noise, 256) == pytest.approx([20] * 19, rel=0.1)


def test_a_dead_and_a_missing_electrode(tmp_path: Path, write_edf, eeg) -> None:
    signals = eeg(40)
    signals["EEG O1-REF"][:] = 100
    del signals["EEG FZ-REF"]
    write_edf(signals, "edf/train/p_s001_t000.edf")
    build_cache(tmp_path, tmp_path / "cache", "train", Preprocessing())
    found = {each.electrode: each for each in inspect_cache(tmp_path / "cache").splits[0].electrodes}
    assert (found["O1"].dead, found["O1"].flat_s, found["O1"].amplitudes_uv[3]) == (1, 40, 0)
    assert (found["Fz"].interpolated, found["Fz"].amplitudes_uv) == (1, ())
    assert (found["C3"].dead, found["C3"].interpolated, found["C3"].flat_s) == (0, 0, 0)


def test_command_and_page(cache: Path, inspection: CacheInspection, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    result = CliRunner().invoke(cli, ["inspect", str(cache), "--html", str(page)], standalone_mode=False)
    assert result.return_value == 0
    assert "train: 2 recordings" in result.stdout and "interpolated in" in result.stdout
    html = page.read_text()
    assert html == cache_page(inspection)
    assert html.count("<svg") == 4 and "<script" not in html
    assert not re.search(r"https?:|url\((?!#)", html)
    as_json = CliRunner().invoke(cli, ["inspect", str(cache), "--format", "json"], standalone_mode=False)
    document = json.loads(as_json.stdout)
    assert [split["split"] for split in document["splits"]] == ["train", "dev"] and document["problems"] == []
    assert len(document["splits"][0]["electrodes"]) == 19


def test_labels_belong_to_a_recording(cache: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["inspect", str(cache), "--labels", "a.csv_bi"])
    assert result.exit_code == 2 and "expected an EDF file for --labels" in result.output
