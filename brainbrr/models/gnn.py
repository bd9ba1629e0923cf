"""The graph over the electrodes: simple spectral graph convolutions (SSGConv) on the learned adjacency.

Letters: B batch, T steps, C electrodes, F features, K columns of the positional encoding, G graphs = B·T.

    Â = D̃^-½ (A + I) D̃^-½        (an electrode that already has a self-loop keeps it)
    S = α X + (1 - α)/hops · Σ over k = 1 … hops of Âᵏ X,    out = S W + b
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brainbrr import config
from brainbrr.models.adjacency import Adjacency
from brainbrr.models.edges import EdgeStream
from brainbrr.models.encoding import build_encoding
from brainbrr.models.initialisation import keep_scale, linear
from brainbrr.models.laplacian import normalised_adjacency


def with_self_loops(adjacency: Tensor) -> Tensor:
    """`adjacency` (…,C,C) with a self-loop of 1 at every electrode that has none."""
    diagonal = torch.eye(adjacency.shape[-1], dtype=torch.bool, device=adjacency.device)
    return torch.where(diagonal & (adjacency == 0), 1.0, adjacency)


class DenseConvolution(nn.Module):
    """SSGConv as batched matrix products; parameter names as in torch-geometric's."""

    def __init__(self, in_features: int, out_features: int, *, alpha: float, hops: int) -> None:
        super().__init__()
        self.alpha, self.hops = alpha, hops
        self.lin = linear(in_features, out_features)

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        """`x` (B,T,C,F) and `adjacency` (B,T,C,C) → (B,T,C,F')."""
        spread = normalised_adjacency(with_self_loops(adjacency)).to(x.dtype)
        mixed, hop = self.alpha * x, x
        for _ in range(self.hops):
            hop = spread @ hop
            mixed = mixed + (1 - self.alpha) / self.hops * hop
        out: Tensor = self.lin(mixed)
        return out


def _ssg_convolution() -> Any:
    # Imported here: it takes seconds, and this backend alone needs it. What it warns of is its own affair.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from torch_geometric.nn import SSGConv
    return SSGConv


class PygConvolution(nn.Module):
    """torch-geometric's SSGConv over all graphs of the batch as one; state dicts fit DenseConvolution's both ways."""

    def __init__(self, in_features: int, out_features: int, *, alpha: float, hops: int) -> None:
        super().__init__()
        convolution = _ssg_convolution()(in_features, out_features, alpha=alpha, K=hops)
        keep_scale(convolution.lin)
        self.lin = convolution.lin
        # Kept out of the module's children: `lin` is the one parameter holder, under the name the dense form has.
        self._convolution = (convolution,)

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        """`x` (B,T,C,F) and `adjacency` (B,T,C,C) → (B,T,C,F')."""
        electrodes = x.shape[2]
        graphs = adjacency.flatten(0, 1)
        graph, source, target = (graphs > 0).nonzero(as_tuple=True)
        edges = torch.stack((source, target)) + graph * electrodes
        out: Tensor = self._convolution[0](x.flatten(0, 2), edges, graphs[graph, source, target])
        return out.view(*x.shape[:3], -1)


class GraphLayer(nn.Module):
    """Convolution, norm, GELU, dropout, and a residual on the first features of the input."""

    def __init__(self, graph: config.Graph, in_features: int, out_features: int, *, norm: bool) -> None:
        super().__init__()
        convolution = DenseConvolution if graph.backend == "dense" else PygConvolution
        self.convolution = convolution(in_features, out_features, alpha=graph.alpha, hops=graph.hops)
        self.norm = nn.LayerNorm(out_features) if norm else nn.Identity()
        self.dropout = nn.Dropout(graph.dropout)
        self.residual = graph.use_residual

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        """`x` (B,T,C,F) and `adjacency` (B,T,C,C) → (B,T,C,F'), F' at most F."""
        y: Tensor = self.dropout(F.gelu(self.norm(self.convolution(x, adjacency))))
        return x[..., : y.shape[-1]] + y if self.residual else y


class Graph(nn.Module):
    """Electrodes exchange features over a graph that is learned anew at every step.

    The graph comes from the features in front of the node stream; what it carries are the features behind it.
    """

    def __init__(
        self, graph: config.Graph, mamba: config.Mamba, width: int, *, norm: bool, bias: bool, checkpoint: bool
    ) -> None:
        super().__init__()
        self.edges = EdgeStream(graph, mamba, norm=norm, bias=bias, checkpoint=checkpoint)
        self.adjacency = Adjacency(top_k=graph.edge_top_k, threshold=graph.edge_threshold)
        self.pe = build_encoding(graph)
        self.convs = nn.ModuleList(
            GraphLayer(graph, width + (graph.k_eigenvectors if layer == 0 else 0), width, norm=norm)
            for layer in range(graph.n_layers)
        )

    def forward(self, nodes: Tensor, electrodes: Tensor) -> Tensor:
        """`nodes` (B,T,C,F) behind and `electrodes` (B,T,C,F) in front of the node stream → (B,T,C,F)."""
        adjacency = self.adjacency(self.edges(electrodes))
        x = torch.cat((nodes, self.pe(adjacency).to(nodes.dtype)), dim=-1)
        for layer in self.convs:
            x = layer(x, adjacency)
        return x

    def counters(self) -> dict[str, int]:
        """Isolated electrodes that got a self-loop, and what the encoding dropped."""
        counts = {"adjacency.isolated": self.adjacency.isolated.read()}
        return counts | {f"pe.{name}": value for name, value in self.pe.counters().items()}
