"""What is worth knowing about a matrix that was taken apart or divided by, and about the result.

All measuring is done in float64 on the CPU, with the results that the operation gave in its own precision: gaps and
condition numbers are those of the matrix, residual and orthogonality those of the result.

Letters: … batch dimensions of the matrix, m × n its shape (neither is 0), k its values.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from brainbrr_debug.spectral import (
    amplification,
    condition_number,
    eigengap,
    equilibrated,
    frobenius,
    orthogonality,
    residual,
    scattered_eigengap,
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Measured quantities of the matrices, (…) each; None where a quantity has no meaning for the operation.

    `values` (…, k) are eigenvalues or singular values. `scaled` is the condition number once units of measurement are
    taken out of rows and columns, or of what the operation lets be scaled. `smallest` is the distance to a singular
    matrix (for a Cholesky decomposition the smallest eigenvalue, negative where there is no such decomposition).
    """

    values: Tensor
    gap: Tensor | None = None
    amplification: Tensor | None = None
    condition: Tensor | None = None
    scaled: Tensor | None = None
    smallest: Tensor | None = None
    residual: Tensor | None = None
    orthogonality: Tensor | None = None
    failed: Tensor | None = None


Given = Mapping[str, Any]
"""Arguments by name, tensors in float64."""

Measure = Callable[[Tensor, Given, tuple[Tensor, ...], float], Facts]
"""Facts from the matrix, the arguments, the results in float64, and the eps of the precision they had."""


# Values and vectors -------------------------------------------------------------------------------------------------


def of_eigh(a: Tensor, given: Given, found: tuple[Tensor, ...], eps: float) -> Facts:
    """Hermitian `a`; the eigenvectors may not have been asked for."""
    values, vectors = found
    exact = torch.linalg.eigvalsh(a)
    gap, amplified = _gaps(exact, values)
    return Facts(
        values=exact,
        gap=gap,
        amplification=amplified,
        **_closeness(exact.abs()),
        residual=residual(a @ vectors, vectors * values[..., None, :], frobenius(a)) if vectors.numel() else None,
        orthogonality=orthogonality(vectors) if vectors.numel() else None,
    )


def of_eig(a: Tensor, given: Given, found: tuple[Tensor, ...], eps: float) -> Facts:
    """The condition number is that of the eigenvectors: infinite for a defective matrix."""
    values, vectors = found
    a = a.to(vectors.dtype)
    exact = torch.linalg.eigvals(a)
    gap = torch.where(_scattered(values) == 0, 0.0, _scattered(exact))
    largest = exact.abs().amax(-1)
    usable = torch.where(torch.isfinite(vectors), vectors, 0)
    return Facts(
        values=exact,
        gap=gap,
        amplification=torch.where(gap.isinf(), 0.0, 1 / (gap * largest)),
        condition=condition_number(torch.linalg.svdvals(usable)),
        smallest=exact.abs().amin(-1),
        residual=residual(a @ vectors, vectors * values[..., None, :], frobenius(a)),
    )


def of_svd(a: Tensor, given: Given, found: tuple[Tensor, ...], eps: float) -> Facts:
    """The vectors of a matrix that is not square border on its null space: 0 is one more value to stay apart from."""
    u, values, vh = found
    exact = torch.linalg.svdvals(a)
    square = a.shape[-1] == a.shape[-2]
    gap, amplified = _gaps(*((exact, values) if square else (_with_zero(exact), _with_zero(values))))
    facts = Facts(values=exact, gap=gap, amplification=amplified, **_closeness(exact))
    if not given["compute_uv"]:
        return facts
    k = exact.shape[-1]
    loss = torch.maximum(orthogonality(u), orthogonality(vh.mH))
    back = (u[..., :k] * values[..., None, :]) @ vh[..., :k, :]
    return dataclasses.replace(facts, residual=residual(back, a), orthogonality=loss)


# Triangles ----------------------------------------------------------------------------------------------------------


def of_qr(a: Tensor, given: Given, found: tuple[Tensor, ...], eps: float) -> Facts:
    """Q may not have been asked for."""
    q, r = found
    values = torch.linalg.svdvals(a[..., : min(a.shape[-2:])])
    return Facts(
        values=values,
        **_closeness(values, amplified=True),
        scaled=_scaled(a[..., : min(a.shape[-2:])], rows=False),
        residual=residual(q @ r, a) if q.numel() else None,
        orthogonality=orthogonality(q) if q.numel() else None,
    )


def of_cholesky(a: Tensor, given: Given, found: tuple[Tensor, ...], eps: float) -> Facts:
    """Hermitian `a`; infinite where it is not positive definite."""
    values = torch.linalg.eigvalsh(a)
    smallest = values.amin(-1)
    return Facts(
        values=values,
        amplification=torch.where(smallest > 0, 1 / smallest, torch.inf),
        condition=torch.where(smallest > 0, condition_number(values.abs()), torch.inf),
        scaled=torch.where(smallest > 0, condition_number(torch.linalg.eigvalsh(_unit_diagonal(a)).abs()), torch.inf),
        smallest=smallest,
        residual=residual(squared(found[0], upper=given["upper"]), a),
        failed=found[1] != 0 if len(found) > 1 else None,
    )


def of_lu(a: Tensor, given: Given, found: tuple[Tensor, ...], eps: float) -> Facts:
    """With or without pivots."""
    p, lower, upper = found
    back = p @ lower @ upper if given["pivot"] else lower @ upper
    return dataclasses.replace(alone(a, given, found, eps), residual=residual(back, a))


def of_lu_factor(a: Tensor, given: Given, found: tuple[Tensor, ...], eps: float) -> Facts:
    """Both factors in one matrix, and pivots."""
    return of_lu(a, {"pivot": True}, torch.lu_unpack(found[0], found[1].to("cpu", torch.int32)), eps)


def alone(a: Tensor, given: Given, found: tuple[Tensor, ...], eps: float) -> Facts:
    """Nothing but the matrix itself."""
    values = torch.linalg.svdvals(a)
    return Facts(values=values, **_closeness(values, amplified=True), scaled=_scaled(a))


# Inverses and solutions ---------------------------------------------------------------------------------------------


def of_inverse(a: Tensor, given: Given, found: tuple[Tensor, ...], eps: float) -> Facts:
    """Residual of a·x = 1 over ‖a‖·‖x‖."""
    x = found[0]
    identity = torch.eye(a.shape[-1], dtype=a.dtype).expand_as(a)
    return dataclasses.replace(
        alone(a, given, found, eps), residual=residual(a @ x, identity, frobenius(a) * frobenius(x))
    )


def of_pinv(a: Tensor, given: Given, found: tuple[Tensor, ...], eps: float) -> Facts:
    """Condition number and smallest value are those of what is inverted; residual of x·a·x = x over ‖x‖²·‖a‖, which
    holds however much was cut off."""
    x = found[0]
    values = torch.linalg.svdvals(a)
    atol, rtol = given["atol"], given["rtol"]
    default = 0.0 if atol is not None and bool((atol > 0).any()) else max(a.shape[-2:]) * eps
    low, relative = (
        torch.as_tensor(y)[..., None] for y in (0.0 if atol is None else atol, default if rtol is None else rtol)
    )
    return Facts(
        values=values,
        **_closeness(_kept(values, torch.maximum(low, relative * values[..., :1])), amplified=True),
        residual=residual(x @ a @ x, x, frobenius(x) ** 2 * frobenius(a)),
    )


def of_solution(a: Tensor, given: Given, found: tuple[Tensor, ...], eps: float, *, right: str = "B") -> Facts:
    """Residual of a·x = b (x·a = b without `left`) over ‖a‖·‖x‖ + ‖b‖; `right` is the argument that holds b."""
    b, x = columns(a, given[right]), columns(a, found[0])
    scale = frobenius(a) * frobenius(x) + frobenius(b)
    back = a @ x if given.get("left", True) else x @ a
    return dataclasses.replace(alone(a, given, found, eps), residual=residual(back, b, scale))


def of_lstsq(a: Tensor, given: Given, found: tuple[Tensor, ...], eps: float) -> Facts:
    """Residual of the normal equations: what remains of the right-hand side is no error.

    All drivers but "gels" cut small values off: then condition number and smallest value are those of the others.
    """
    b, x = columns(a, given["b"]), columns(a, found[0])
    scale = frobenius(a) * (frobenius(a) * frobenius(x) + frobenius(b))
    wrong = None if given["rcond"] is not None else residual(a.mH @ (a @ x), a.mH @ b, scale)
    if given["driver"] == "gels":
        return dataclasses.replace(alone(a, given, found, eps), scaled=_scaled(a, rows=False), residual=wrong)
    values = torch.linalg.svdvals(a)
    cut = max(a.shape[-2:]) * eps if given["rcond"] is None else given["rcond"]
    return Facts(values=values, **_closeness(_kept(values, cut * values[..., :1]), amplified=True), residual=wrong)


# Parts --------------------------------------------------------------------------------------------------------------


def _gaps(exact: Tensor, computed: Tensor) -> tuple[Tensor, Tensor]:
    """Relative gap and amplification. Where the program's own precision gave the very same value twice the gap is 0:
    the gradient divides by it, whatever float64 would have found."""
    equal = eigengap(computed) == 0
    return torch.where(equal, 0.0, eigengap(exact)), torch.where(equal, torch.inf, amplification(exact))


def _scattered(values: Tensor) -> Tensor:
    """Gaps of eigenvalues in no order, one matrix after the other: all pairs of a stack would not fit."""
    flat = values.reshape(-1, values.shape[-1])
    return torch.stack([scattered_eigengap(each) for each in flat]).reshape(values.shape[:-1])


def _kept(values: Tensor, cut: Tensor) -> Tensor:
    """Descending singular values (…, k) with those that are not above `cut` (…, 1) replaced by the largest."""
    return torch.where(values > cut, values, values[..., :1])


def _closeness(magnitudes: Tensor, *, amplified: bool = False) -> dict[str, Tensor]:
    smallest = magnitudes.amin(-1)
    found = {"condition": condition_number(magnitudes), "smallest": smallest}
    return {**found, "amplification": 1 / smallest} if amplified else found


def _scaled(a: Tensor, *, rows: bool = True) -> Tensor:
    return condition_number(torch.linalg.svdvals(equilibrated(a, rows=rows)))


def _unit_diagonal(a: Tensor) -> Tensor:
    size = a.diagonal(dim1=-2, dim2=-1).real.abs().sqrt()
    size = torch.where(size == 0, 1, size)
    return a / size[..., :, None] / size[..., None, :]


def _with_zero(values: Tensor) -> Tensor:
    return torch.nn.functional.pad(values, (0, 1))


def squared(triangle: Tensor, *, upper: bool) -> Tensor:
    """What a Cholesky factor is the factor of."""
    return triangle.mH @ triangle if upper else triangle @ triangle.mH


def columns(a: Tensor, b: Tensor) -> Tensor:
    """Right-hand sides (…, n, k); one without columns, (…, n), gets one."""
    vector = b.dim() == 1 or (b.dim() == a.dim() - 1 and b.shape[:-1] == a.shape[:-2])
    return b[..., None] if vector else b
