"""The training loop: epochs of steps under an observer, validation, checkpoints. Reads top to bottom."""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from brainbrr.config import Config, EarlyStopping
from brainbrr.data.dataset import WindowBatch, WindowDataset
from brainbrr.training.checkpoint import Checkpoint, save_checkpoint
from brainbrr.training.observer import Observer
from brainbrr.training.optim import build_scheduler
from brainbrr.training.setup import Setup, as_batch, epoch_windows, identities, window_batches

Narrate = Callable[[str], None]
Validate = Callable[[Setup], dict[str, float]]
Scalars = Callable[[int, dict[str, float]], None]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a finished training came to: `best` is the early-stopping metric's best value, None without validation."""

    steps: int
    epochs: int
    stopped_early: bool
    best: float | None
    metrics: dict[str, float]
    seconds: float


class Trainer:
    """One run. `train` may be called once; `resume` puts it where a checkpoint left off."""

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
        batches = math.ceil(len(epoch_windows(config, dataset, 0)) / training.batch_size)
        steps = training.epochs * math.ceil(batches / training.gradient_accumulation_steps)
        self.total = min(steps, training.max_steps or steps)
        self.scheduler = build_scheduler(setup.optimizer, training, self.total)
        self.step = self.epoch = self.batch = 0
        self.best: float | None = None
        self.epochs_without_gain = 0
        self.metrics: dict[str, float] = {}

    def train(self) -> Outcome:
        """Run to the end. Whatever the observer raises passes through; Ctrl-C saves the last checkpoint first."""
        started = time.monotonic()
        stopped = False
        try:
            while self.step < self.total and not stopped:
                self._train_epoch()
                stopped = self._end_epoch()
        except KeyboardInterrupt:
            self.save("last")
            raise
        self.save("last")
        return Outcome(
            steps=self.step,
            epochs=self.epoch,
            stopped_early=stopped and self.step < self.total,
            best=self.best,
            metrics=self.metrics,
            seconds=time.monotonic() - started,
        )

    def _train_epoch(self) -> None:
        self.setup.model.train()
        windows = window_batches(self.config, self.dataset, self.epoch, self.batch)
        for micro_windows in _groups(windows, self.config.training.gradient_accumulation_steps):
            self._train_step(micro_windows)
            self.batch += len(micro_windows)
            if self.step >= self.total:
                return
            if self.step % self.config.training.checkpoint_interval == 0:
                self.save("last")

    def _train_step(self, micro_windows: tuple[WindowBatch, ...]) -> None:
        started = time.monotonic()
        batches = [as_batch(windows) for windows in micro_windows]
        rate = self.setup.optimizer.param_groups[0]["lr"]
        self.observer.begin(
            batches, step=self.step, identities=[identities(self.dataset, windows) for windows in micro_windows]
        )
        self.setup.step(batches, self.observer)
        self.observer.end()
        self.scheduler.step()
        if self.step % self.config.training.log_every == 0 or self.step + 1 == self.total:
            loss, norm = float(self.setup.step.loss), float(self.setup.step.norm)
            seconds = time.monotonic() - started
            altered = sum(self.setup.step.altered.values())
            self.narrate(
                f"step {self.step:>6}/{self.total}  epoch {self.epoch:>3}  loss {loss:<9.4g}  |g| {norm:<9.3g}  "
                f"lr {rate:<9.3g}  {seconds:5.2f} s" + (f"  ! {altered} values sanitised so far" if altered else "")
            )
            self.scalars(self.step, {"loss": loss, "gradient_norm": norm, "learning_rate": rate})
        self.step += 1

    def _end_epoch(self) -> bool:
        """Validate, remember the best, and say whether to stop early."""
        self.epoch += 1
        self.batch = 0
        training = self.config.training
        due = self.epoch % training.validate_every == 0 or self.step >= self.total
        if self.validate is None or not due:
            return False
        self.metrics = self.validate(self.setup)
        self.scalars(self.step, self.metrics)
        shown = "  ".join(f"{name} {value:.4g}" for name, value in self.metrics.items())
        self.narrate(f"epoch {self.epoch - 1:>5} validation  {shown}")
        return self._early_stop(self.metrics[training.early_stopping.metric], training.early_stopping)

    def _early_stop(self, value: float, rule: EarlyStopping) -> bool:
        better = self.best is None or (value < self.best if rule.metric == "loss" else value > self.best)
        if better and math.isfinite(value):
            self.best, self.epochs_without_gain = value, 0
            self.save("best")
            return False
        self.epochs_without_gain += 1
        if rule.patience is None or self.epochs_without_gain < rule.patience:
            return False
        self.narrate(f"stopped early: {rule.metric} has not improved on {self.best} for {rule.patience} validations")
        return True

    def save(self, name: str) -> Path:
        """Write `checkpoints/<name>.pt`; returns its path."""
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
                rng={"cpu": torch.get_rng_state(), **_cuda_rng()},
                progress={"best": self.best, "epochs_without_gain": self.epochs_without_gain},
                backends=dataclasses.asdict(self.setup.model.backends),
            ),
        )
        return path

    def resume(self, checkpoint: Checkpoint) -> None:
        """Go on exactly where `checkpoint` was written: the steps that follow have the same bits."""
        self.setup.model.load_state_dict(checkpoint.state["model"])
        self.setup.optimizer.load_state_dict(checkpoint.state["optimizer"])
        self.scheduler.load_state_dict(checkpoint.state["scheduler"])
        self.setup.step.scaler.load_state_dict(checkpoint.state["scaler"])
        torch.set_rng_state(checkpoint.rng["cpu"])
        if "cuda" in checkpoint.rng and torch.cuda.is_available():
            torch.cuda.set_rng_state(checkpoint.rng["cuda"])
        self.step, self.epoch, self.batch = checkpoint.step, checkpoint.epoch, checkpoint.batch
        self.best = checkpoint.progress["best"]
        self.epochs_without_gain = checkpoint.progress["epochs_without_gain"]


def _cuda_rng() -> dict[str, torch.Tensor]:
    return {"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {}


def _groups(windows: Iterator[WindowBatch], size: int) -> Iterator[tuple[WindowBatch, ...]]:
    while group := tuple(itertools.islice(windows, size)):
        yield group
