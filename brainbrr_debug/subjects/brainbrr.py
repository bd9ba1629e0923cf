"""The seizure detector as a Subject: its switches are the configuration's own options."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from brainbrr.config import ELECTRODES, Config
from brainbrr.configure import build_config, differences, with_values
from brainbrr.data.dataset import WindowDataset
from brainbrr.training.checkpoint import MAY_DIFFER, CheckpointError, load_checkpoint
from brainbrr.training.loop import set_rng_state
from brainbrr.training.optim import learning_rate_factor
from brainbrr.training.setup import as_batch, build_setup, epoch_windows, planned_steps, window_batches
from brainbrr_debug.subject import Batch, Run, Schedule, Switch
from brainbrr_debug.subjects.electrodes import PLACES
from brainbrr_debug.subjects.switches import switches_of


class DetectorSubject:
    """The detector, its optimizer and its training step, as one configuration describes them."""

    channels = ELECTRODES  # names for the second axis of an input, in verdicts
    places = PLACES  # of the channels on a head, in pictures

    def __init__(self, config: Config) -> None:
        self.config = config

    @classmethod
    def from_config(cls, values: Mapping[str, Any]) -> Self:
        """The Subject of a captured configuration (plain values)."""
        return cls(build_config(values, source="the capture's configuration"))

    def build(self, seed: int, switches: Mapping[str, object]) -> Run:
        """A fresh run; a switch is a dotted key of the configuration."""
        config = with_values(self.config, {"experiment.device": self._device(), **switches})
        setup = build_setup(config, seed)
        return Run(
            model=setup.model,
            optimizer=setup.optimizer,
            loss_fn=setup.loss_fn,
            batches=_Batches(config),
            step=setup.step,
            extra_state={"scaler": setup.step.scaler},
            accumulate=config.training.gradient_accumulation_steps,
            schedule=_schedule(config),
        )

    def _device(self) -> str:
        # A run captured on a GPU can still be replayed where there is none, to a tolerance.
        return "auto" if self.config.experiment.device == "cuda" else self.config.experiment.device

    def switches(self) -> Mapping[str, Switch]:
        """Every component that can be taken away, and every hazard that has a safe form."""
        return switches_of(self.config)

    def resume(self, checkpoint: Path) -> tuple[Run, int] | None:
        """The run as a checkpoint of `train` left it, with the batches that follow and torch's generators set.

        None for any other file, and for one of another configuration.
        """
        try:
            found = load_checkpoint(checkpoint)
        except CheckpointError:
            return None
        if found.config is None or any(
            not line.startswith(MAY_DIFFER) for line in differences(found.config, self.config)
        ):
            return None
        run = self.build(self.config.experiment.seed, {})
        run.model.load_state_dict(found.state["model"])
        run.optimizer.load_state_dict(found.state["optimizer"])
        run.extra_state["scaler"].load_state_dict(found.state["scaler"])
        set_rng_state(found.rng)
        return dataclasses.replace(run, batches=_rest(self.config, found.epoch, found.batch)), found.step

    def identify(self, batch_index: int, sample_index: int) -> dict[str, Any]:
        """Recording and seconds of a sample of a batch of the first epoch, from the cache."""
        dataset = _windows(self.config)
        order = epoch_windows(self.config, dataset, 0)
        return dict(dataset.identify(int(order[batch_index * self.config.training.batch_size + sample_index])))


def _schedule(config: Config) -> Schedule:
    """The trainer's; how long a whole training is, only the data know."""

    @functools.cache
    def whole() -> int:
        return planned_steps(config, _windows(config))

    def factor(step: int, steps: int | None) -> float:
        return learning_rate_factor(step, total=steps or whole(), schedule=config.training.scheduler)

    return factor


def _windows(config: Config) -> WindowDataset:
    from brainbrr.data.prepare import prepare, windows

    return windows(config, prepare(config)["train"])


def _rest(config: Config, epoch: int, first: int) -> Iterator[Batch]:
    """The batches of an epoch from `first` on, and those of the epochs after it."""
    dataset = _windows(config)
    for number in range(epoch, config.training.epochs):
        for batch in window_batches(config, dataset, number, first if number == epoch else 0):
            yield as_batch(batch)


class _Batches:
    """The batches of an epoch, drawn only when somebody iterates: the first epoch, and the next one each time after."""

    def __init__(self, config: Config) -> None:
        self._config, self._epochs = config, itertools.count()

    def __iter__(self) -> Iterator[Batch]:
        for batch in window_batches(self._config, _windows(self._config), next(self._epochs)):
            yield as_batch(batch)
