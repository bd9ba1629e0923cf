"""The detector as a scikit-learn estimator: labelled windows in, one judgement a window out.

    SeizureClassifier("configs/local/smoke.yaml").fit(windows)

takes arrays and any dataset of (window, label, …), Braindecode's `WindowsDataset` and `BaseConcatDataset` among them.

Letters: n windows, C = 19 electrodes, L samples of a window at 256 Hz.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from brainbrr.config import ELECTRODES, SAMPLING_RATE, Config
from brainbrr.configure import build_config, load_config, parse_override, with_values
from brainbrr.data.electrodes import electrode_of
from brainbrr.loaded import LoadedDetector
from brainbrr.training.observer import Batch, Observer, Unobserved
from brainbrr.training.optim import build_scheduler
from brainbrr.training.setup import Setup, build_setup

Watch = Callable[[torch.nn.Module, torch.optim.Optimizer], AbstractContextManager[Observer]]


class Windows(Protocol):
    """Anything with a length whose items begin with a window (C, L) and its label."""

    def __len__(self) -> int:
        """n."""

    def __getitem__(self, index: int) -> Any:
        """(window, label, …)."""


class WindowsError(ValueError):
    """Windows that cannot be learnt from or judged: what was found, what was expected."""


class SeizureClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Trains the detector of a configuration on windows; every electrode of a window is scaled to its own σ.

    `config`: a path, a Config, or None for the defaults; `settings`: ("section.key=value", …) on top of it. Its
    `data.window_size` is that of the windows. `ch_names` names the channels of arrays, which otherwise are the 19
    electrodes in the order of `brainbrr.config.ELECTRODES`; a Braindecode dataset says its own. `watch` gets model and
    optimizer and returns an observer to train under:
    `lambda model, optimizer: brainbrr_debug.Watch(model, optimizer, "runs/fit")`.

    After `fit`: `classes_` (two labels, the second is the seizure), `detector_` (for whole recordings) and `losses_`.
    """

    def __init__(
        self,
        config: str | Path | Config | None = None,
        *,
        settings: Sequence[str] = (),
        ch_names: Sequence[str] | None = None,
        watch: Watch | None = None,
    ) -> None:
        self.config, self.settings, self.ch_names, self.watch = config, settings, ch_names, watch

    def fit(self, X: Windows | npt.ArrayLike, y: npt.ArrayLike | None = None) -> Self:
        """Train on windows X: an array (n, C, L) with labels y (n,), or a dataset that holds its labels.

        Raises WindowsError for other windows, channels or labels, FloatingPointError before an update with a gradient
        that is not finite (`watch` then says why).
        """
        windows = _labelled(X, y)
        channels = _channels(X, self.ch_names)
        labels = _labels(windows)
        self.classes_ = np.unique(labels)
        if len(self.classes_) != 2:
            raise WindowsError(f"{len(self.classes_)} kinds of label: {self.classes_.tolist()}; expected two")
        seconds = np.asarray(windows[0][0]).shape[-1] / SAMPLING_RATE
        config = self._config()
        stride = min(config.evaluation.stride, seconds)  # of `detector_`, so that its windows leave no gap
        config = with_values(config, {"data.window_size": seconds, "evaluation.stride": stride})
        setup = build_setup(config)
        positive = torch.from_numpy(labels == self.classes_[1]).float()
        with self.watch(setup.model, setup.optimizer) if self.watch else contextlib.nullcontext(_Finite()) as observer:
            self.losses_ = _train(setup, config, windows, channels, positive, observer)
        self.detector_ = LoadedDetector(detector=setup.model.eval(), config=config, device=setup.device)
        self.n_features_in_ = len(ELECTRODES)
        return self

    def predict_proba(self, X: Windows | npt.ArrayLike) -> npt.NDArray[np.float64]:
        """(n, 2) probabilities in the order of `classes_`: of a seizure, the mean over the window's samples."""
        check_is_fitted(self)
        windows, channels = _unlabelled(X), _channels(X, self.ch_names)
        loaded, size = self.detector_, self.detector_.config.evaluation.batch_size
        chances = []
        with torch.inference_mode():
            for start in range(0, len(windows), size):
                signal = _batch(windows, range(start, min(start + size, len(windows))), channels).to(loaded.device)
                logits = loaded.detector(signal)
                if not bool(torch.isfinite(logits).all()):
                    raise FloatingPointError("the detector's output is not finite; expected a detector trained well")
                chances.append(logits.sigmoid().mean(-1).double().cpu().numpy())
        chance = np.concatenate(chances) if chances else np.empty(0)
        return np.stack([1 - chance, chance], axis=1)

    def predict(self, X: Windows | npt.ArrayLike) -> npt.NDArray[Any]:
        """(n,) of `classes_`: the likelier one."""
        chosen: npt.NDArray[Any] = self.classes_[self.predict_proba(X).argmax(1)]
        return chosen

    def _config(self) -> Config:
        given = self.config
        config = given if isinstance(given, Config) else build_config({}) if given is None else load_config(given)
        return with_values(config, dict(map(parse_override, self.settings)))


class _Finite(Unobserved):
    """Lets no update pass that is not finite."""

    def gradients(self, norm: torch.Tensor | None = None) -> bool:
        """Raises FloatingPointError."""
        if norm is not None and not bool(torch.isfinite(norm)):
            raise FloatingPointError("the gradient is not finite; train with `watch` to capture the step")
        return True


def _train(
    setup: Setup,
    config: Config,
    windows: Windows,
    channels: Sequence[int],
    positive: torch.Tensor,
    observer: Observer,
) -> list[float]:
    """The mean loss of every step."""
    training = config.training
    generator = torch.Generator().manual_seed(config.experiment.seed)
    group = training.batch_size * training.gradient_accumulation_steps
    total = training.epochs * -(-len(windows) // group)
    total = min(total, training.max_steps or total)
    scheduler = build_scheduler(setup.optimizer, training, total)
    setup.model.train()
    losses: list[float] = []
    while len(losses) < total:
        order = torch.randperm(len(windows), generator=generator).tolist()
        for start in range(0, len(order), group):
            if len(losses) == total:
                break
            chosen = order[start : start + group]
            batches = list(_micro_batches(windows, chosen, channels, positive, training.batch_size))
            observer.begin(batches, step=len(losses))
            setup.step(batches, observer)
            observer.end()
            scheduler.step()
            losses.append(float(setup.step.loss))
    return losses


def _micro_batches(
    windows: Windows, chosen: Sequence[int], channels: Sequence[int], positive: torch.Tensor, size: int
) -> Iterator[Batch]:
    for start in range(0, len(chosen), size):
        part = chosen[start : start + size]
        signal = _batch(windows, part, channels)
        yield (signal,), positive[list(part)][:, None].expand(len(part), signal.shape[-1])


def _batch(windows: Windows, chosen: Sequence[int], channels: Sequence[int]) -> torch.Tensor:
    """(len(chosen), 19, L) float32, every electrode in σ of its own window; a flat one is zero."""
    signal = np.stack([np.asarray(windows[i][0], dtype=np.float64) for i in chosen])
    if signal.ndim != 3 or signal.shape[1] <= max(channels):
        raise WindowsError(f"windows of shape {signal.shape[1:]}; expected ({len(channels)} electrodes, samples)")
    signal = signal[:, channels]
    if not np.isfinite(signal).all():
        bad = [index for index, window in zip(chosen, signal, strict=True) if not np.isfinite(window).all()]
        raise WindowsError(f"window {bad[0]} holds samples that are not finite; expected numbers: leave it out")
    signal -= signal.mean(-1, keepdims=True)
    sigma = signal.std(-1, keepdims=True)
    return torch.from_numpy((signal / np.where(sigma > 0, sigma, 1.0)).astype(np.float32))


def _labelled(X: Any, y: npt.ArrayLike | None) -> Windows:
    if y is None:
        if isinstance(X, np.ndarray):
            raise WindowsError("an array of windows and no labels; expected y, one label a window")
        return X  # type: ignore[no-any-return]
    labels = np.asarray(y)
    if len(labels) != len(X):
        raise WindowsError(f"{len(X)} windows and {len(labels)} labels; expected one label a window")
    return _Pairs(X, labels)


def _labels(windows: Windows) -> npt.NDArray[Any]:
    """One a window; Braindecode knows them without reading the windows."""
    if hasattr(windows, "get_metadata"):
        return np.asarray(windows.get_metadata()["target"])
    return np.array([windows[i][1] for i in range(len(windows))])


def _unlabelled(X: Any) -> Windows:
    return _Pairs(X, np.zeros(len(X))) if isinstance(X, np.ndarray) else X


class _Pairs:
    """Windows of an array or of a dataset, with labels that were given apart."""

    def __init__(self, windows: Any, labels: npt.NDArray[Any]) -> None:
        self._windows, self._labels = windows, labels

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> Any:
        window = self._windows[index]
        return (window if isinstance(self._windows, np.ndarray) else window[0]), self._labels[index]


def _channels(X: Any, given: Sequence[str] | None) -> list[int]:
    """Which channel of a window is which electrode. Raises WindowsError for electrodes that are not there."""
    info = _info(X)
    if info is not None and info["sfreq"] != SAMPLING_RATE:
        raise WindowsError(f"windows at {info['sfreq']:g} Hz; expected {SAMPLING_RATE:g} Hz: resample the recordings")
    names = list(given if given is not None else info["ch_names"] if info is not None else ELECTRODES)
    found = {electrode_of(name): place for place, name in reversed(list(enumerate(names)))}
    missing = [name for name in ELECTRODES if name not in found]
    if missing:
        raise WindowsError(f"no channel for {', '.join(missing)} among {', '.join(names)}; expected all 19")
    return [found[name] for name in ELECTRODES]


def _info(X: Any) -> Any:
    """mne's description of the channels of a Braindecode dataset, of its first recording where it joins several."""
    for part in getattr(X, "datasets", None) or [X]:
        for attribute in ("windows", "raw"):
            if hasattr(part, attribute):
                return getattr(part, attribute).info
    return None
