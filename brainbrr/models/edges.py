"""The edge stream: how strongly every two electrodes hang together at every step.

Letters: B batch, C electrodes, E pairs, T steps, F features of an electrode, D width of the edge stream.
"""

from __future__ import annotations

import math
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from brainbrr import config
from brainbrr.models.adjacency import pair_index
from brainbrr.models.bimamba import BiMamba2Stack, LayerOptions
from brainbrr.models.initialisation import linear

EPS = 1e-5  # added to the mean square of a feature vector: a zero vector has similarity 0 and a bounded gradient
CONTRAST = 4.0  # initial slope of a weight's logit over the similarity
STREAM_GAIN = 0.5  # of what the edge stream adds to the logit: more could push every weight into the softplus' flat end


def similarity(features: Tensor, kind: Literal["cosine", "correlation"] = "cosine") -> Tensor:
    """Cosine, or Pearson's correlation, of the features of every two electrodes: (B,T,C,F) → (B,E,T) within (-1, 1).

    A zero (for correlation: constant) feature vector has similarity 0 to all others; the gradient is finite there.
    """
    if kind == "correlation":
        features = features - features.mean(-1, keepdim=True)
    scale = (features.square().mean(-1, keepdim=True) + EPS).rsqrt()
    unit = features * scale * math.sqrt(1 / features.shape[-1])
    first, second = pair_index(features.shape[2]).to(features.device)
    products = (unit @ unit.transpose(-1, -2)).flatten(2)  # (B,T,C·C)
    return products.index_select(-1, first * features.shape[2] + second).transpose(1, 2)


class EdgeStream(nn.Module):
    """Electrode features (B,T,C,F) → weights of the pairs (B,E,T), above 0.

    The weight is the softplus of an affine function of the similarity plus, where there are layers, of what a BiMamba-2
    stack shared by all pairs reads from the similarity's course, lifted to D channels.
    """

    def __init__(self, graph: config.Graph, mamba: config.Mamba, *, norm: bool, bias: bool, checkpoint: bool) -> None:
        super().__init__()
        self.kind = graph.edge_features
        self.direct = nn.Linear(1, 1)
        nn.init.constant_(self.direct.weight, CONTRAST)
        nn.init.zeros_(self.direct.bias)
        self.stream: BiMamba2Stack | None = None
        if graph.edge_mamba_layers == 0:
            return
        options = LayerOptions(
            d_model=graph.edge_mamba_d_model,
            d_state=graph.edge_mamba_d_state,
            d_conv=mamba.conv_kernel,
            headdim=graph.edge_mamba_headdim,
            chunk_size=mamba.chunk_size,
            backend=mamba.backend,
            dropout=mamba.dropout,
            norm=norm,
            bias=bias,
        )
        self.lift = linear(1, options.d_model, bias=bias)
        self.stream = BiMamba2Stack(options, graph.edge_mamba_layers, checkpoint_activations=checkpoint)
        self.weight = linear(options.d_model, 1, bias=False, gain=STREAM_GAIN)

    def forward(self, features: Tensor) -> Tensor:
        """`features` (B,T,C,F) → (B,E,T)."""
        pairs = similarity(features, self.kind)
        sequences = pairs.flatten(0, 1)[..., None]  # (B·E,T,1)
        weights: Tensor = self.direct(sequences)
        if self.stream is not None:
            weights = weights + self.weight(self.stream(self.lift(sequences)))
        return F.softplus(weights[..., 0]).view_as(pairs)
