"""Caches of a small synthetic corpus, with and without a fault, and caches of other programs."""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import yaml

from brainbrr.config import Preprocessing
from brainbrr.data.cache import build_cache
from brainbrr.data.cache_index import read_index, write_index
from brainbrr.data.stored import load, store
from brainbrr.data.synthetic import write_corpus
from brainbrr_debug.checks.given import Given
from tests.triage.cases import Case

Change = Callable[[Path], object]


@functools.cache
def built() -> Path:
    """A folder with a corpus of two patients and its cache, made once."""
    place = Path(tempfile.mkdtemp(prefix="triage-"))
    write_corpus(place / "corpus", patients=1, minutes=1, seizures=1, lookalikes=0, seed=3, splits=("train", "dev"))
    for split in ("train", "dev"):
        build_cache(place / "corpus", place / "cache", split, Preprocessing())
    return place


def cached(change: Change = lambda folder: None, **preprocessing: object) -> Callable[[Path], Given]:
    """A copy of the cache, with a configuration for it, changed by `change` (of the folder of both)."""

    def make(folder: Path) -> Given:
        shutil.copytree(built(), folder / "place")
        config = {
            "data": {"data_dir": str(folder / "place/corpus"), "cache_dir": str(folder / "place/cache")},
            "preprocessing": preprocessing,
        }
        (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        change(folder / "place")
        return Given(cache=folder / "place/cache", config=folder / "config.yaml")

    return make


def without_labels(place: Path) -> None:
    """As if no label file had lain beside the recordings."""
    for path in (place / "corpus").rglob("*.csv*"):
        path.unlink()
    index = read_index(place / "cache", "train")
    recordings = tuple(dataclasses.replace(recording, events=None) for recording in index.recordings)
    write_index(place / "cache", "train", dataclasses.replace(index, recordings=recordings))


def with_more_labels(place: Path) -> None:
    """Label files that say more than the cache."""
    for path in (place / "corpus").rglob("*.csv_bi"):
        if "train" in path.parts:
            text = path.read_text(encoding="utf-8")
            path.write_text(text + "TERM,0.0000,9.0000,seiz,1.0000\n", encoding="utf-8")


def array(place: Path) -> Path:
    return next((place / "cache/train").glob("*.npy"))


def flip(place: Path) -> None:
    """One bit of a sample."""
    data = bytearray(array(place).read_bytes())
    data[-1] ^= 1
    array(place).write_bytes(data)


def shared_patient(place: Path) -> None:
    """The patient of train is in dev, too."""
    train, dev = (read_index(place / "cache", split) for split in ("train", "dev"))
    patient = train.recordings[0].patient
    recordings = tuple(dataclasses.replace(recording, patient=patient) for recording in dev.recordings)
    write_index(place / "cache", "dev", dataclasses.replace(dev, recordings=recordings))


def rewritten(change: Callable[[np.ndarray], None]) -> Change:
    """The first training recording with other samples, its checksum right."""

    def rewrite(place: Path) -> None:
        folder = place / "cache/train"
        recording = load(folder, array(place).stem)
        assert recording is not None
        signal = recording.read(0, recording.n_samples).copy()
        change(signal)
        recording = store(folder, signal, recording)
        index = read_index(place / "cache", "train")
        write_index(place / "cache", "train", dataclasses.replace(index, recordings=(recording,)))

    return rewrite


def clipped(place: Path) -> None:
    """A share of an electrode was cut off."""
    index = read_index(place / "cache", "train")
    (first,) = index.recordings
    recording = dataclasses.replace(first, clipped=(0.2, *first.clipped[1:]))
    write_index(place / "cache", "train", dataclasses.replace(index, recordings=(recording,)))


def flatten(signal: np.ndarray) -> None:
    signal[3, 256 * 10 : 256 * 30] = 0.25


def rail(signal: np.ndarray) -> None:
    signal[5, 256 * 10 : 256 * 30] = 10.0


def duplicate(signal: np.ndarray) -> None:
    signal[7] = signal[2]


def short_silence(signal: np.ndarray) -> None:
    signal[3, 256 * 10 : 256 * 12] = 0.25


def npz(*, scale: float = 1.0, label: int = 1, dev: str = "bbb") -> Callable[[Path], Given]:
    """Windows and labels as another program would write them."""

    def make(folder: Path) -> Given:
        rng = np.random.default_rng(0)
        for split, patient in (("train", "aaa"), ("dev", dev)):
            (folder / split).mkdir()
            windows = np.clip(rng.standard_normal((4, 19, 512)), -5, 5).astype(np.float32) * scale
            labels = np.zeros((4, 512), dtype=np.int8)
            labels[0, 9] = label
            np.savez(folder / split / f"{patient}_s001_t000.npz", windows=windows, labels=labels)
        return Given(cache=folder)

    return make


def torn_npz(folder: Path) -> Given:
    given = npz()(folder)
    path = next(folder.rglob("*.npz"))
    path.write_bytes(path.read_bytes()[:200])
    return given


def nothing(folder: Path) -> Given:
    (folder / "cache").mkdir()
    return Given(cache=folder / "cache")


CASES = {
    "cache.labels": (
        Case(planted=cached(without_labels), healthy=cached(), finds=1),
        Case(planted=cached(with_more_labels), healthy=cached()),
        Case(planted=npz(label=0), healthy=npz()),
    ),
    "cache.stale": Case(planted=cached(notch_freq=50.0), healthy=cached(notch_freq=60.0)),
    "cache.empty": (
        Case(planted=nothing, healthy=cached()),
        Case(planted=cached(lambda place: (place / "cache/train.json").unlink()), healthy=npz()),
    ),
    "cache.dangling": Case(planted=cached(lambda place: array(place).unlink()), healthy=cached()),
    "cache.corrupt": (
        Case(planted=cached(flip), healthy=cached()),
        Case(planted=cached(lambda place: array(place).write_bytes(b"torn")), healthy=cached()),
        Case(planted=cached(lambda place: (place / "cache/train.json").write_text(json.dumps([1]))), healthy=cached()),
        Case(planted=torn_npz, healthy=npz()),
    ),
    "cache.leakage": (
        Case(planted=cached(shared_patient), healthy=cached()),
        Case(planted=npz(dev="aaa"), healthy=npz()),
    ),
    "cache.range": (
        Case(planted=npz(scale=30.0), healthy=npz()),
        Case(planted=npz(scale=float("nan")), healthy=npz()),
        Case(planted=cached(clipped), healthy=cached()),
    ),
    "cache.flat": (
        Case(planted=cached(rewritten(flatten)), healthy=cached(rewritten(short_silence))),
        Case(planted=cached(rewritten(rail)), healthy=cached()),
        Case(planted=cached(rewritten(duplicate)), healthy=cached()),
    ),
}
