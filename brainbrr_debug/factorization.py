"""Every operation of torch that takes a matrix apart or divides by one: what is worth knowing about its matrices.

All measuring is done in float64 on the CPU, with the results that the operation gave in its own precision: gaps and
condition numbers are those of the matrix, residual and orthogonality those of the result.

Letters: … batch dimensions of the matrix, m × n its shape, k right-hand sides, N matrices in all.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from brainbrr_debug.spectral import (
    amplification,
    condition_number,
    eigengap,
    frobenius,
    orthogonality,
    residual,
    scattered_eigengap,
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Measured quantities of the matrices, (…) each; None where a quantity has no meaning for the operation.

    `values` (…, k) are eigenvalues or singular values, `smallest` the distance to a singular matrix (for a Cholesky
    decomposition the smallest eigenvalue, negative where there is no such decomposition).
    """

    values: Tensor
    gap: Tensor | None = None
    amplification: Tensor | None = None
    condition: Tensor | None = None
    smallest: Tensor | None = None
    residual: Tensor | None = None
    orthogonality: Tensor | None = None
    failed: Tensor | None = None


Given = Mapping[str, Any]
"""Arguments by name, tensors in float64."""

Measure = Callable[[Tensor, Given, tuple[Tensor, ...], float], Facts]
"""Facts from the matrix, the arguments, the results in float64, and the eps of the precision they had."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """`name` for a person; `matrix` makes the matrix that is meant of the arguments, `right` names the right-hand side.

    `vectors` are the results whose gradient divides by the gaps. `divides` says when the condition number counts:
    where the result itself divides by the matrix, where only the gradient does, or never.
    """

    name: str
    matrix: Callable[[Given], Tensor]
    measure: Measure
    right: str | None = None
    vectors: frozenset[str] = frozenset()
    divides: Literal["forward", "backward", "never"] = "backward"


def facts_of(operation: Operation, given: Given, found: tuple[Tensor, ...] | None, eps: float) -> tuple[Facts, Tensor]:
    """What `operation` did, and which of its matrices (…) are finite with their right-hand sides; NaN for the others.

    `given` are the arguments by name, `found` the results (None: it raised an error), all tensors of them in float64 or
    complex128 on the CPU.
    """
    matrix = operation.matrix(given)
    finite = torch.isfinite(matrix).all(-1).all(-1)
    if operation.right is not None:
        bad = ~torch.isfinite(_columns(matrix, given[operation.right])).all(-1).all(-1)
        finite = finite & ~_over(bad.to(torch.uint8), finite.shape).bool()
    clean = torch.where(finite[..., None, None], matrix, 0)
    facts = _alone(clean, given, (), eps) if found is None else operation.measure(clean, given, found, eps)
    measured = {field.name: getattr(facts, field.name) for field in dataclasses.fields(facts)}
    for name, values in measured.items():
        if values is not None and name not in ("values", "failed"):
            measured[name] = torch.where(finite, _over(values, finite.shape), torch.nan)
    return Facts(**measured), finite


# Values and vectors -------------------------------------------------------------------------------------------------


def _eigh(a: Tensor, given: Given, found: tuple[Tensor, ...], eps: float) -> Facts:
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


def _eig(a: Tensor, given: Given, found: tuple[Tensor, ...], eps: float) -> Facts:
    """The condition number is that of the eigenvectors: infinite for a defective matrix."""
    values, vectors = found
    a = a.to(vectors.dtype)
    exact = torch.linalg.eigvals(a)
    gap = torch.where(scattered_eigengap(values) == 0, 0.0, scattered_eigengap(exact))
    largest = exact.abs().amax(-1) if exact.shape[-1] else exact.abs().sum(-1)
    usable = torch.where(torch.isfinite(vectors), vectors, 0)
    return Facts(
        values=exact,
        gap=gap,
        amplification=torch.where(gap.isinf(), 0.0, 1 / (gap * largest)),
        condition=condition_number(torch.linalg.svdvals(usable)),
        smallest=_closeness(exact.abs())["smallest"],
        residual=residual(a @ vectors, vectors * values[..., None, :], frobenius(a)),
    )


def _svd(a: Tensor, given: Given, found: tuple[Tensor, ...], eps: float) -> Facts:
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


def _qr(a: Tensor, given: Given, found: tuple[Tensor, ...], eps: float) -> Facts:
    q, r = found
    values = torch.linalg.svdvals(a[..., : min(a.shape[-2:])])
    return Facts(
        values=values,
        **_closeness(values, amplified=True),
        residual=residual(q @ r, a) if q.numel() else None,
        orthogonality=orthogonality(q) if q.numel() else None,
    )


def _cholesky(a: Tensor, given: Given, found: tuple[Tensor, ...], eps: float) -> Facts:
    values = torch.linalg.eigvalsh(a)
    smallest = values.amin(-1) if values.shape[-1] else values.sum(-1)
    return Facts(
        values=values,
        amplification=torch.where(smallest > 0, 1 / smallest, torch.inf),
        condition=torch.where(smallest > 0, condition_number(values.abs()), torch.inf),
        smallest=smallest,
        residual=residual(_squared(found[0], upper=given["upper"]), a),
        failed=found[1] != 0 if len(found) > 1 else None,
    )


def _lu(a: Tensor, given: Given, found: tuple[Tensor, ...], eps: float) -> Facts:
    p, lower, upper = found
    back = p @ lower @ upper if given["pivot"] else lower @ upper
    return dataclasses.replace(_alone(a, given, found, eps), residual=residual(back, a))


def _lu_factor(a: Tensor, given: Given, found: tuple[Tensor, ...], eps: float) -> Facts:
    return _lu(a, {"pivot": True}, torch.lu_unpack(found[0], found[1].to("cpu", torch.int32)), eps)


def _alone(a: Tensor, given: Given, found: tuple[Tensor, ...], eps: float) -> Facts:
    """Nothing but the matrix itself."""
    values = torch.linalg.svdvals(a)
    return Facts(values=values, **_closeness(values, amplified=True))


# Inverses and solutions ---------------------------------------------------------------------------------------------


def _inverse(a: Tensor, given: Given, found: tuple[Tensor, ...], eps: float) -> Facts:
    x = found[0]
    identity = torch.eye(a.shape[-1], dtype=a.dtype).expand_as(a)
    return dataclasses.replace(
        _alone(a, given, found, eps), residual=residual(a @ x, identity, frobenius(a) * frobenius(x))
    )


def _pinv(a: Tensor, given: Given, found: tuple[Tensor, ...], eps: float) -> Facts:
    """Condition number and smallest value are those of what is inverted: of the values above the cut-off."""
    x = found[0]
    values = torch.linalg.svdvals(a)
    atol, rtol = given["atol"], given["rtol"]
    default = 0.0 if atol is not None and bool((atol > 0).any()) else max(a.shape[-2:]) * eps
    low = torch.as_tensor(0.0 if atol is None else atol)[..., None]
    relative = torch.as_tensor(default if rtol is None else rtol)[..., None]
    kept = values > torch.maximum(low, relative * values[..., :1])
    inverted = torch.where(kept, values, values[..., :1])
    return Facts(
        values=values,
        **_closeness(inverted, amplified=True),
        residual=residual(a @ x @ a, a, frobenius(a) ** 2 * frobenius(x)),
    )


def _solve(a: Tensor, given: Given, found: tuple[Tensor, ...], eps: float, *, right: str = "B") -> Facts:
    b, x = _columns(a, given[right]), _columns(a, found[0])
    scale = frobenius(a) * frobenius(x) + frobenius(b)
    back = a @ x if given.get("left", True) else x @ a
    return dataclasses.replace(_alone(a, given, found, eps), residual=residual(back, b, scale))


def _lstsq(a: Tensor, given: Given, found: tuple[Tensor, ...], eps: float) -> Facts:
    """The residual is that of the normal equations: what remains of the right-hand side is no error."""
    b, x = _columns(a, given["b"]), _columns(a, found[0])
    scale = frobenius(a) * (frobenius(a) * frobenius(x) + frobenius(b))
    wrong = residual(a.mH @ (a @ x), a.mH @ b, scale)
    return dataclasses.replace(_alone(a, given, found, eps), residual=wrong)


# Parts --------------------------------------------------------------------------------------------------------------


def _gaps(exact: Tensor, computed: Tensor) -> tuple[Tensor, Tensor]:
    """Relative gap and amplification. Where the program's own precision gave the very same value twice the gap is 0:
    the gradient divides by it, whatever float64 would have found."""
    equal = eigengap(computed) == 0
    return torch.where(equal, 0.0, eigengap(exact)), torch.where(equal, torch.inf, amplification(exact))


def _closeness(magnitudes: Tensor, *, amplified: bool = False) -> dict[str, Tensor]:
    smallest = magnitudes.amin(-1) if magnitudes.shape[-1] else magnitudes.sum(-1)
    found = {"condition": condition_number(magnitudes), "smallest": smallest}
    return {**found, "amplification": 1 / smallest} if amplified else found


def _with_zero(values: Tensor) -> Tensor:
    return torch.nn.functional.pad(values, (0, 1))


def _argument(name: str) -> Callable[[Given], Tensor]:
    return lambda given: given[name]


def _one_triangle(given: Given) -> Tensor:
    upper = given["UPLO"] in ("U", "u") if "UPLO" in given else given.get("upper", False)
    return _hermitian(given["A"] if "A" in given else given["self"], upper=upper)


def _pinv_matrix(given: Given) -> Tensor:
    return _hermitian(given["self"], upper=False) if given["hermitian"] else given["self"]


def _triangular(name: str) -> Callable[[Given], Tensor]:
    def matrix(given: Given) -> Tensor:
        a = _triangle(given[name], upper=given["upper"], unit=given["unitriangular"])
        return a.mT if given.get("transpose", False) else a

    return matrix


def _from_cholesky(name: str) -> Callable[[Given], Tensor]:
    return lambda given: _squared(_triangle(given[name], upper=given["upper"]), upper=given["upper"])


def _from_lu(given: Given) -> Tensor:
    p, lower, upper = torch.lu_unpack(given["LU"], given["pivots"].to("cpu", torch.int32))
    a: Tensor = p @ lower @ upper
    return a.mH if given["adjoint"] else a


def _triangle(a: Tensor, *, upper: bool, unit: bool = False) -> Tensor:
    a = a.triu() if upper else a.tril()
    if unit:
        a = a - torch.diag_embed(a.diagonal(dim1=-2, dim2=-1)) + torch.eye(a.shape[-1], dtype=a.dtype)
    return a


def _hermitian(a: Tensor, *, upper: bool) -> Tensor:
    """The matrix that is meant by one of its triangles."""
    strict = a.triu(1) if upper else a.tril(-1)
    diagonal = a.diagonal(dim1=-2, dim2=-1).real.to(a.dtype)
    return strict + strict.mH + torch.diag_embed(diagonal)


def _squared(triangle: Tensor, *, upper: bool) -> Tensor:
    return triangle.mH @ triangle if upper else triangle @ triangle.mH


def _columns(a: Tensor, b: Tensor) -> Tensor:
    """Right-hand sides (…, n, k); one without columns, (…, n), gets one."""
    vector = b.dim() == 1 or (b.dim() == a.dim() - 1 and b.shape[:-1] == a.shape[:-2])
    return b[..., None] if vector else b


def _over(x: Tensor, shape: torch.Size) -> Tensor:
    """The largest of `x` for each matrix, where one matrix served several right-hand sides; NaN counts as largest."""
    extra = x.dim() - len(shape)
    x = x.amax(tuple(range(extra))) if extra > 0 else x
    narrow = tuple(d for d, size in enumerate(shape) if size == 1 and x.shape[d] != 1)
    return (x.amax(narrow, keepdim=True) if narrow else x).expand(shape)


_A, _SELF = _argument("A"), _argument("self")
_RIGHT_SELF = functools.partial(_solve, right="self")
_PAIR = frozenset({"eigenvectors"})

OPERATIONS: dict[str, Operation] = {
    f"aten::{name}": operation
    for name, operation in {
        "_linalg_eigh": Operation(name="eigh", matrix=_one_triangle, measure=_eigh, vectors=_PAIR, divides="never"),
        "linalg_eig": Operation(name="eig", matrix=_SELF, measure=_eig, vectors=_PAIR),
        "_linalg_svd": Operation(name="svd", matrix=_A, measure=_svd, vectors=frozenset({"U", "Vh"}), divides="never"),
        "linalg_qr": Operation(name="qr", matrix=_A, measure=_qr),
        "linalg_cholesky_ex": Operation(name="cholesky", matrix=_one_triangle, measure=_cholesky),
        "cholesky": Operation(name="cholesky", matrix=_one_triangle, measure=_cholesky),
        "_linalg_det": Operation(name="det", matrix=_A, measure=_alone),
        "_linalg_slogdet": Operation(name="slogdet", matrix=_A, measure=_alone),
        "linalg_lu": Operation(name="lu", matrix=_A, measure=_lu),
        "linalg_lu_factor_ex": Operation(name="lu_factor", matrix=_A, measure=_lu_factor),
        "linalg_inv_ex": Operation(name="inv", matrix=_A, measure=_inverse, divides="forward"),
        "linalg_pinv": Operation(name="pinv", matrix=_pinv_matrix, measure=_pinv, divides="forward"),
        "cholesky_inverse": Operation(
            name="cholesky_inverse", matrix=_from_cholesky("self"), measure=_inverse, divides="forward"
        ),
        "_linalg_solve_ex": Operation(name="solve", matrix=_A, right="B", measure=_solve, divides="forward"),
        "linalg_solve_triangular": Operation(
            name="solve_triangular", matrix=_triangular("self"), right="B", measure=_solve, divides="forward"
        ),
        "triangular_solve": Operation(
            name="triangular_solve", matrix=_triangular("A"), right="self", measure=_RIGHT_SELF, divides="forward"
        ),
        "cholesky_solve": Operation(
            name="cholesky_solve", matrix=_from_cholesky("input2"), right="self", measure=_RIGHT_SELF, divides="forward"
        ),
        "linalg_lu_solve": Operation(name="lu_solve", matrix=_from_lu, right="B", measure=_solve, divides="forward"),
        "linalg_lstsq": Operation(name="lstsq", matrix=_SELF, right="b", measure=_lstsq, divides="forward"),
    }.items()
}
"""By the name under which torch dispatches them: every way to call one ends there."""
