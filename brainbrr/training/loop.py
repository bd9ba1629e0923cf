"""The training loop: epochs of steps under an observer, validation, checkpoints. Reads top to bottom."""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch

from brainbrr.config import Config
from brainbrr.data.dataset import WindowBatch, WindowDataset
from brainbrr.training.checkpoint import Checkpoint, save_checkpoint
from brainbrr.training.interrupt import deferred_interrupt
from brainbrr.training.observer import Observer
from brainbrr.training.optim import build_scheduler
from brainbrr.training.setup import Setup, as_batch, epoch_windows, identities, planned_steps, window_batches

PROGRESS = ("best", "epochs_without_gain", "validated", "metrics")
"""What a trainer remembers of its validations, and a checkpoint with it."""

Narrate = Callable[[str], None]
Validate = Callable[[Setup], dict[str, float]]
Scalars = Callable[[int, dict[str, float]], None]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a finished training came to: `epochs` counts whole ones, `best` is the early-stopping metric's best value.

    `best` is None and `metrics` empty without validation.
    """

    steps: int
    epochs: int
    stopped_early: bool
    best: float | None
    metrics: dict[str, float]
    seconds: float


class Trainer:
    """One run. `train` may be called once; `resume` puts it where a checkpoint left off.

    `step` counts optimizer steps, `epoch` whole epochs, `batch` the micro-batches of the epoch under way; `saved` is
    the step that the last checkpoint holds, None before the first.
    """

    def __init__(
        self,
        config: Config,
        setup: Setup,
        dataset: WindowDataset,
        *,
        checkpoints: Path,
        observer: Observer,
        validate: Validate | None = None,
        narrate: Narrate = lambda line: None,
        scalars: Scalars = lambda step, values: None,
    ) -> None:
        self.config, self.setup, self.dataset = config, setup, dataset
        self.checkpoints, self.observer, self.validate = checkpoints, observer, validate
        self.narrate, self.scalars = narrate, scalars
        training = config.training
        self.batches = math.ceil(len(epoch_windows(config, dataset, 0)) / training.batch_size)
        self.total = planned_steps(config, dataset)
        self.scheduler = build_scheduler(setup.optimizer, training, self.total)
        self.step = self.epoch = self.batch = self.validated = 0
        self.saved: int | None = None
        self.best: float | None = None
        self.epochs_without_gain = 0
        self.metrics: dict[str, float] = {}
        self._rng: dict[str, torch.Tensor] | None = None  # of the start of the step under way

    def train(self) -> Outcome:
        """Run to the end. Whatever the observer raises passes through; Ctrl-C saves the last checkpoint first."""
        started = time.monotonic()
        try:
            self._validate_if_due()  # where a run was interrupted in its validation
            while self.step < self.total and not self._out_of_patience():
                self._train_epoch()
                self._validate_if_due()
            self.save("last")
        except KeyboardInterrupt:
            self._save_interrupted()
            raise
        stopped_early = self.step < self.total
        if stopped_early:
            rule = self.config.training.early_stopping
            self.narrate(f"stopped early: {rule.metric} not better than {self.best} for {rule.patience} validations")
        return Outcome(
            steps=self.step,
            epochs=self.epoch,
            stopped_early=stopped_early,
            best=self.best,
            metrics=self.metrics,
            seconds=time.monotonic() - started,
        )

    def _train_epoch(self) -> None:
        """The rest of the epoch, or as much of it as there are steps left."""
        self.setup.model.train()
        windows = window_batches(self.config, self.dataset, self.epoch, self.batch)
        for micro_windows in _groups(windows, self.config.training.gradient_accumulation_steps):
            with deferred_interrupt():
                self._train_step(micro_windows)
            if self.step % self.config.training.checkpoint_interval == 0:
                self.save("last")
            if self.step >= self.total or self.batch == 0:
                return

    def _train_step(self, micro_windows: tuple[WindowBatch, ...]) -> None:
        started = time.monotonic()
        self._rng, self.setup.step.updated = _rng_state(), False
        batches = [as_batch(windows) for windows in micro_windows]
        rate = self.setup.optimizer.param_groups[0]["lr"]
        self.observer.begin(
            batches, step=self.step, identities=[identities(self.dataset, windows) for windows in micro_windows]
        )
        self.setup.step(batches, self.observer)
        self.observer.end()
        self.scheduler.step()
        if self.step % self.config.training.log_every == 0 or self.step + 1 == self.total:
            self._log(rate, time.monotonic() - started)
        self.step += 1
        self.batch += len(micro_windows)
        if self.batch >= self.batches:
            self.epoch, self.batch = self.epoch + 1, 0
        self._rng = None

    def _log(self, rate: float, seconds: float) -> None:
        loss, norm = float(self.setup.step.loss), float(self.setup.step.norm)
        altered = sum(self.setup.step.altered.values())
        self.narrate(
            f"step {self.step:>6}/{self.total}  epoch {self.epoch:>3}  loss {loss:<9.4g}  |g| {norm:<9.3g}  "
            f"lr {rate:<9.3g}  {seconds:5.2f} s"
            + ("" if self.setup.step.updated else "  ! not updated")
            + (f"  ! {altered} values sanitised so far" if altered else "")
        )
        self.scalars(self.step, {"loss": loss, "gradient_norm": norm, "learning_rate": rate})

    def _validate_if_due(self) -> None:
        """Validate after every n-th epoch and after the last step; remember the best."""
        training = self.config.training
        whole = self.batch == 0 and self.epoch % training.validate_every == 0
        if self.validate is None or self.step == self.validated or not (whole or self.step >= self.total):
            return
        if self.saved != self.step:
            self.save("last")  # whatever happens in a long validation, the steps before it are kept
        self.metrics = self.validate(self.setup)
        self.scalars(self.step, self.metrics)
        shown = "  ".join(f"{name} {value:.4g}" for name, value in self.metrics.items())
        self.narrate(f"epoch {self.epoch - (self.batch == 0):>5} validation  {shown}")
        self.validated = self.step
        value, lower = self.metrics[training.early_stopping.metric], training.early_stopping.metric == "loss"
        better = self.best is None or (value < self.best if lower else value > self.best)
        if better and math.isfinite(value):
            self.best, self.epochs_without_gain = value, 0
            self.save("best")
        else:
            self.epochs_without_gain += 1

    def _out_of_patience(self) -> bool:
        patience = self.config.training.early_stopping.patience
        return patience is not None and self.epochs_without_gain >= patience

    def _save_interrupted(self) -> None:
        """Save unless the update itself was cut short; a step that was cut short before it will be done anew."""
        if self._rng is not None:
            if self.setup.step.updated:
                return
            set_rng_state(self._rng)
        self.save("last")

    def save(self, name: str) -> Path:
        """Write `checkpoints/<name>.pt`; returns its path. What the observer raises leaves the last one as it is."""
        self.observer.checkpoint()
        path = self.checkpoints / f"{name}.pt"
        save_checkpoint(
            path,
            Checkpoint(
                config=self.config,
                step=self.step,
                epoch=self.epoch,
                batch=self.batch,
                state={
                    "model": self.setup.model.state_dict(),
                    "optimizer": self.setup.optimizer.state_dict(),
                    "scheduler": self.scheduler.state_dict(),
                    "scaler": self.setup.step.scaler.state_dict(),
                },
                rng=_rng_state(),
                progress={name: getattr(self, name) for name in PROGRESS},
                backends=dataclasses.asdict(self.setup.model.backends),
            ),
        )
        self.saved = self.step
        return path

    def resume(self, checkpoint: Checkpoint) -> None:
        """Go on exactly where `checkpoint` was written: the steps that follow have the same bits."""
        self.setup.model.load_state_dict(checkpoint.state["model"])
        self.setup.optimizer.load_state_dict(checkpoint.state["optimizer"])
        self.scheduler.load_state_dict(checkpoint.state["scheduler"])
        self.setup.step.scaler.load_state_dict(checkpoint.state["scaler"])
        set_rng_state(checkpoint.rng)
        self.step, self.epoch, self.batch = checkpoint.step, checkpoint.epoch, checkpoint.batch
        self.saved = checkpoint.step
        for name in PROGRESS:
            setattr(self, name, checkpoint.progress[name])


def _rng_state() -> dict[str, torch.Tensor]:
    cuda = {"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {}
    return {"cpu": torch.get_rng_state(), **cuda}


def set_rng_state(state: Mapping[str, torch.Tensor]) -> None:
    """Set torch's generators to a checkpoint's."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def _groups(windows: Iterator[WindowBatch], size: int) -> Iterator[tuple[WindowBatch, ...]]:
    while group := tuple(itertools.islice(windows, size)):
        yield group
