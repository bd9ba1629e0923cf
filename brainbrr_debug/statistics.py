"""One-pass tensor statistics: is anything non-finite, where first, and how long is the gradient.

Screening is one streaming reduction that stays on the device: a sum accumulated in float32 (float64 for float64) is
non-finite whenever an element is, because infinities and NaN never sum back to something finite. The converse does
not hold (finite values can overflow), so a trigger is confirmed by `finiteness`, which is exact and slower.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from brainbrr_debug.tensors import is_dense

_WIDE = {torch.float64: torch.float64, torch.complex128: torch.complex128}
_PLAIN = {torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.complex64, torch.complex128}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Finiteness:
    """Exact count of what is wrong in one tensor; `first` is the index of the first bad element, None if all is well.

    For a sparse tensor the counts and the index refer to its stored values.
    """

    elements: int
    nan: int
    inf: int
    first: tuple[int, ...] | None

    @property
    def finite(self) -> bool:
        """True when nothing is NaN or infinite."""
        return self.first is None


def stored_values(x: Tensor) -> Tensor:
    """`x` itself, or the stored values of a sparse tensor; detached."""
    x = x.detach()
    if x.layout == torch.strided:
        return x
    if x.layout == torch.sparse_coo:
        return x._values()
    return x.values()


def can_be_nonfinite(x: Tensor) -> bool:
    """False for integer, bool and empty tensors, for which every question below has one answer."""
    return (x.is_floating_point() or x.is_complex()) and x.numel() > 0


def screen(x: Tensor) -> Tensor:
    """A 0-d real tensor on x's device that is non-finite whenever an element of `x` is. Any dtype and layout.

    Finite values may overflow it (4,096 values of 3e38 do), so confirm a trigger with `finiteness`. The sign tells
    more: −inf means that there is neither a NaN nor a +inf, and +inf the mirror image.
    """
    x = stored_values(x)
    if not can_be_nonfinite(x):
        return torch.zeros((), device=x.device)
    x = elements(x)
    return x.sum(dtype=_WIDE.get(x.dtype, torch.float32))


def finiteness(x: Tensor) -> Finiteness:
    """Exact counts of NaN and infinities and the first index of either. Reads back from the device."""
    x = stored_values(x)
    if not can_be_nonfinite(x):
        return Finiteness(elements=x.numel(), nan=0, inf=0, first=None)
    if x.itemsize == 1:
        x = x.float()
    nan = torch.isnan(x)
    bad = ~torch.isfinite(x)
    n_nan, n_bad = int(nan.sum()), int(bad.sum())
    first = None
    if n_bad:
        flat = int(bad.reshape(-1).to(torch.uint8).argmax())
        first = tuple(int(i) for i in torch.unravel_index(torch.tensor(flat), x.shape))
    return Finiteness(elements=x.numel(), nan=n_nan, inf=n_bad - n_nan, first=first)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Statistics of one tensor's elements; `headroom` is log2 of the dtype's largest value over `absmax`.

    `zeros` is a share. Of a complex tensor the real and imaginary parts are the elements, of a sparse one the stored
    values. Sums are accumulated in float32 (float64 for float64): from 1e19 on, `rms` may overflow.
    """

    absmax: float
    rms: float
    mean: float
    zeros: float
    headroom: float | None


def measure(x: Tensor) -> tuple[Tensor, ...]:
    """What a `Summary` of `x` is made of once it is read: five 0-d tensors, without a temporary of `x`'s size.

    `x` must be able to be non-finite (floating or complex, and not empty); 8-bit floats are copied first.
    """
    x = elements(x)
    wide = _WIDE.get(x.dtype, torch.float32)
    return *torch.aminmax(x), torch.linalg.vector_norm(x, dtype=wide), x.sum(dtype=wide), torch.count_nonzero(x)


def summarize(measured: Sequence[float], count: int, dtype: torch.dtype) -> Summary:
    """The Summary of a tensor of that `dtype` with `count` elements, from what `measure` gave."""
    low, high, norm, total, nonzero = measured
    absmax = abs(max(-low, high))
    return Summary(
        absmax=absmax,
        rms=norm / math.sqrt(count),
        mean=total / count,
        zeros=1 - nonzero / count,
        headroom=headroom(absmax, dtype),
    )


def headroom(absmax: float, dtype: torch.dtype) -> float | None:
    """Doublings of `absmax` that the dtype still holds; None for zero and for what is not finite."""
    return math.log2(torch.finfo(dtype).max) - math.log2(absmax) if 0 < absmax < math.inf else None


def elements(x: Tensor) -> Tensor:
    """The elements of a floating or complex tensor, in any order, as a real strided tensor that reduces fast."""
    x = stored_values(x)
    if x.is_complex():
        x = torch.view_as_real(x.resolve_conj())
    if x.itemsize == 1:  # float8 has no reductions of its own
        x = x.float()
    if not x.is_contiguous() and is_dense(x):  # a transposed tensor would be copied first
        x = x.as_strided((x.numel(),), (1,))
    return x


def total_norm(tensors: Iterable[Tensor | None]) -> Tensor:
    """The 2-norm of all tensors taken as one vector: 0-d, on the first one's device, float32 or float64.

    None and empty tensors count as nothing, sparse tensors by their stored values (coalesce first where indices
    repeat), half precision is accumulated in float32. For dense float32 on one device the bits are those of
    `torch.nn.utils.get_total_norm`. Nothing is read back.
    """
    groups = _groups(tensors)
    if not groups:
        return torch.zeros(())
    device = next(iter(groups))[0]
    with torch.no_grad():
        norms = [torch.stack(_norms(group)).to(device) for _, group in groups.values()]
        wide = torch.float64 if any(n.dtype == torch.float64 for n in norms) else torch.float32
        total: Tensor = torch.linalg.vector_norm(torch.cat([n.to(wide) for n in norms]))
    return total


def tensor_norms(tensors: Sequence[Tensor | None]) -> list[Tensor | None]:
    """The 2-norm of each tensor, 0-d, in few kernels; None for None and for empty tensors. See `total_norm`."""
    norms: list[Tensor | None] = [None] * len(tensors)
    with torch.no_grad():
        for places, group in _groups(tensors).values():
            for place, norm in zip(places, _norms(group), strict=True):
                norms[place] = norm
    return norms


def exact_norm(tensors: Iterable[Tensor | None]) -> Tensor:
    """`total_norm` in float64, for when the squares of finite values overflow float32. Slower by the conversion."""
    return total_norm(x if x is None else _norm_operand(x).to(_widened(x.dtype)) for x in tensors)


def _groups(
    tensors: Iterable[Tensor | None],
) -> dict[tuple[torch.device, torch.dtype], tuple[list[int], list[Tensor]]]:
    """Places and operands of what has a norm, by device and dtype."""
    groups: dict[tuple[torch.device, torch.dtype], tuple[list[int], list[Tensor]]] = {}
    device = dtype = None
    with torch.no_grad():
        for place, x in enumerate(tensors):
            if x is None or x.numel() == 0:
                continue
            if x.layout is not torch.strided or x.dtype not in _PLAIN:
                x = _norm_operand(x)
            if x.dtype is not dtype or x.device != device:  # neighbours are alike: few look-ups
                device, dtype = x.device, x.dtype
                places, operands = groups.setdefault((device, dtype), ([], []))
            places.append(place)
            operands.append(x)
    return groups


def _widened(dtype: torch.dtype) -> torch.dtype:
    return torch.complex128 if dtype.is_complex else torch.float64


def _norm_operand(x: Tensor) -> Tensor:
    x = x.detach()
    if x.layout == torch.sparse_coo and not x.is_coalesced():
        x = x.coalesce()
    x = stored_values(x)
    if not (x.is_floating_point() or x.is_complex()) or x.itemsize == 1:
        x = x.float()
    return x


def _norms(group: Sequence[Tensor]) -> tuple[Tensor, ...]:
    half = group[0].dtype in (torch.float16, torch.bfloat16)
    return tuple(torch._foreach_norm(list(group), 2, dtype=torch.float32 if half else None))
