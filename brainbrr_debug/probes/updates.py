"""Whether an update changed the parameters at all, from sums over their bits before and after it."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from brainbrr_debug.probes.ledger import Ledger
from brainbrr_debug.quantities import OPTIMIZER_SITE, UNCHANGED
from brainbrr_debug.records import Reading
from brainbrr_debug.statistics import elements

_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Updates:
    """`take` at the gate of a sampled step, `see` when the next step opens."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._before: list[tuple[Tensor, Tensor]] = []

    def take(self, parameters: Iterable[Tensor]) -> None:
        """Remember the bits of those that have a gradient."""
        self._before = [(p, _bits(p)) for p in parameters if p.grad is not None and p.numel()]

    def see(self, step: int) -> None:
        """Defer the share of them that are the same in `step`."""
        before, self._before = self._before, []
        if before:
            self._ledger.defer(
                [_bits(p).eq(bits).all() for p, bits in before],
                lambda v: [
                    Reading(
                        step=step, phase="optimizer", site=OPTIMIZER_SITE, quantity=UNCHANGED, value=sum(v) / len(v)
                    )
                ],
            )

    def clear(self) -> None:
        """Let go of the parameters."""
        self._before = []


def _bits(p: Tensor) -> Tensor:
    """Two sums over a parameter's elements, as integers and as they are (their bits), 1-d.

    The first changes with any single bit; signs that change in pairs escape it, and not the second.
    """
    x = elements(p)
    dtype = _INTEGERS[x.itemsize]
    return torch.stack((x.view(dtype).sum(dtype=dtype), x.sum().view(dtype)))
