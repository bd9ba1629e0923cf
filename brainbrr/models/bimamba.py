"""Mamba-2 read in both directions, stacked.

Letters: S sequences, T steps, D = d_model.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from brainbrr.models.backend import Backend
from brainbrr.models.convolution import causal_convolution
from brainbrr.models.initialisation import linear
from brainbrr.models.mamba import Mamba2

# Values of the largest intermediate tensor of one checkpointed piece: 16 MiB in float32. From 32 MiB on, glibc takes
# fresh pages for every tensor, which nearly doubles the time.
SLAB_VALUES = 2**22


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LayerOptions:
    """What every layer of a stack has in common; names as in the configuration, `d_conv` is its conv_kernel."""

    d_model: int
    d_state: int
    d_conv: int
    headdim: int
    chunk_size: int
    backend: Backend
    dropout: float
    norm: bool
    bias: bool


class ConvolutionStandIn(nn.Module):
    """A depthwise convolution where Mamba-2 belongs: another function, kept only for investigations that ask for it."""

    def __init__(self, d_model: int, d_conv: int) -> None:
        super().__init__()
        self.conv1d = nn.Conv1d(d_model, d_model, d_conv, groups=d_model, padding=d_conv - 1)
        self.slab_values = d_model

    def forward(self, u: Tensor) -> Tensor:
        """`u` (S,T,D) → (S,T,D), causal over d_conv steps."""
        with torch.autocast(u.device.type, enabled=False):
            u = u.to(self.conv1d.weight.dtype)
            return causal_convolution(u, self.conv1d, channels="last")


class BiMamba2(nn.Module):
    """One Mamba-2 forward and another backward in time, fused by a projection, around a residual.

    With `norm` the layer normalises its input (pre-norm); without, the residual is plain.
    """

    def __init__(self, options: LayerOptions) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(options.d_model) if options.norm else nn.Identity()
        self.ahead = _mixer(options)
        self.back = _mixer(options)
        self.fuse = linear(2 * options.d_model, options.d_model, bias=options.bias)
        self.dropout = nn.Dropout(options.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """`x` (S,T,D) → (S,T,D); every step sees all steps."""
        u = self.norm(x)
        back = self.back(u.flip(1)).flip(1)
        y: Tensor = self.dropout(self.fuse(torch.cat((self.ahead(u), back), dim=-1)))
        return x + y

    def recomputed(self, x: Tensor) -> Tensor:
        """As `forward`, recomputed in the backward pass, in slabs of sequences of about SLAB_VALUES values a tensor.

        Less memory; the same numbers up to the order in which the weights' gradients are summed.
        """
        sequences = max(1, SLAB_VALUES // (x.shape[1] * self.ahead.slab_values))
        slabs: list[Tensor] = [checkpoint(self, slab, use_reentrant=False) for slab in torch.split(x, sequences)]
        return slabs[0] if len(slabs) == 1 else torch.cat(slabs)


class BiMamba2Stack(nn.Module):
    """Layers of BiMamba2, with a last norm where the layers have norms.

    `checkpoint_activations` keeps the input of each layer only and recomputes the rest in the backward pass.
    """

    def __init__(self, options: LayerOptions, n_layers: int, *, checkpoint_activations: bool) -> None:
        super().__init__()
        self.checkpoint_activations = checkpoint_activations
        self.layers = nn.ModuleList(BiMamba2(options) for _ in range(n_layers))
        self.norm = nn.LayerNorm(options.d_model) if options.norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """`x` (S,T,D) → (S,T,D)."""
        recompute = self.checkpoint_activations and torch.is_grad_enabled()
        for layer in self.layers:
            assert isinstance(layer, BiMamba2)
            x = layer.recomputed(x) if recompute else layer(x)
        y: Tensor = self.norm(x)
        return y


def _mixer(options: LayerOptions) -> Mamba2 | ConvolutionStandIn:
    if options.backend == "conv1d":
        return ConvolutionStandIn(options.d_model, options.d_conv)
    return Mamba2(
        options.d_model,
        options.d_state,
        options.d_conv,
        headdim=options.headdim,
        chunk_size=options.chunk_size,
        backend=options.backend,
    )
