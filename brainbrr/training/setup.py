"""From a configuration to the objects of a run: the one path that training, replay and evaluation share."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from brainbrr.config import SAMPLING_RATE, Config, ConfigError
from brainbrr.data.dataset import WindowBatch, WindowDataset, load_batches
from brainbrr.data.sampling import epoch_order
from brainbrr.models.detector import Detector, build_detector
from brainbrr.training.losses import Loss, build_loss
from brainbrr.training.observer import Batch
from brainbrr.training.optim import build_optimizer
from brainbrr.training.step import TrainingStep


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """Model, optimizer, loss and step of one run, on their device."""

    model: Detector
    optimizer: torch.optim.Optimizer
    loss_fn: Loss
    step: TrainingStep
    device: torch.device


def build_setup(config: Config, seed: int | None = None) -> Setup:
    """Fresh objects with torch's generators seeded by `seed` (None: `experiment.seed`)."""
    device = choose_device(config.experiment.device)
    torch.manual_seed(config.experiment.seed if seed is None else seed)
    model = new_detector(config).to(device)
    optimizer = build_optimizer(model, config.training)
    loss_fn = build_loss(config.training)
    step = TrainingStep(model, optimizer, loss_fn, config.training)
    return Setup(model=model, optimizer=optimizer, loss_fn=loss_fn, step=step, device=device)


def new_detector(config: Config) -> Detector:
    """The detector that `config` describes, on the CPU. Raises ConfigError when widths do not fit together."""
    try:
        return build_detector(config.model, samples_per_window=round(config.data.window_size * SAMPLING_RATE))
    except ValueError as error:
        raise ConfigError(f"model: {error}") from error


def choose_device(name: str) -> torch.device:
    """`auto` takes CUDA where there is one. Raises ConfigError for a CUDA device that is not there."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("experiment.device is cuda and torch finds no CUDA device; set it to auto or cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def epoch_windows(config: Config, dataset: WindowDataset, epoch: int) -> Any:
    """The window indices of an epoch (0-based), in order: a function of seed and epoch alone."""
    return epoch_order(
        dataset.kinds,
        seed=config.experiment.seed,
        epoch=epoch,
        balanced=config.data.use_balanced_sampling,
        full_ratio=config.data.full_seizure_ratio,
        background_ratio=config.data.background_ratio,
    )


def planned_steps(config: Config, dataset: WindowDataset) -> int:
    """Optimizer steps of a whole training."""
    training = config.training
    batches = math.ceil(len(epoch_windows(config, dataset, 0)) / training.batch_size)
    steps = training.epochs * math.ceil(batches / training.gradient_accumulation_steps)
    return min(steps, training.max_steps or steps)


def window_batches(config: Config, dataset: WindowDataset, epoch: int, first: int = 0) -> Iterator[WindowBatch]:
    """The micro-batches of an epoch from micro-batch `first` on; the short last one is kept."""
    order = epoch_windows(config, dataset, epoch)[first * config.training.batch_size :]
    data = config.data
    batches = load_batches(
        dataset,
        order,
        config.training.batch_size,
        num_workers=data.num_workers,
        pin_memory=data.pin_memory,
        persistent_workers=data.persistent_workers,
        prefetch_factor=data.prefetch_factor,
    )
    # A loader with workers draws their seed when it starts. A run that is resumed within an epoch starts one more than
    # a run that was not, and both are to draw the same numbers in the steps that follow.
    state = torch.get_rng_state()
    started = list(itertools.islice(batches, 1))
    torch.set_rng_state(state)
    return itertools.chain(started, batches)


def as_batch(windows: WindowBatch) -> Batch:
    """The form that a training step takes: ((signal (B, 19, L),), target (B, L))."""
    return (windows.signal,), windows.target


def identities(dataset: WindowDataset, windows: WindowBatch) -> Sequence[dict[str, Any]]:
    """For every sample of the batch its recording and seconds."""
    return [dataset.identify(window) for window in windows.windows]
