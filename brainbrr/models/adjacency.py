"""From pair weights to a sparse symmetric graph over the electrodes.

Letters: B batch, T steps, C electrodes, E = C(C-1)/2 pairs in the order (0,1), (0,2), … (C-2,C-1).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from brainbrr.config import ELECTRODES
from brainbrr.models.tally import Tally, count


def pair_index(electrodes: int) -> Tensor:
    """The first and second electrode of every pair, (2,E) int64, first below second."""
    return torch.triu_indices(electrodes, electrodes, offset=1)


def pair_lookup(electrodes: int) -> Tensor:
    """The pair of every two electrodes, (C,C) int64 and symmetric; the diagonal holds 0 and means nothing."""
    first, second = pair_index(electrodes)
    lookup = torch.zeros(electrodes, electrodes, dtype=torch.int64)
    lookup[first, second] = lookup[second, first] = torch.arange(len(first))
    return lookup


def sparsify(dense: Tensor, *, top_k: int, threshold: float) -> Tensor:
    """Of symmetric `dense` (…,C,C) with zero diagonal keep the `top_k` largest of each row above `threshold`.

    The result is made symmetric by (A + Aᵀ)/2, so an electrode may end up with more than `top_k` neighbours, and a
    weight kept by one side only is halved. A NaN is no edge: it compares false.
    """
    largest = dense.topk(top_k, dim=-1).indices
    kept = torch.zeros_like(dense, dtype=torch.bool).scatter(-1, largest, True) & (dense > threshold)
    kept = torch.where(kept, dense, 0.0)
    return (kept + kept.transpose(-1, -2)) / 2


def isolated(adjacency: Tensor) -> Tensor:
    """Which rows of `adjacency` (…,C,C) have no edge at all, (…,C) bool."""
    return ~(adjacency > 0).any(-1)


class Adjacency(nn.Module):
    """Pair weights (B,E,T) → symmetric adjacency (B,T,C,C), entries at least 0.

    An electrode without neighbours gets a self-loop of 1, the historical fallback, which is counted.
    """

    lookup: Tensor

    def __init__(self, *, top_k: int, threshold: float, electrodes: int = len(ELECTRODES)) -> None:
        super().__init__()
        self.top_k, self.threshold, self.electrodes = top_k, threshold, electrodes
        self.register_buffer("lookup", pair_lookup(electrodes).flatten(), persistent=False)
        self.isolated = Tally()

    def forward(self, weights: Tensor) -> Tensor:
        """`weights` (B,E,T) → (B,T,C,C)."""
        dense = weights.transpose(1, 2).index_select(-1, self.lookup)
        dense = dense.view(*dense.shape[:2], self.electrodes, self.electrodes)
        diagonal = torch.eye(self.electrodes, dtype=dense.dtype, device=dense.device)
        dense = torch.where(diagonal > 0, 0.0, dense)
        adjacency = sparsify(dense, top_k=self.top_k, threshold=self.threshold)
        alone = isolated(adjacency)
        self.isolated.add(count(alone))
        return adjacency + alone[..., None] * diagonal
