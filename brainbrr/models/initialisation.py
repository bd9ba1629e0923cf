"""Weights that keep the scale: an input of variance 1 leaves a projection with variance 1."""

from __future__ import annotations

from torch import nn


def keep_scale(layer: nn.Linear | nn.Conv1d, *, gain: float = 1.0) -> None:
    """Draw the weight from N(0, gain² / fan-in), in place; biases keep PyTorch's small uniform draw."""
    fan_in = layer.weight[0].numel()
    nn.init.normal_(layer.weight, std=gain * fan_in**-0.5)


def linear(in_features: int, out_features: int, *, bias: bool = True, gain: float = 1.0) -> nn.Linear:
    """A Linear layer that multiplies the scale by `gain`."""
    layer = nn.Linear(in_features, out_features, bias=bias)
    keep_scale(layer, gain=gain)
    return layer
