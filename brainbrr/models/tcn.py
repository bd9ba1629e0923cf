"""Temporal convolution network: raw samples to features at one step per `stride_down` samples.

Letters: B batch, C electrodes, L samples, T = L/stride_down steps, W width of the last layer.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brainbrr import config
from brainbrr.config import ELECTRODES
from brainbrr.models.initialisation import keep_scale, linear

HALF_POWER = 0.5**0.5  # two branches of variance 1, added and scaled by this, leave variance 1


def early_stride(stride_down: int) -> int:
    """The part of `stride_down` that the first block takes: 1 to 4, a divisor that leaves 16 or more to the end."""
    return max(part for part in (1, 2, 3, 4) if part == 1 or (stride_down % part == 0 and stride_down // part >= 16))


class Block(nn.Module):
    """Convolution, norm, GELU, dropout of whole channels; beside it a residual. The length is divided by `stride`."""

    def __init__(
        self, inputs: int, outputs: int, tcn: config.TCN, *, stride: int, dilation: int, norm: bool, bias: bool
    ) -> None:
        super().__init__()
        self.stride = stride
        reach = dilation * (tcn.kernel_size - 1) // 2
        self.conv = nn.Conv1d(inputs, outputs, tcn.kernel_size, stride, padding=reach, dilation=dilation, bias=bias)
        keep_scale(self.conv)
        self.norm = nn.GroupNorm(1, outputs) if norm else nn.Identity()
        # Neighbouring samples say nearly the same: dropping single ones drops nothing.
        self.dropout = nn.Dropout1d(tcn.dropout)
        self.skip = nn.Identity() if inputs == outputs else nn.Conv1d(inputs, outputs, 1, bias=False)
        if isinstance(self.skip, nn.Conv1d):
            keep_scale(self.skip)

    def forward(self, x: Tensor) -> Tensor:
        """`x` (B,inputs,L) → (B,outputs,L/stride); L a multiple of the stride."""
        branch: Tensor = self.dropout(F.gelu(self.norm(self.conv(x))))
        beside: Tensor = self.skip(F.avg_pool1d(x, self.stride) if self.stride > 1 else x)
        return (beside + branch) * HALF_POWER


class Reduction(nn.Module):
    """Every channel's weighted mean over the `stride` samples of a step, norm, then a mix of the channels."""

    def __init__(self, width: int, stride: int, *, norm: bool, bias: bool) -> None:
        super().__init__()
        self.stride = stride
        # Between a mean (what the power of a rhythm needs) and a random filter (what a waveform needs).
        self.weight = nn.Parameter(1 / stride + torch.randn(width, stride) / stride)
        self.norm = nn.GroupNorm(1, width) if norm else nn.Identity()
        self.mix = linear(width, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """`x` (B,W,L) → (B,W,T); L a multiple of the stride."""
        steps = x.view(*x.shape[:2], -1, self.stride) @ self.weight[:, :, None]  # (B,W,T,1)
        mixed: Tensor = self.mix(self.norm(steps[..., 0]).transpose(1, 2))
        return mixed.transpose(1, 2)


class TCN(nn.Module):
    """Residual blocks with dilation 2^i, then the reduction to one step per `stride_down` samples.

    Up to stride_down 31 all blocks run at the rate of the samples. Coarser steps do not need that: there the first
    block strides by 2 to 4, which makes the others as much cheaper and lets them see as much farther.
    """

    def __init__(self, tcn: config.TCN, *, norm: bool, bias: bool) -> None:
        super().__init__()
        widths = (len(ELECTRODES), *itertools.islice(itertools.cycle(tcn.channels), tcn.num_layers))
        early = early_stride(tcn.stride_down)
        self.blocks = nn.ModuleList(
            Block(inputs, outputs, tcn, stride=1 if layer else early, dilation=2**layer, norm=norm, bias=bias)
            for layer, (inputs, outputs) in enumerate(itertools.pairwise(widths))
        )
        self.width = widths[-1]
        self.reduce = Reduction(self.width, tcn.stride_down // early, norm=norm, bias=bias)

    def forward(self, signal: Tensor) -> Tensor:
        """`signal` (B,C,L) → (B,W,T)."""
        for block in self.blocks:
            signal = block(signal)
        steps: Tensor = self.reduce(signal)
        return steps
