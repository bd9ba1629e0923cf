"""Positional encodings of the electrodes in their graph: where in the graph is this electrode?

Letters: B batch, T steps, C electrodes, K columns. Every encoding is (B,T,C,K) with columns of mean square about 1,
computed at every n-th step (`semi_dynamic_interval`) and held until the next.
"""

from __future__ import annotations

import abc
import math
from typing import Literal

import torch
from torch import Tensor, nn

from brainbrr import config
from brainbrr.config import ELECTRODES
from brainbrr.models.laplacian import (
    Repair,
    laplacian,
    normalised_adjacency,
    orient,
    raw_eigenvectors,
    repaired,
    safe_eigenvectors,
)
from brainbrr.models.tally import Tally, count

SMOOTHING = 4.0  # of the resolvent: a component of Laplacian eigenvalue λ is scaled by 1/(1 + 4λ)

NEIGHBOURS = """
    Fp1-Fp2 F7-F3 F3-Fz Fz-F4 F4-F8 T3-C3 C3-Cz Cz-C4 C4-T4 T5-P3 P3-Pz Pz-P4 P4-T6 O1-O2
    Fp1-F7 Fp1-F3 Fp1-Fz Fp2-Fz Fp2-F4 Fp2-F8 F7-T3 F3-C3 Fz-Cz F4-C4 F8-T4
    T3-T5 C3-P3 Cz-Pz C4-P4 T4-T6 T5-O1 P3-O1 Pz-O1 Pz-O2 P4-O2 T6-O2
"""


def montage_adjacency() -> Tensor:
    """The fixed graph of neighbours on the 10-20 scalp, (C,C) float64 of 0 and 1."""
    adjacency = torch.zeros(len(ELECTRODES), len(ELECTRODES), dtype=torch.float64)
    for pair in NEIGHBOURS.split():
        first, second = (ELECTRODES.index(name) for name in pair.split("-"))
        adjacency[first, second] = adjacency[second, first] = 1
    return adjacency


def montage_eigenvectors(k: int) -> Tensor:
    """The first `k` eigenvectors of the fixed graph, (C,k) float32, orthonormal: its smallest gap is 0.0067 of λmax."""
    return orient(raw_eigenvectors(laplacian(montage_adjacency()), k)).float()


class Encoding(nn.Module, abc.ABC):
    """What the encodings share: the interval, and float32 at least, whatever autocast says."""

    def __init__(self, k: int, interval: int) -> None:
        super().__init__()
        self.k, self.interval = k, interval

    def forward(self, adjacency: Tensor) -> Tensor:
        """`adjacency` (B,T,C,C), symmetric, at least 0 → (B,T,C,K)."""
        steps = adjacency.shape[1]
        with torch.autocast(adjacency.device.type, enabled=False):
            kept = adjacency[:, :: self.interval]
            kept = kept.float() if kept.dtype in (torch.float16, torch.bfloat16) else kept
            columns = self.encode(kept) * math.sqrt(adjacency.shape[-1])
        return columns.repeat_interleave(self.interval, dim=1)[:, :steps] if self.interval > 1 else columns

    @abc.abstractmethod
    def encode(self, adjacency: Tensor) -> Tensor:
        """`adjacency` (B,T,C,C) → (B,T,C,K), columns of norm 1 at most."""

    def counters(self) -> dict[str, int]:
        """What was dropped so far, by name."""
        return {}


class LaplacianEncoding(Encoding):
    """The eigenvectors of the normalised Laplacian that belong to its K smallest eigenvalues, the trivial one included.

    `gradient`: `safe` drops and counts what repeated eigenvalues make meaningless, `detached` has none, `raw` is
    PyTorch's own and NaN where eigenvalues repeat. `repair` is a historical one, see `repaired`; `nan_to_num` makes
    the vectors finite, which they are: it hides what comes in broken, and the gradient passes it by.
    """

    def __init__(
        self, k: int, interval: int, gradient: Literal["safe", "detached", "raw"], repair: Repair = "none"
    ) -> None:
        super().__init__(k, interval)
        self.gradient, self.repair = gradient, repair
        self.dropped, self.replaced = Tally(), Tally()

    def encode(self, adjacency: Tensor) -> Tensor:
        """`adjacency` (B,T,C,C) → (B,T,C,K), orthonormal columns."""
        if self.gradient == "detached":
            adjacency = adjacency.detach()
        matrix = repaired(laplacian(adjacency), self.repair)
        if self.gradient == "safe":
            vectors = safe_eigenvectors(matrix, self.k, self.dropped)
        else:
            vectors = raw_eigenvectors(matrix, self.k)
        if self.repair == "nan_to_num":
            self.replaced.add(count(~vectors.isfinite()))
            vectors = torch.nan_to_num(vectors)
        return orient(vectors)

    def counters(self) -> dict[str, int]:
        """Pairs of eigenvectors whose gradient was dropped; with the repair `nan_to_num`, the entries it replaced."""
        dropped = {"dropped_pairs": self.dropped.read()}
        return dropped | {"replaced": self.replaced.read()} if self.repair == "nan_to_num" else dropped


class ResolventEncoding(Encoding):
    """(I + 4 L)⁻¹ applied to K fixed orthonormal columns, L the Laplacian of the graph with self-loops of 1.

    No eigenvectors: no sign, no basis, no gaps; smooth for every graph, the empty one included. The columns are those
    of the fixed scalp graph.
    """

    probe: Tensor

    def __init__(self, k: int, interval: int) -> None:
        super().__init__(k, interval)
        self.register_buffer("probe", montage_eigenvectors(k), persistent=False)

    def encode(self, adjacency: Tensor) -> Tensor:
        """`adjacency` (B,T,C,C) → (B,T,C,K)."""
        identity = torch.eye(adjacency.shape[-1], dtype=adjacency.dtype, device=adjacency.device)
        looped = torch.where(identity > 0, 1.0, adjacency)
        matrix = (1 + SMOOTHING) * identity - SMOOTHING * normalised_adjacency(looped)
        probe = self.probe.to(adjacency.dtype).expand(*adjacency.shape[:2], -1, -1)
        columns: Tensor = torch.linalg.solve(matrix, probe)
        return columns


class StaticEncoding(Encoding):
    """The eigenvectors of the fixed scalp graph at every step, in the convention of LaplacianEncoding."""

    vectors: Tensor

    def __init__(self, k: int) -> None:
        super().__init__(k, 1)
        self.register_buffer("vectors", montage_eigenvectors(k), persistent=False)

    def encode(self, adjacency: Tensor) -> Tensor:
        """`adjacency` (B,T,C,C), of which only the shape counts → (B,T,C,K)."""
        return self.vectors.to(adjacency.dtype).expand(*adjacency.shape[:2], -1, -1)


def build_encoding(graph: config.Graph) -> Encoding:
    """The encoding that `graph` describes."""
    if not graph.use_dynamic_pe:
        return StaticEncoding(graph.k_eigenvectors)
    if graph.pe == "resolvent":
        return ResolventEncoding(graph.k_eigenvectors, graph.semi_dynamic_interval)
    return LaplacianEncoding(graph.k_eigenvectors, graph.semi_dynamic_interval, graph.pe_gradient, graph.pe_repair)
