"""Eigenvectors of a graph's normalised Laplacian, with a gradient that survives repeated eigenvalues.

Letters: C electrodes, K eigenvectors; … any leading dimensions.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from brainbrr.models.tally import Tally, count

Repair = Literal["none", "clamp_eigenvalues", "nan_to_num", "jitter"]

RELATIVE_GAP = 1e-4  # |λi - λj| / max|λ| above which a pair's term 1/(λi - λj) is exact; below, it is dropped
TIE_BREAK = 0.01  # per electrode, in the sign rule
JITTER = 1e-4  # of the historical L + εI
EIGENVALUES = (1e-6, 2.0)  # of the historical clamp


def normalised_adjacency(adjacency: Tensor) -> Tensor:
    """D^-½ A D^-½ of symmetric `adjacency` (…,C,C) with entries at least 0; rows without edges stay zero."""
    degree = adjacency.sum(-1)
    # The mask stands in front of the root: behind it, the gradient at degree 0 would be infinity times zero.
    linked = degree > 0
    root = torch.where(linked, torch.where(linked, degree, 1.0).rsqrt(), 0.0)
    scaled: Tensor = root[..., :, None] * adjacency * root[..., None, :]
    return scaled


def laplacian(adjacency: Tensor) -> Tensor:
    """I - D^-½ A D^-½, (…,C,C); eigenvalues in [0, 2]."""
    identity = torch.eye(adjacency.shape[-1], dtype=adjacency.dtype, device=adjacency.device)
    return identity - normalised_adjacency(adjacency)


def repaired(matrix: Tensor, repair: Repair) -> Tensor:
    """`matrix` (…,C,C) after a historical repair, which alters what is decomposed and not how.

    `jitter` adds εI: every eigenvalue moves, no gap does. `clamp_eigenvalues` puts the matrix together again from its
    eigenvalues within bounds, which is a decomposition more, and a raw one.
    """
    if repair == "jitter":
        return matrix + JITTER * torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    if repair == "clamp_eigenvalues":
        values, vectors = torch.linalg.eigh(matrix)
        again: Tensor = (vectors * values.clamp(*EIGENVALUES)[..., None, :]) @ vectors.transpose(-1, -2)
        return again
    return matrix


def orient(vectors: Tensor) -> Tensor:
    """Give every column of `vectors` (…,C,K) the sign that makes its largest entry positive.

    Entries are compared after weighting electrode i by 1 - i/100, so that the two equal and opposite entries which a
    symmetric graph produces are not decided by rounding.
    """
    size = vectors.shape[-2]
    weight = 1 - TIE_BREAK * torch.arange(size, dtype=vectors.dtype, device=vectors.device)
    with torch.no_grad():
        largest = (vectors.abs() * weight[:, None]).argmax(-2, keepdim=True)
        sign = torch.where(vectors.gather(-2, largest) < 0, -1.0, 1.0).to(vectors.dtype)
    return vectors * sign


def raw_eigenvectors(matrix: Tensor, k: int) -> Tensor:
    """The first `k` eigenvectors, ascending, (…,C,C) → (…,C,k), with the gradient of PyTorch's own `eigh`.

    That gradient holds 1/(λi - λj) for every pair: repeated eigenvalues are finite forward and NaN backward.
    """
    vectors: Tensor = torch.linalg.eigh(matrix).eigenvectors
    return vectors[..., :k]


def safe_eigenvectors(matrix: Tensor, k: int, dropped: Tally | None = None) -> Tensor:
    """The same eigenvectors with the safe gradient of `SafeEigenvectors`; `dropped` counts the pairs it drops."""
    vectors: Tensor = SafeEigenvectors.apply(matrix, k, dropped)  # type: ignore[no-untyped-call]
    return vectors


class SafeEigenvectors(torch.autograd.Function):
    """Eigenvectors of a symmetric matrix; differentiable once.

    The gradient has one term 1/(λj - λi) for every pair of eigenvectors of which at least one is kept. It is exact
    where the gap is above RELATIVE_GAP of the largest |λ|. Below, the two vectors are any basis of their plane, the
    true derivative does not exist or is meaninglessly large, and the term is dropped and counted.
    """

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, k: int, dropped: Tally | None) -> Tensor:
        """`matrix` (…,C,C) → (…,C,k)."""
        values, vectors = torch.linalg.eigh(matrix)
        ctx.save_for_backward(values, vectors)
        ctx.k, ctx.dropped = k, dropped
        kept: Tensor = vectors[..., :k].contiguous()
        return kept

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        """The gradient with respect to the matrix, symmetric."""
        values, vectors = ctx.saved_tensors
        kept = vectors[..., : ctx.k]
        gap = values[..., None, : ctx.k] - values[..., :, None]  # (…,C,k)
        apart = gap.abs() > RELATIVE_GAP * values.abs().amax(-1)[..., None, None]
        if ctx.dropped is not None:
            once = torch.ones(gap.shape[-2:], dtype=torch.bool, device=gap.device).tril(-1)
            ctx.dropped.add(count(~apart & once))
        factor = torch.where(apart, torch.where(apart, gap, 1.0).reciprocal(), 0.0)
        inner = factor * (vectors.transpose(-1, -2) @ grads[0])
        grad = vectors @ inner @ kept.transpose(-1, -2)
        return (grad + grad.transpose(-1, -2)) / 2, None, None
