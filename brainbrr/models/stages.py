"""The stages between the large parts: projections to and from the electrodes, streams over the steps, head.

Letters: B batch, C = 19 electrodes, L samples, T steps, W width of a step's vector, F features of an electrode.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brainbrr.config import ELECTRODES
from brainbrr.models.bimamba import BiMamba2Stack
from brainbrr.models.initialisation import linear

LOGIT_GAIN = 2.0  # of the last projection: makes up for what GELU and constant features take from the variance


class ToElectrodes(nn.Module):
    """A projection of every step to F features for each electrode: (B,W,T) → (B,T,C,F)."""

    def __init__(self, width: int, features: int, *, norm: bool, bias: bool) -> None:
        super().__init__()
        self.features = features
        self.project = linear(width, len(ELECTRODES) * features, bias=bias)
        self.norm = nn.LayerNorm(features) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """`x` (B,W,T) → (B,T,C,F)."""
        flat: Tensor = self.project(x.transpose(1, 2))
        features: Tensor = self.norm(flat.view(*flat.shape[:2], -1, self.features))
        return features


class FromElectrodes(nn.Module):
    """All electrodes' features of a step back to one vector: (B,T,C,F) → (B,W,T)."""

    def __init__(self, features: int, width: int, *, norm: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(features) if norm else nn.Identity()
        self.project = linear(len(ELECTRODES) * features, width)

    def forward(self, x: Tensor) -> Tensor:
        """`x` (B,T,C,F) → (B,W,T)."""
        steps: Tensor = self.project(self.norm(x).flatten(2))
        return steps.transpose(1, 2)


class ElectrodeStream(nn.Module):
    """A BiMamba-2 stack over the steps of every electrode, its weights shared by all: (B,T,C,F) → (B,T,C,F)."""

    def __init__(self, stack: BiMamba2Stack) -> None:
        super().__init__()
        self.stack = stack

    def forward(self, x: Tensor) -> Tensor:
        """`x` (B,T,C,F) → (B,T,C,F)."""
        sequences: Tensor = self.stack(x.transpose(1, 2).flatten(0, 1))
        return sequences.view(x.shape[0], x.shape[2], x.shape[1], -1).transpose(1, 2)


class TemporalStream(nn.Module):
    """One BiMamba-2 stack over all features of the steps: (B,W,T) → (B,D,T)."""

    def __init__(self, width: int, d_model: int, stack: BiMamba2Stack, *, bias: bool) -> None:
        super().__init__()
        self.d_model = d_model
        self.lift = linear(width, d_model, bias=bias) if width != d_model else nn.Identity()
        self.stack = stack

    def forward(self, x: Tensor) -> Tensor:
        """`x` (B,W,T) → (B,D,T)."""
        steps: Tensor = self.stack(self.lift(x.transpose(1, 2)))
        return steps.transpose(1, 2)


class Head(nn.Module):
    """One logit per step, held over the step's samples: (B,W,T) → (B,L)."""

    def __init__(self, width: int, stride: int, *, norm: bool) -> None:
        super().__init__()
        self.stride = stride
        hidden = max(16, width // 8)
        self.norm = nn.LayerNorm(width) if norm else nn.Identity()
        self.hidden = linear(width, hidden)
        self.logit = linear(hidden, 1, gain=LOGIT_GAIN)
        with torch.no_grad():
            self.logit.weight -= self.logit.weight.mean()  # or the mean of the GELUs would offset all logits

    def forward(self, x: Tensor) -> Tensor:
        """`x` (B,W,T) → (B,L)."""
        logits: Tensor = self.logit(F.gelu(self.hidden(self.norm(x.transpose(1, 2)))))
        return logits.expand(-1, -1, self.stride).flatten(1)
