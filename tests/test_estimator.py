from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mne
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import cross_val_score
from torch.utils.data import Dataset

from brainbrr import SeizureClassifier
from brainbrr.config import ELECTRODES
from brainbrr.estimator import WindowsError
from brainbrr_debug import NonFiniteStep, Watch

SETTINGS = (
    "model.architecture=tcn",
    "model.tcn={num_layers: 2, channels: [8, 8], kernel_size: 5, stride_down: 16, dropout: 0.0}",
    "training.batch_size=4",
    "training.epochs=12",
    "training.learning_rate=0.01",
    "training.loss=bce",
    "training.scheduler.warmup_ratio=0.0",
)
SECONDS = 2


def rhythmic(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Noise, and in every second window a rhythm of 3 Hz on all electrodes, µV."""
    generator = np.random.default_rng(seed)
    y = np.arange(n) % 2
    X = generator.standard_normal((n, 19, 256 * SECONDS)) * 20
    X[y == 1] += 60 * np.sin(2 * np.pi * 3 * np.arange(256 * SECONDS) / 256)
    return X.astype(np.float32), y


@pytest.fixture(scope="module")
def fitted() -> SeizureClassifier:
    return SeizureClassifier(settings=SETTINGS).fit(*rhythmic(24))


def test_learns_what_is_there(fitted: SeizureClassifier) -> None:
    X, y = rhythmic(20, seed=1)
    assert fitted.score(X, y) == 1.0
    chance = fitted.predict_proba(X)
    assert chance.shape == (20, 2) and np.allclose(chance.sum(1), 1)
    assert fitted.losses_[-1] < fitted.losses_[0] / 2


def test_is_an_estimator_of_scikit_learn(fitted: SeizureClassifier) -> None:
    X, y = rhythmic(16)
    names = np.array(["rest", "seizure"])[y]
    scores = cross_val_score(clone(fitted), X, names, cv=2, error_score="raise")
    assert list(scores) == [1.0, 1.0]
    again = clone(fitted).fit(X, y).predict_proba(X)
    assert np.array_equal(again, clone(fitted).fit(X, y).predict_proba(X))  # the seed decides, and nothing else


class Recorded(Dataset[Any]):
    """The part of Braindecode's WindowsDataset that is asked for: items, metadata, and the recording's channels."""

    def __init__(self, X: np.ndarray, y: np.ndarray, names: list[str], rate: float = 256.0) -> None:
        self.X, self.y = X, y
        self.windows = mne.EpochsArray(X[:1], mne.create_info(names, rate, "eeg"), verbose="ERROR")
        self.read = 0

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int, list[int]]:
        self.read += 1
        return self.X[index], int(self.y[index]), [0, 0, self.X.shape[-1]]

    def get_metadata(self) -> dict[str, np.ndarray]:
        return {"target": self.y}


class Joined(Dataset[Any]):
    """As Braindecode's BaseConcatDataset."""

    def __init__(self, part: Recorded) -> None:
        self.datasets, self.part = [part], part

    def __len__(self) -> int:
        return len(self.part)

    def __getitem__(self, index: int) -> Any:
        return self.part[index]

    def get_metadata(self) -> Any:
        return self.part.get_metadata()


def test_windows_of_braindecode_are_picked_by_name(fitted: SeizureClassifier) -> None:
    X, y = rhythmic(24)
    order = [*reversed(range(19))]
    names = [f"EEG {ELECTRODES[i].upper()}-REF" for i in order]
    shuffled = Recorded(np.concatenate([X[:, :1] * 0, X[:, order]], axis=1), y, ["ECG", *names])
    found = clone(fitted).fit(Joined(shuffled))
    assert np.array_equal(found.predict_proba(shuffled), fitted.predict_proba(X))
    assert shuffled.read == 24 * 12 + 1 + 24  # every window once an epoch, one for the length, and once to judge


@pytest.fixture(params=[True, False], ids=["watched", "alone"])
def broken(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[SeizureClassifier, type[Exception]]]:
    settings = (*SETTINGS, "training.learning_rate=1e30", "training.gradient_clip=0")
    if request.param:
        yield (
            SeizureClassifier(settings=settings, watch=lambda m, o: Watch(m, o, tmp_path / "fit")),  # type: ignore[arg-type,return-value]
            NonFiniteStep,
        )
        assert list((tmp_path / "fit" / "captures").glob("*.h5"))
    else:
        yield SeizureClassifier(settings=settings), FloatingPointError


def test_a_fit_that_blows_up_ends_before_the_damage(broken: tuple[SeizureClassifier, type[Exception]]) -> None:
    classifier, expected = broken
    with pytest.raises(expected, match="not finite"):
        classifier.fit(*rhythmic(24))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda X, y: (X[:, :18], y), r"windows of shape \(18, 512\); expected \(19 electrodes, samples\)"),
        (lambda X, y: (X, y * 0), r"1 kinds of label: \[0\]; expected two"),
        (lambda X, y: (X, y[:3]), "8 windows and 3 labels; expected one label a window"),
        (lambda X, y: (X, None), "an array of windows and no labels; expected y"),
        (lambda X, y: (np.where(X[3, 0, 0] == X, np.nan, X), y), "window 3 holds samples that are not finite"),
        (lambda X, y: (Recorded(X, y, list(ELECTRODES), 200.0), None), "windows at 200 Hz; expected 256 Hz: resample"),
        (
            lambda X, y: (Recorded(X, y, ["ECG", *ELECTRODES[1:]]), None),
            f"no channel for {ELECTRODES[0]} among ECG, .*; expected all 19",
        ),
    ],
)
def test_other_windows_are_refused(change: Any, message: str) -> None:
    with pytest.raises(WindowsError, match=message):
        SeizureClassifier(settings=SETTINGS).fit(*change(*rhythmic(8)))
