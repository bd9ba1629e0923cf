"""What a rule answers with, and the numbers it quotes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from brainbrr_debug.tracing.events import Event
from brainbrr_debug.tracing.finiteness import bad_elements, values


@dataclasses.dataclass(frozen=True, kw_only=True)
class Explanation:
    """A mechanism's identifier and what was seen, as the second half of a sentence."""

    mechanism: str
    seen: str


def real(tensor: torch.Tensor) -> torch.Tensor:
    """A real, double-precision copy for judging numbers: magnitudes of complex ones, values of sparse ones."""
    parts = values(tensor)
    part = parts[0] if parts else tensor.to_dense() if tensor.layout != torch.strided else tensor
    return part.abs().double() if part.is_complex() else part.double()


def extremes(tensor: torch.Tensor) -> str:
    """ "min … max" of the finite elements."""
    finite = real(tensor)
    finite = finite[torch.isfinite(finite)]
    return f"{finite.min():.4g} … {finite.max():.4g}" if finite.numel() else "nothing finite"


def largest(*tensors: torch.Tensor) -> float:
    """The largest finite magnitude in any of the tensors."""
    found = 0.0
    for tensor in tensors:
        finite = real(tensor).abs()
        finite = finite[torch.isfinite(finite)]
        found = max(found, float(finite.max()) if finite.numel() else 0.0)
    return found


def dtype_of(tensor: torch.Tensor) -> str:
    """ "float16", with the largest number it holds."""
    return f"{str(tensor.dtype).removeprefix('torch.')} (largest {torch.finfo(tensor.dtype).max:.4g})"


def how_many(event: Event) -> str:
    """ "3 elements"."""
    return f"{event.count} element" + ("" if event.count == 1 else "s")


def bad_in(tensors: Sequence[torch.Tensor]) -> torch.Tensor | None:
    """Mask of the bad elements of the first tensor that has any."""
    for tensor in tensors:
        for part in values(tensor):
            mask = bad_elements(part)
            if bool(mask.any()):
                return mask
    return None
