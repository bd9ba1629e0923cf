"""How close the eigenvalues or singular values of a matrix are, and what that does to a gradient.

The gradient of eigenvectors contains 1/(λi−λj) for every pair, so the smallest gap between neighbours, relative to the
largest magnitude, is the leading indicator: forward values stay finite and innocent however small it gets.

Letters: … batch dimensions, n order of the matrix.
"""

from __future__ import annotations

import torch
from torch import Tensor

_eigvalsh = torch.linalg.eigvalsh  # bound here, so that a probe that replaces it does not see our own calls
_svdvals = torch.linalg.svdvals

THRESHOLD = 1e-6
"""Relative gap at or below which a matrix counts as degenerate."""


def relative_gaps(values: Tensor) -> Tensor:
    """Gaps of neighbours, (…, n−1), relative to the largest magnitude, for real sorted `values` (…, n).

    A matrix of zeros has gaps of 0. NaN stays NaN.
    """
    values = values.detach()
    tiny = torch.finfo(values.dtype).tiny
    scale = values.abs().amax(dim=-1, keepdim=True).clamp_min(tiny) if values.shape[-1] else values
    return values.diff(dim=-1).abs() / scale


def eigengap(values: Tensor) -> Tensor:
    """Smallest relative gap of each matrix, (…), from sorted `values` (…, n); infinite for n < 2."""
    gaps = relative_gaps(values)
    if gaps.shape[-1] == 0:
        return torch.full(values.shape[:-1], torch.inf, dtype=values.dtype, device=values.device)
    return gaps.amin(dim=-1)


def amplification(values: Tensor) -> Tensor:
    """The largest factor 1/gap, (…), that the gradient of eigenvectors contains; infinite for repeated values."""
    gaps = values.detach().diff(dim=-1).abs()
    if gaps.shape[-1] == 0:
        return torch.zeros(values.shape[:-1], dtype=values.dtype, device=values.device)
    return 1 / gaps.amin(dim=-1)


def is_degenerate(values: Tensor, threshold: float = THRESHOLD) -> Tensor:
    """Which matrices, bool (…), have a relative gap at or below `threshold`, or one that is not a number."""
    return ~(eigengap(values) > threshold)


def multiplicities(values: Tensor, threshold: float = THRESHOLD) -> tuple[int, ...]:
    """Sizes of the groups of (nearly) equal values in sorted `values` (n,): (1, 1, 3) has one threefold value, last."""
    if values.dim() != 1:
        raise ValueError(f"values have shape {tuple(values.shape)}; expected one spectrum (n,)")
    if values.numel() == 0:
        return ()
    sizes = [1]
    for apart in (relative_gaps(values) > threshold).tolist():
        if apart:
            sizes.append(1)
        else:
            sizes[-1] += 1
    return tuple(sizes)


def exact_eigengap(matrices: Tensor, *, hermitian: bool = True) -> Tensor:
    """`eigengap` (…) of finite `matrices` in float64 on the CPU: of eigenvalues, or else of singular values.

    Hermitian matrices (…, n, n) are read in their lower triangle.
    """
    wide = matrices.detach().to("cpu", torch.complex128 if matrices.is_complex() else torch.float64)
    return eigengap(_eigvalsh(wide) if hermitian else _svdvals(wide))


def sample_of(flat: int, batch_shape: tuple[int, ...], samples: int | None) -> int | None:
    """Which of `samples` samples the matrix with flat index `flat` in a batch of `batch_shape` belongs to.

    The first batch dimension that is as long as the batch is taken for it; else, where the number of matrices is a
    multiple of it, samples are taken to lead (B·T matrices in order). None where neither holds.
    """
    if not samples:
        return None
    total = 1
    for size in batch_shape:
        total *= size
    inner = total
    for size in batch_shape:
        inner //= max(1, size)
        if size == samples:
            return flat // inner % size
    return flat // (total // samples) if total and total % samples == 0 else None
