"""What clamps and nan_to_num alter: they keep a loss finite, and hide why it would not be.

relu does not count, nor does a lower bound that is not negative: clamp(min=0) is a relu, clamp(min=1e-6) keeps a
divisor off zero.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

_ATEN = torch.ops.aten
_CLEANERS = (_ATEN.nan_to_num, _ATEN.nan_to_num_)
_UPPER_ONLY = (_ATEN.clamp_max, _ATEN.clamp_max_)
_CLAMPS = (_ATEN.clamp, _ATEN.clamp_, _ATEN.clamp_min, _ATEN.clamp_min_, _ATEN.hardtanh, _ATEN.hardtanh_, *_UPPER_ONLY)
SANITISERS = {*_CLEANERS, *_CLAMPS}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Altered:
    """Elements that one call altered: all of them, and those that were not finite before and are now (0-d, int64)."""

    values: Tensor
    nonfinite: Tensor
    elements: int
    clamp: bool  # else nan_to_num
    data: bool  # no gradient flows back: the program cleans its input


def operand(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
    """What a sanitiser is about to work on, copied where it may write into it; None for any other operation."""
    if func.overloadpacket not in SANITISERS or not args or not isinstance(args[0], Tensor):
        return None
    x = args[0].detach()
    if not (x.is_floating_point() or x.is_complex()) or not x.numel():
        return None
    return x.clone() if func._opname.endswith("_") or "out" in kwargs else x


def altered(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], x: Tensor, out: Tensor) -> Altered:
    """Compare the operand `x` of a sanitiser with its result."""
    clamp = func.overloadpacket in _CLAMPS
    different = out.ne(x).logical_and_(out.eq(out))  # a NaN that stays one was not altered
    if clamp and _rectifies(func, args, kwargs):
        different.logical_and_(x > out)
    return Altered(
        values=torch.count_nonzero(different),
        nonfinite=torch.count_nonzero(different.logical_and_(torch.isfinite(x).logical_not_())),
        elements=x.numel(),
        clamp=clamp,
        data=torch.is_grad_enabled() and not args[0].requires_grad,
    )


def _rectifies(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    if func.overloadpacket in _UPPER_ONLY:
        return False
    bound = args[1] if len(args) > 1 else kwargs.get("min", kwargs.get("min_val"))
    return isinstance(bound, (int, float)) and bound >= 0
