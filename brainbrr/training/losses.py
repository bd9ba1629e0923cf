"""Losses per sample of EEG: target 1 seizure, 0 background, -1 padding (left out of the mean)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional as F

from brainbrr.config import Training

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def focal_loss(logits: torch.Tensor, target: torch.Tensor, *, alpha: float, gamma: float) -> torch.Tensor:
    """Mean focal loss -α_t (1 - p_t)^γ log p_t over the samples with target >= 0 (Lin et al. 2017, eq. 5).

    `logits` and `target` are (B, L); α weighs seizure, 1 - α background. Finite with finite gradient for every finite
    logit: log p_t is a log-sigmoid and 1 - p_t a sigmoid (below γ = 1 its logarithm), neither is clamped.
    """
    counted = target >= 0
    sign = torch.where(target > 0.5, 1.0, -1.0).to(logits.dtype)
    log_pt = F.logsigmoid(sign * logits)
    weight = torch.where(target > 0.5, alpha, 1.0 - alpha).to(logits.dtype)
    if gamma >= 1:
        modulation = torch.sigmoid(-sign * logits) ** gamma  # (1 - p_t)^γ
    else:  # the slope of that power is infinite where 1 - p_t rounds to zero
        modulation = torch.exp(gamma * F.logsigmoid(-sign * logits))
    return _mean(-weight * modulation * log_pt, counted)


def bce_loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean binary cross-entropy over the samples with target >= 0; `logits` and `target` are (B, L)."""
    counted = target >= 0
    losses = F.binary_cross_entropy_with_logits(logits, target.clamp_min(0).to(logits.dtype), reduction="none")
    return _mean(losses, counted)


def _mean(losses: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
    # A product with the mask would turn a NaN at a padded sample into a NaN loss, rightly: padding is finite data.
    return (losses * counted).sum() / counted.sum().clamp_min(1)


def build_loss(training: Training) -> Loss:
    """The loss that the configuration names."""
    if training.loss == "bce":
        return bce_loss
    return lambda logits, target: focal_loss(logits, target, alpha=training.focal_alpha, gamma=training.focal_gamma)
