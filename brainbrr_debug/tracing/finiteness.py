"""Which kinds of non-finite value a tensor holds, where, and how to make those elements finite.

Works for dense, sparse, complex, half and 8-bit floats, empty tensors and wrapper subclasses; integers and booleans
cannot hold a non-finite value and are always clean. Nothing here records an autograd graph when called under
`torch.no_grad()`, which every caller in this package does.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

NAN = 1
INF = 2

Kind = Literal["nan", "inf"]
Filling = Literal["varied", "zero"]

_GOLDEN = 0.6180339887498949  # multiples of it, modulo 1, never repeat: patched elements stay distinct


def values(tensor: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The dense tensors that hold the elements of `tensor`; empty when it cannot hold a non-finite value."""
    if not (tensor.is_floating_point() or tensor.is_complex()) or tensor.is_meta or tensor.is_quantized:
        return ()
    while torch._C._functorch.is_functorch_wrapped_tensor(tensor):  # levels of vmap and grad
        tensor = torch._C._functorch.get_unwrapped(tensor)
    if is_traceable_wrapper_subclass(tensor):
        inner = [getattr(tensor, name) for name in tensor.__tensor_flatten__()[0]]
        return tuple(part for leaf in inner for part in values(leaf))
    if tensor.layout in (torch.sparse_coo,):
        return (tensor._values(),)
    if tensor.layout in (torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc):
        return (tensor.values(),)
    if tensor.is_mkldnn:
        return (tensor.to_dense(),)
    return (tensor,)


def kinds(tensor: torch.Tensor) -> int:
    """NAN, INF, both or 0: the kinds of non-finite value among the elements of `tensor`."""
    found = 0
    for part in values(tensor):
        found |= _dense_kinds(part)
    return found


def kind_name(found: int) -> Kind:
    """ "nan" when there is any NaN, else "inf"."""
    return "nan" if found & NAN else "inf"


def bad_elements(part: torch.Tensor, which: int = NAN | INF) -> torch.Tensor:
    """Boolean mask of the elements of a dense `part` that are of the kinds `which`."""
    part = _readable(part)
    if which == NAN:
        return torch.isnan(part)
    if which == INF:
        return torch.isinf(part)
    return ~torch.isfinite(part)


def fill_finite_(part: torch.Tensor, mask: torch.Tensor, filling: Filling) -> None:
    """Overwrite the elements of `part` under `mask` in place.

    "varied" writes distinct values between 0.3 and 0.7, inside the domain of log, sqrt, division, acos and logit and
    without ties that would be degenerate themselves; "zero" writes zeros.
    """
    finite = torch.zeros_like(part, memory_format=torch.contiguous_format) if filling == "zero" else _varied(part)
    part.copy_(torch.where(mask, finite, part))


def writable(part: torch.Tensor) -> torch.Tensor:
    """The memory of a dense `part` as a tensor that can be written to: one made by `expand` or under inference mode
    cannot. Dimensions that repeat the same memory have size 1."""
    size = [1 if stride == 0 else length for length, stride in zip(part.shape, part.stride(), strict=True)]
    alias = torch.empty(0, dtype=part.dtype, device=part.device)
    return alias.set_(part.untyped_storage(), part.storage_offset(), size, part.stride())


def first_bad_index(part: torch.Tensor) -> tuple[int, ...]:
    """Coordinates of the first non-finite element of a dense tensor that has one."""
    flat = int(bad_elements(part).flatten().to(torch.uint8).argmax().item())
    index: list[int] = []
    for size in reversed(part.shape):
        flat, rest = divmod(flat, size)
        index.append(rest)
    return tuple(reversed(index))


def is_finite_number(number: complex) -> bool:
    """Whether a Python number (bool, int, float, complex) is finite."""
    if isinstance(number, complex):
        return math.isfinite(number.real) and math.isfinite(number.imag)
    return isinstance(number, int) or math.isfinite(number)


def _dense_kinds(part: torch.Tensor) -> int:
    if part.numel() == 0:
        return 0
    part = _readable(part)
    # A sum cannot be finite when an element is not, nor free of NaN when one is; finite elements may overflow it.
    total = (part.sum(dtype=torch.float32) if part.dtype in (torch.float16, torch.bfloat16) else part.sum()).item()
    if is_finite_number(total):
        return 0
    infinite = INF if bool(torch.isinf(part).any()) else 0
    return infinite | (NAN if total != total and bool(torch.isnan(part).any()) else 0)


def _readable(part: torch.Tensor) -> torch.Tensor:
    if part.dtype.itemsize == 1:  # 8-bit floats have no isnan
        return part.float()
    return part.resolve_conj() if part.is_complex() else part


def _varied(part: torch.Tensor) -> torch.Tensor:
    steps = torch.arange(1, part.numel() + 1, device=part.device, dtype=torch.float32)
    return steps.mul_(_GOLDEN).frac_().mul_(0.4).add_(0.3).to(part.dtype).view(part.shape)
