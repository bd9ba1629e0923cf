"""AdamW and the learning rate over a run."""

from __future__ import annotations

import math

import torch
from torch import nn

from brainbrr.config import Scheduler, Training


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Matrices decay; vectors and scalars (norms, biases, A_log, D, dt_bias) do not."""
    matrices = [p for p in model.parameters() if p.requires_grad and p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.requires_grad and p.ndim < 2]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]


def build_optimizer(model: nn.Module, training: Training) -> torch.optim.AdamW:
    """Fused AdamW: several times cheaper a step than the loop over parameters, and it honours `found_inf`."""
    groups = parameter_groups(model, training.weight_decay)
    return torch.optim.AdamW(groups, lr=training.learning_rate, fused=True)


def learning_rate_factor(step: int, *, total: int, schedule: Scheduler) -> float:
    """Share of the full learning rate at `step` (0-based) of `total`.

    Rises linearly from 1/w to 1 over the w = max(1, warmup_ratio * total) warm-up steps, the first step included,
    then falls to 0 at `total` along half a cosine or a line, or stays.
    """
    warmup = max(1, round(schedule.warmup_ratio * total))
    if step < warmup:
        return (step + 1) / warmup
    if schedule.type == "constant":
        return 1.0
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    return 0.5 * (1 + math.cos(math.pi * progress)) if schedule.type == "cosine" else 1.0 - progress


def build_scheduler(
    optimizer: torch.optim.Optimizer, training: Training, total: int
) -> torch.optim.lr_scheduler.LambdaLR:
    """`learning_rate_factor` applied each time `scheduler.step()` is called; the first step's rate is set at once."""
    return torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: learning_rate_factor(step, total=total, schedule=training.scheduler)
    )
