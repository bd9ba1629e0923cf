"""From a configuration to windows: what is written, what is reused, what is refused."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from brainbrr.config import Config
from brainbrr.configure import build_config
from brainbrr.data.errors import CacheError
from brainbrr.data.labels import Event
from brainbrr.data.prepare import DataError, Untrainable, prepare, require_seizures, windows
from brainbrr.data.synthetic import write_corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two patients in train, one in dev, a minute each; do not change it."""
    root = tmp_path_factory.mktemp("corpus")
    write_corpus(root, patients=2, minutes=1, seizures=1, lookalikes=0, seed=3, splits=("train",))
    write_corpus(root / "more", patients=1, minutes=1, seizures=1, lookalikes=0, seed=3, splits=("dev",))
    shutil.move(root / "more/edf/dev", root / "edf/dev")
    return root


@pytest.fixture
def configured(tmp_path: Path) -> Callable[..., Config]:
    """A configuration with everything below a folder of its own."""

    def make(data_dir: Path, **data: Any) -> Config:
        window = {"window_size": 10, "stride": 10}
        sections = {"data_dir": data_dir, "cache_dir": tmp_path / "cache", **window, **data}
        return build_config({"data": sections, "evaluation": {"stride": 10}})

    return make


Configured = Callable[..., Config]


def test_a_corpus_is_cached_once_and_what_happened_is_said(corpus: Path, configured: Configured) -> None:
    lines: list[str] = []
    advances: list[tuple[int, int]] = []
    config = configured(corpus)
    caches = prepare(config, lines.append, lambda done, total, name: advances.append((done, total)))
    assert {split: len(cache.recordings) for split, cache in caches.items()} == {"train": 2, "dev": 1}
    assert advances == [(1, 2), (2, 2), (1, 1)]
    assert [line.split(" (")[0] for line in lines] == [
        "cache       train: 2 recordings",
        "cache       dev: 1 recordings",
    ]
    lines.clear()
    prepare(config, lines.append, lambda *progress: pytest.fail("built again"))
    assert "(0 built, 2 reused)" in lines[0]


def test_a_synthetic_corpus_is_written_where_none_is(tmp_path: Path, configured: Configured) -> None:
    lines: list[str] = []
    synthetic = {"patients": 1, "minutes": 1, "seizures": 1, "lookalikes": 0}
    config = configured(tmp_path / "new", synthetic=synthetic)
    prepare(config, lines.append)
    assert lines[0] == f"corpus      wrote 2 synthetic recordings (0.0 h) to {tmp_path / 'new'}"
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "new").rglob("*.edf")}
    prepare(config, lines.append)
    assert len(lines) == 5  # it is not written again
    assert files == {path: path.stat().st_mtime_ns for path in (tmp_path / "new").rglob("*.edf")}


def test_the_seed_of_the_run_is_that_of_the_corpus_unless_it_has_its_own(tmp_path: Path) -> None:
    def names(root: Path, run_seed: int, seed: int | None) -> list[str]:
        synthetic = {"patients": 1, "minutes": 1, "seizures": 1, "lookalikes": 0, "seed": seed}
        data = {"data_dir": root, "cache_dir": root / "cache", "synthetic": synthetic}
        prepare(build_config({"data": data, "experiment": {"seed": run_seed}}))
        return sorted(path.name for path in root.rglob("*.edf"))

    assert names(tmp_path / "a", 5, None) == names(tmp_path / "b", 9, 5) != names(tmp_path / "c", 9, None)


def test_a_corpus_without_dev_is_trained_on_without_validation(
    corpus: Path, tmp_path: Path, configured: Configured
) -> None:
    shutil.copytree(corpus / "edf/train", tmp_path / "c/edf/train")
    assert prepare(configured(tmp_path / "c")).keys() == {"train"}


def test_a_folder_without_a_training_split_is_a_wrong_path(
    corpus: Path, tmp_path: Path, configured: Configured
) -> None:
    with pytest.raises(CacheError, match=r"holds no \.edf file"):
        prepare(configured(tmp_path))
    shutil.copytree(corpus / "edf/dev", tmp_path / "c/edf/dev")
    with pytest.raises(DataError, match="no recording of the split 'train' in this corpus of layout 'tusz'") as caught:
        prepare(configured(tmp_path / "c"))
    assert not isinstance(caught.value, Untrainable)


def test_no_seizure_in_training_gives_the_counts(corpus: Path, tmp_path: Path, configured: Configured) -> None:
    shutil.copytree(corpus, tmp_path / "c")
    first, second = sorted((tmp_path / "c/edf/train").rglob("*.csv_bi"))
    first.unlink()
    text = second.read_text()
    second.write_text("\n".join(line for line in text.splitlines() if "seiz" not in line) + "\n")
    lines: list[str] = []
    with pytest.raises(
        Untrainable, match=r"0 seizures in 2 training recordings \(1 without labels\); expected at"
    ) as e:
        prepare(configured(tmp_path / "c"), lines.append)
    assert e.value.exit_code == 1
    assert "left out    1 recordings of train without labels" in lines


def test_a_recording_that_cannot_be_read_is_named_and_left_out(
    corpus: Path, tmp_path: Path, configured: Configured
) -> None:
    shutil.copytree(corpus, tmp_path / "c")
    path = sorted((tmp_path / "c/edf/train").rglob("*.edf"))[0]
    path.write_bytes(path.read_bytes()[:5000])
    lines: list[str] = []
    caches = prepare(configured(tmp_path / "c"), lines.append)
    assert len(caches["train"].recordings) == 1
    (line,) = [line for line in lines if line.startswith("left out")]
    assert line.startswith(f"left out    {path.stem}: ") and "1 failed" in lines[0]


def test_a_patient_in_two_splits_is_refused(corpus: Path, tmp_path: Path, configured: Configured) -> None:
    shutil.copytree(corpus, tmp_path / "c")
    patient = sorted((tmp_path / "c/edf/train").iterdir())[0]
    shutil.copytree(patient, tmp_path / "c/edf/dev" / patient.name)
    with pytest.raises(CacheError, match=rf"1 patient\(s\) in two splits: {patient.name} \(train and dev\)"):
        prepare(configured(tmp_path / "c"))


def test_windows_are_cut_as_configured(corpus: Path, configured: Configured) -> None:
    config = configured(corpus, window_size=20, stride=5)
    dataset = windows(config, prepare(config)["train"])
    assert dataset.length == 20 * 256
    assert [dataset.identify(window)["start_s"] for window in range(3)] == [0, 5, 10]


def test_windows_that_cannot_be_balanced_are_untrainable_with_the_counts(corpus: Path, configured: Configured) -> None:
    config = configured(corpus, stride=60)  # one window a recording, none of them partly seizure
    with pytest.raises(Untrainable, match=r"balanced sampling needs windows that are partly seizure; found 0 among 2"):
        windows(config, prepare(config)["train"])
    unbalanced = configured(corpus, stride=60, use_balanced_sampling=False)
    assert len(windows(unbalanced, prepare(unbalanced)["train"])) == 2


def test_windows_in_gaps_are_counted_aloud(corpus: Path, configured: Configured) -> None:
    config = configured(corpus)
    cache = prepare(config)["train"]
    gap = Event(start_s=20, stop_s=45)
    gapped = dataclasses.replace(
        cache, recordings=(dataclasses.replace(cache.recordings[0], gaps=(gap,)), *cache.recordings[1:])
    )
    lines: list[str] = []
    windows(config, gapped, lines.append)
    assert lines == ["left out    2 windows of train that lie wholly in gaps"]


def test_only_the_first_recordings_are_used_under_a_limit(corpus: Path, configured: Configured) -> None:
    caches = prepare(configured(corpus, limit_files=1))
    assert {split: len(cache.recordings) for split, cache in caches.items()} == {"train": 1, "dev": 1}


def test_a_cache_with_seizures_passes(corpus: Path, configured: Configured) -> None:
    require_seizures(prepare(configured(corpus))["dev"])
