"""Every operation of torch that takes a matrix apart or divides by one, as torch dispatches it.

Letters: … batch dimensions of the matrix.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from brainbrr_debug import measurement as measure
from brainbrr_debug.measurement import Facts, Given, Measure, columns, squared


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
        bad = ~torch.isfinite(columns(matrix, given[operation.right])).all(-1).all(-1)
        finite = finite & ~_over(bad.to(torch.uint8), finite.shape).bool()
    clean = torch.where(finite[..., None, None], matrix, 0)
    facts = measure.alone(clean, given, (), eps) if found is None else operation.measure(clean, given, found, eps)
    measured = {field.name: getattr(facts, field.name) for field in dataclasses.fields(facts)}
    for name, values in measured.items():
        if values is not None and name not in ("values", "failed"):
            measured[name] = torch.where(finite, _over(values, finite.shape), torch.nan)
    return Facts(**measured), finite


def _over(x: Tensor, shape: torch.Size) -> Tensor:
    """The largest of `x` for each matrix, where one matrix served several right-hand sides; NaN counts as largest."""
    extra = x.dim() - len(shape)
    x = x.amax(tuple(range(extra))) if extra > 0 else x
    narrow = tuple(d for d, size in enumerate(shape) if size == 1 and x.shape[d] != 1)
    return (x.amax(narrow, keepdim=True) if narrow else x).expand(shape)


# The matrix that is meant ---------------------------------------------------------------------------------------------


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
    return lambda given: squared(_triangle(given[name], upper=given["upper"]), upper=given["upper"])


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


# The table ------------------------------------------------------------------------------------------------------------

_A, _SELF = _argument("A"), _argument("self")
_RIGHT_SELF = functools.partial(measure.of_solution, right="self")
_PAIR = frozenset({"eigenvectors"})

OPERATIONS: dict[str, Operation] = {
    f"aten::{name}": operation
    for name, operation in {
        "_linalg_eigh": Operation(
            name="eigh", matrix=_one_triangle, measure=measure.of_eigh, vectors=_PAIR, divides="never"
        ),
        "linalg_eig": Operation(name="eig", matrix=_SELF, measure=measure.of_eig, vectors=_PAIR),
        "_linalg_svd": Operation(
            name="svd", matrix=_A, measure=measure.of_svd, vectors=frozenset({"U", "Vh"}), divides="never"
        ),
        "linalg_qr": Operation(name="qr", matrix=_A, measure=measure.of_qr),
        "linalg_cholesky_ex": Operation(name="cholesky", matrix=_one_triangle, measure=measure.of_cholesky),
        "cholesky": Operation(name="cholesky", matrix=_one_triangle, measure=measure.of_cholesky),
        "_linalg_det": Operation(name="det", matrix=_A, measure=measure.alone),
        "_linalg_slogdet": Operation(name="slogdet", matrix=_A, measure=measure.alone),
        "linalg_lu": Operation(name="lu", matrix=_A, measure=measure.of_lu),
        "linalg_lu_factor_ex": Operation(name="lu_factor", matrix=_A, measure=measure.of_lu_factor),
        "linalg_inv_ex": Operation(name="inv", matrix=_A, measure=measure.of_inverse, divides="forward"),
        "linalg_pinv": Operation(name="pinv", matrix=_pinv_matrix, measure=measure.of_pinv, divides="forward"),
        "cholesky_inverse": Operation(
            name="cholesky_inverse", matrix=_from_cholesky("self"), measure=measure.of_inverse, divides="forward"
        ),
        "_linalg_solve_ex": Operation(
            name="solve", matrix=_A, right="B", measure=measure.of_solution, divides="forward"
        ),
        "linalg_solve_triangular": Operation(
            name="solve_triangular",
            matrix=_triangular("self"),
            right="B",
            measure=measure.of_solution,
            divides="forward",
        ),
        "triangular_solve": Operation(
            name="triangular_solve", matrix=_triangular("A"), right="self", measure=_RIGHT_SELF, divides="forward"
        ),
        "cholesky_solve": Operation(
            name="cholesky_solve", matrix=_from_cholesky("input2"), right="self", measure=_RIGHT_SELF, divides="forward"
        ),
        "linalg_lu_solve": Operation(
            name="lu_solve", matrix=_from_lu, right="B", measure=measure.of_solution, divides="forward"
        ),
        "linalg_lstsq": Operation(name="lstsq", matrix=_SELF, right="b", measure=measure.of_lstsq, divides="forward"),
    }.items()
}
"""By the name under which torch dispatches them: every way to call one ends there."""
