"""`brainbrr predict`: from an EDF file to events on disk, as the SzCORE container calls it."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner, Result
from torch import nn

from brainbrr.cli import cli
from brainbrr.config import Config
from brainbrr.configure import build_config
from brainbrr.data.cache import build_cache, open_cache
from brainbrr.data.formats import read_label_file
from brainbrr.data.synthetic import write_corpus
from brainbrr.evaluation.predict import read_and_predict
from brainbrr.evaluation.stitching import probabilities
from brainbrr.training.checkpoint import Checkpoint, save_checkpoint
from brainbrr.training.setup import new_detector
from brainbrr_debug.main import exit_code

SHARED = Path(__file__).parents[1].parent / "shared" / "data"
CPU = torch.device("cpu")


class Loud(nn.Module):
    """Logit 20 where the mean amplitude around a sample exceeds 0.6 σ, −20 elsewhere."""

    def forward(self, signal: torch.Tensor) -> torch.Tensor:
        loud = signal.abs().mean(dim=1, keepdim=True)
        return 40 * (nn.functional.avg_pool1d(loud, 513, 1, 256)[:, 0] > 0.6).float() - 20


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("predict")
    write_corpus(place / "corpus", patients=1, minutes=1, seizures=1, lookalikes=0, seed=3, splits=("dev",))
    return place


@pytest.fixture(scope="module")
def edf(corpus: Path) -> Path:
    (path,) = (corpus / "corpus").rglob("*.edf")
    return path


@pytest.fixture(scope="module")
def config() -> Config:
    values = {
        "data": {"window_size": 10, "stride": 10},
        "model": {"architecture": "tcn", "tcn": {"num_layers": 1, "channels": [4], "stride_down": 512}},
        "evaluation": {"stride": 5},
        "experiment": {"device": "cpu"},
    }
    return build_config(values, source="test")


@pytest.fixture(scope="module")
def checkpoint(corpus: Path, config: Config) -> Path:
    path = corpus / "last.pt"
    state = {"model": new_detector(config).state_dict(), "optimizer": {}, "scheduler": {}, "scaler": {}}
    save_checkpoint(
        path, Checkpoint(config=config, step=0, epoch=0, batch=0, state=state, rng={}, progress={}, backends={})
    )
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["predict", *map(str, arguments)], standalone_mode=False)


def test_probabilities_are_those_of_the_cached_recording(corpus: Path, edf: Path, config: Config) -> None:
    build_cache(corpus / "corpus", corpus / "cache", "dev", config.preprocessing)
    (recording,) = open_cache(corpus / "cache", "dev", config.preprocessing).recordings
    detector = new_detector(config)
    cached = probabilities(
        detector, recording, n_samples=recording.n_samples, window=2560, stride=1280, batch_size=8, device=CPU
    )
    predicted = read_and_predict(detector, config, edf, device=CPU)
    np.testing.assert_allclose(predicted.probabilities, cached, atol=1e-3)  # the cache rounds to 16 bits
    assert set(predicted.seconds) == {"read", "preprocess", "detect", "events"}
    assert predicted.labels.duration_s == 60


def test_events_are_where_the_detector_puts_them(edf: Path, config: Config) -> None:
    found = read_and_predict(Loud(), config, edf, device=CPU).labels
    (seizure,) = read_label_file(edf.with_suffix(".csv_bi")).events
    assert len(found.events) == 1
    assert seizure.start_s - 5 < found.events[0].start_s < found.events[0].stop_s <= seizure.stop_s + 5


def test_every_form_of_output(edf: Path, checkpoint: Path, tmp_path: Path) -> None:
    for name in ("a_events.tsv", "a.csv_bi", "a.edf"):
        result = run(edf, tmp_path / name, "--checkpoint", checkpoint, "--probabilities", tmp_path / f"{name}.npy")
        assert result.exception is None, result.exception
        assert result.stdout.splitlines()[-1].startswith("seconds  read ")
        assert result.stderr.splitlines()[-1] == f"Wrote {tmp_path / name}"
        assert read_label_file(tmp_path / name).duration_s in (60, None)
        prob = np.load(tmp_path / f"{name}.npy")
        assert prob.dtype == np.float32 and prob.shape == (60 * 256,)
    again = run(edf, tmp_path / "a.edf", "--checkpoint", checkpoint)
    assert "a.edf exists" in str(again.exception)


def test_all_forms_at_once(edf: Path, checkpoint: Path, tmp_path: Path) -> None:
    arguments = [edf, tmp_path / "out", "--all", "--checkpoint", checkpoint]
    result = run(*arguments)
    assert result.exception is None, result.exception
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".csv_bi", ".tsv", ".edf", ".json", ".npy"}
    assert ".csv_bi exists" in str(run(*arguments).exception)
    assert run(*arguments, "--force").exception is None
    assert "beside which" in str(run(edf, edf.parent, "--all", "--checkpoint", checkpoint).exception)


def test_document(edf: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRAINBRR_CHECKPOINT", str(checkpoint))
    document = json.loads(run(edf, tmp_path / "a_events.tsv", "--format", "json").stdout)
    assert document["recording"] == edf.name and document["duration_s"] == 60


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared recordings are not here")
@pytest.mark.parametrize("name", ["unipolar", "bipolar"])
def test_the_two_seconds_that_szcore_feeds_to_a_container(name: str, checkpoint: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.tsv"
    result = run(SHARED / "szcore" / f"{name}.edf", target, "--checkpoint", checkpoint)
    assert result.exception is None
    head, row = target.read_text().splitlines()
    assert head.split("\t") == [
        "onset", "duration", "eventType", "confidence", "channels", "dateTime", "recordingDuration",
    ]  # fmt: skip
    assert row.split("\t")[:3] == ["0.00", "2.00", "bckg"] and row.endswith("\t2.00")


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared recordings are not here")
def test_a_bipolar_montage_is_answered_and_said_to_be_an_estimate(checkpoint: Path, tmp_path: Path) -> None:
    with tarfile.open(SHARED / "mini_corpora_white_noise.tar.gz") as archive:
        archive.extract("chbmit/chb05/chb05_06.edf", tmp_path, filter="data")
    edf = tmp_path / "chbmit/chb05/chb05_06.edf"
    result = run(edf, tmp_path / "out.tsv", "--checkpoint", checkpoint)
    assert result.exception is None
    assert "bipolar montage: electrodes estimated, each chain against its own mean (" in result.stderr
    assert len((tmp_path / "out.tsv").read_text().splitlines()) >= 2


def test_wrong_input(edf: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = tmp_path / "broken.edf"
    broken.write_bytes(edf.read_bytes()[:300])
    cases = [
        ([broken, tmp_path / "a.tsv", "--checkpoint", checkpoint], "broken.edf: the file ends inside its header"),
        ([edf, tmp_path / "a.xyz", "--checkpoint", checkpoint], "a.xyz: no known kind of label file"),
        ([edf, tmp_path / "a.tsv", "--checkpoint", tmp_path / "no.pt"], "no.pt: no such file"),
    ]
    for arguments, message in cases:
        assert exit_code(cli, ["predict", *map(str, arguments)]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "a.tsv").exists()


def test_a_broken_detector_writes_nothing(edf: Path, config: Config, corpus: Path, tmp_path: Path) -> None:
    state = new_detector(config).state_dict()
    state = {name: torch.full_like(x, torch.nan) if x.is_floating_point() else x for name, x in state.items()}
    torch.save(state, tmp_path / "weights.pt")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    options = ["--checkpoint", tmp_path / "weights.pt", "--config", tmp_path / "config.yaml", "--format", "json"]
    result = run(edf, tmp_path / "a.tsv", *options)
    assert result.return_value == 1 and json.loads(result.stdout)["stopped"] is True
    assert not (tmp_path / "a.tsv").exists()
