"""Graphs over 19 electrodes with a known spectrum, for the tests of the encodings."""

from __future__ import annotations

import torch
from torch import Tensor

ELECTRODES = 19


def _linked(pairs: list[tuple[int, int]]) -> Tensor:
    adjacency = torch.zeros(ELECTRODES, ELECTRODES, dtype=torch.float64)
    for first, second in pairs:
        adjacency[first, second] = adjacency[second, first] = 1
    return adjacency


def complete() -> Tensor:
    return torch.ones(ELECTRODES, ELECTRODES, dtype=torch.float64) - torch.eye(ELECTRODES, dtype=torch.float64)


def random(seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    weights = torch.rand(ELECTRODES, ELECTRODES, generator=generator, dtype=torch.float64).triu(1)
    return weights + weights.T


def named() -> dict[str, Tensor]:
    """Graphs with repeated eigenvalues of every kind, and one without."""
    half = ELECTRODES // 2
    return {
        "complete": complete(),
        "zero": _linked([]),
        "identity": torch.eye(ELECTRODES, dtype=torch.float64),
        "star": _linked([(0, other) for other in range(1, ELECTRODES)]),
        "ring": _linked([(node, (node + 1) % ELECTRODES) for node in range(ELECTRODES)]),
        "two components": _linked(
            [(a, b) for part in (range(half), range(half, ELECTRODES)) for a in part for b in part if a < b]
        ),
        "random": random(),
    }


def from_eigenvalues(values: Tensor, seed: int = 0) -> Tensor:
    """A symmetric matrix (C,C) with these eigenvalues and random eigenvectors."""
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(len(values), len(values), generator=generator, dtype=torch.float64)).Q
    return basis @ torch.diag(values) @ basis.T
