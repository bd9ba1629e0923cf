"""How near to singular is what a step inverts or solves with: screened at next to no cost, exact on an alarm."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor

from brainbrr_debug.spectral import inverse_condition, solution_condition

ALARM = 1 / 64
"""A screened number from here on is replaced by the exact one: far below 1, for the norms differ."""

_norm = torch.linalg.vector_norm


@dataclasses.dataclass(slots=True, eq=False, kw_only=True)
class Division:
    """One inverse or solution of the matrices `a` (…, n, n); everything is shared with the program, not copied.

    `lost` (…) is a condition number in the Frobenius norm, or less, times eps: at 1 no digit is left. Units of
    measurement and squares that overflow make it large as well, so an alarm is confirmed by `exact`.
    """

    site: str
    a: Tensor
    x: Tensor
    b: Tensor | None
    left: bool
    versions: tuple[int, ...]
    lost: Tensor

    @classmethod
    def of(cls, site: str, a: Tensor, result: Any, rest: Mapping[str, Any], *, inverse: bool) -> Self:
        """From a call's matrices, its result and its other arguments by name."""
        x, b = result if isinstance(result, Tensor) else result[0], None if inverse else rest["B"]
        a, x, b = a.detach(), x.detach(), None if b is None else b.detach()
        dims = (-1,) if x.dim() < a.dim() else (-2, -1)
        got = _norm(a, dim=(-2, -1)) * _norm(x, dim=dims)
        return cls(
            site=site,
            a=a,
            x=x,
            b=b,
            left=rest.get("left", True),
            versions=tuple(y._version for y in (a, x, b) if y is not None),
            lost=(got if b is None else got / _norm(b, dim=dims)) * torch.finfo(a.dtype).eps,
        )

    def exact(self) -> Tensor | None:
        """`lost` free of units and in the maximum norm; None when something was written over since."""
        if self.versions != tuple(y._version for y in (self.a, self.x, self.b) if y is not None):
            return None
        eps = torch.finfo(self.a.dtype).eps
        if self.b is None:
            return inverse_condition(self.a, self.x) * eps
        return solution_condition(self.a, self.x, self.b, left=self.left) * eps
