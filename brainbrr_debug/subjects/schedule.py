"""What only the detector's own code can say of a configuration: its first learning rates, its loss at the corners."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from brainbrr.config import Config
from brainbrr.configure import with_values
from brainbrr.data.cache import open_cache
from brainbrr.data.dataset import WindowDataset
from brainbrr.data.errors import CacheError
from brainbrr.environment import apply_overrides
from brainbrr.training.losses import build_loss
from brainbrr.training.optim import learning_rate_factor
from brainbrr.training.setup import planned_steps
from brainbrr_debug.facts import Corner, Schedule
from brainbrr_debug.subjects.configuration import config_of

FIRST = 5  # learning rates
LOGITS = (-100.0, -10.0, 0.0, 10.0, 100.0)


def schedule_of(path: Path, cache: Path | None) -> Schedule:
    """The schedule of a configuration; steps only where the cache (`data.cache_dir` by default) is there."""
    config, _ = apply_overrides(config_of(path))
    training, scheduler = config.training, config.training.scheduler
    steps, epoch_steps = _steps(config, cache or config.data.cache_dir)
    epochs = float(training.epochs)
    if steps is not None and epoch_steps:
        epochs = steps / epoch_steps
    warmup_steps = None if steps is None else max(1, round(scheduler.warmup_ratio * steps))
    return Schedule(
        key="training.scheduler.warmup_ratio",
        peak=training.learning_rate,
        epochs=epochs,
        warmup_epochs=scheduler.warmup_ratio * epochs,
        steps=steps,
        epoch_steps=epoch_steps,
        warmup_steps=warmup_steps,
        rates=tuple(
            training.learning_rate * learning_rate_factor(step, total=steps or 0, schedule=scheduler)
            for step in range(min(FIRST, warmup_steps or 0))
        ),
    )


def _steps(config: Config, cache_dir: Path) -> tuple[int | None, int | None]:
    """Of the whole run and of one epoch; None where there is no cache to count windows in."""
    try:
        cache = open_cache(cache_dir, "train", config.preprocessing, limit_files=config.data.limit_files)
        dataset = WindowDataset(cache, window_size=config.data.window_size, stride=config.data.stride)
        one = with_values(config, {"training.epochs": 1, "training.max_steps": None})
        return planned_steps(config, dataset), planned_steps(one, dataset)
    except (CacheError, ValueError, OSError):
        return None, None  # no cache, or none that an epoch can be drawn from: the cache's own checks say why


def selection_metric(values: Mapping[str, Any]) -> str | None:
    """What a run's configuration says it stops by; also of one that this version would refuse."""
    found: Any = values
    for key in ("training", "early_stopping", "metric"):
        found = found.get(key) if isinstance(found, Mapping) else None
    return None if found is None else str(found)


def corners_of(path: Path) -> Iterator[Corner]:
    """The loss at the bounds of its options and as configured, for each target, at small and saturated logits."""
    config, _ = apply_overrides(config_of(path))
    training = config.training
    for alpha in dict.fromkeys((0.0, training.focal_alpha, 1.0)):
        for gamma in dict.fromkeys((0.0, training.focal_gamma)):
            options = with_values(config, {"training.focal_alpha": alpha, "training.focal_gamma": gamma})
            yield from _corners(options)


def _corners(config: Config) -> Iterator[Corner]:
    loss_fn, training = build_loss(config.training), config.training
    for target in (0.0, 1.0):
        logits = torch.tensor([LOGITS], requires_grad=True)
        loss = loss_fn(logits, torch.full_like(logits, target))
        (gradient,) = torch.autograd.grad(loss, logits)
        worst = int((~torch.isfinite(gradient[0])).int().argmax())  # the first that is not finite, else the first
        name = f"logits {LOGITS[worst]:g}, target {target:g}"
        if training.loss == "focal":
            name += f", focal_alpha {training.focal_alpha:g}, focal_gamma {training.focal_gamma:g}"
        yield Corner(name=name, loss=float(loss.detach()), gradient=float(gradient.abs()[0, worst]))
