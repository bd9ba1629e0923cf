"""How close the eigenvalues or singular values of a matrix are, how close it is to a singular one, and how well it was
taken apart.

The gradient of eigenvectors contains 1/(λi−λj) for every pair, so the smallest gap between neighbours, relative to the
largest magnitude, is the leading indicator: forward values stay finite and innocent however small it gets. What divides
by the matrix itself loses a digit for every factor of ten in its condition number.

Letters: … batch dimensions, m × n or n × n the matrix, k right-hand sides.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

_eigvalsh = torch.linalg.eigvalsh  # bound here, so that a probe that replaces it does not see our own calls
_eigvals = torch.linalg.eigvals
_svdvals = torch.linalg.svdvals

Values = Literal["hermitian", "eigen", "singular"]
"""Eigenvalues of a Hermitian matrix, of any square one, or singular values."""

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


def scattered_eigengap(values: Tensor) -> Tensor:
    """`eigengap` (…) of `values` (…, n) in no order, complex ones too: over all pairs, so n² numbers a matrix."""
    values = values.detach()
    n = values.shape[-1]
    apart = (values[..., :, None] - values[..., None, :]).abs()
    if n < 2:
        return torch.full(values.shape[:-1], torch.inf, dtype=apart.dtype, device=values.device)
    itself = torch.eye(n, dtype=torch.bool, device=values.device)
    scale = values.abs().amax(dim=-1).clamp_min(torch.finfo(apart.dtype).tiny)
    return apart.masked_fill(itself, torch.inf).amin(dim=(-2, -1)) / scale


def amplification(values: Tensor) -> Tensor:
    """The largest factor 1/gap, (…), that the gradient of eigenvectors contains; infinite for repeated values."""
    gaps = values.detach().diff(dim=-1).abs()
    if gaps.shape[-1] == 0:
        return torch.zeros(values.shape[:-1], dtype=values.dtype, device=values.device)
    return 1 / gaps.amin(dim=-1)


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


def wide(x: Tensor) -> Tensor:
    """`x` in float64 or complex128 on the CPU, detached."""
    return x.detach().to("cpu", torch.complex128 if x.is_complex() else torch.float64)


def exact_eigengap(matrices: Tensor, values: Values = "hermitian") -> Tensor:
    """`eigengap` (…) of finite `matrices` in float64 on the CPU, of those values that `values` says.

    Hermitian matrices (…, n, n) are read in their lower triangle.
    """
    if values == "hermitian":
        return eigengap(_eigvalsh(wide(matrices)))
    return scattered_eigengap(_eigvals(wide(matrices))) if values == "eigen" else eigengap(_svdvals(wide(matrices)))


# How close to singular ----------------------------------------------------------------------------------------------


def condition_number(magnitudes: Tensor) -> Tensor:
    """Largest over smallest of `magnitudes` (…, n) ≥ 0, singular values say; infinite for a singular matrix, 1 for n=0.

    The smallest of them is the distance to the nearest singular matrix in the 2-norm.
    """
    if magnitudes.shape[-1] == 0:
        return torch.ones(magnitudes.shape[:-1], dtype=magnitudes.dtype, device=magnitudes.device)
    low, high = magnitudes.amin(dim=-1), magnitudes.amax(dim=-1)
    return torch.where(low == 0, torch.inf, high / low)


def condition_limit(dtype: torch.dtype, n: int) -> float:
    """1/(n·eps): a matrix of order `n` with a condition number from here on is singular to the precision of `dtype`."""
    return 1 / (max(1, n) * torch.finfo(dtype).eps)


def error_limit(dtype: torch.dtype, n: int) -> float:
    """100·n·eps: what a sound decomposition of order `n` stays far below in residual and loss of orthogonality."""
    return 100 * max(1, n) * torch.finfo(dtype).eps


def equilibrated(a: Tensor, *, rows: bool = True) -> Tensor:
    """`a` (…, m, n) with `rows` and then columns divided by their largest magnitudes: units of measurement taken out.

    A large condition number that is gone by then comes from scales alone, and costs no digit of a solution.
    """
    if rows:
        a = a / _or_one(a.abs().amax(dim=-1, keepdim=True))
    return a / _or_one(a.abs().amax(dim=-2, keepdim=True))


def inverse_condition(a: Tensor, inverse: Tensor) -> Tensor:
    """Condition number (…) of `a` (…, n, n) in the maximum norm, units of measurement taken out of rows and columns.

    Nothing is decomposed: the cost is that of a few passes over `a`.
    """
    columns, rows = _weights(a)
    return (inverse.detach().abs() @ rows * columns).amax(dim=(-2, -1))


def solution_condition(a: Tensor, x: Tensor, b: Tensor, *, left: bool = True) -> Tensor:
    """What a solution of a·x = b (x·a = b unless `left`) tells of `inverse_condition`: (…), not above it.

    It is small for right-hand sides that do not excite what is nearly singular; a large one does not lie.
    """
    x, b = x.detach().abs(), b.detach().abs()
    if x.dim() < a.dim():
        x, b = x[..., None], b[..., None]
    if not left:
        a, x, b = a.mT, x.mT, b.mT
    columns, rows = _weights(a)
    got, asked = (x * columns).amax(dim=-2), (b / _or_one(rows)).amax(dim=-2)
    return (got / _or_one(asked)).amax(dim=-1)


def _weights(a: Tensor) -> tuple[Tensor, Tensor]:
    """Of equilibrated `a` (…, n, n): what the columns were divided by, and the sums of its rows' magnitudes times what
    the rows were divided by; (…, n, 1) each."""
    a = a.detach().abs()
    columns = _or_one((a / _or_one(a.amax(dim=-1, keepdim=True))).amax(dim=-2, keepdim=True))
    return columns.mT, a @ (1 / columns).mT


def _or_one(x: Tensor) -> Tensor:
    return torch.where(x == 0, 1, x)


# How well taken apart -----------------------------------------------------------------------------------------------


def orthogonality(q: Tensor) -> Tensor:
    """‖QᴴQ − I‖ in the Frobenius norm, (…), of `q` (…, m, n) with m ≥ n: 0 where the columns are orthonormal."""
    identity = torch.eye(q.shape[-1], dtype=q.dtype, device=q.device)
    return frobenius(q.mH @ q - identity)


def residual(found: Tensor, wanted: Tensor, scale: Tensor | None = None) -> Tensor:
    """‖found − wanted‖ of (…, m, n) over `scale` (…), ‖wanted‖ by default: (…); 0 where nothing is missing."""
    error = frobenius(found - wanted)
    return torch.where(error == 0, 0.0, error / (frobenius(wanted) if scale is None else scale))


def frobenius(x: Tensor) -> Tensor:
    """‖x‖ in the Frobenius norm, (…), of (…, m, n); its squares do not overflow."""
    if x.shape[-1] == 0 or x.shape[-2] == 0:
        return torch.zeros(x.shape[:-2], dtype=x.real.dtype, device=x.device)
    peak = x.abs().amax(dim=(-2, -1))
    norm: Tensor = torch.linalg.vector_norm(x / torch.where(peak > 0, peak, 1)[..., None, None], dim=(-2, -1)) * peak
    return norm


# Whose it is --------------------------------------------------------------------------------------------------------


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
