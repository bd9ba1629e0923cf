"""A count that is kept on the device and read when somebody asks."""

from __future__ import annotations

import torch
from torch import Tensor


class Tally:
    """Adds up counts without a synchronisation of the device. Not part of a model's state: it never affects results."""

    def __init__(self) -> None:
        self._total: Tensor | None = None

    def add(self, count: Tensor) -> None:
        """Add a 0-dimensional integer tensor; the total lives where the last count lived."""
        count = count.detach()
        total = self._total
        self._total = count if total is None else total.to(count.device) + count

    def read(self) -> int:
        """The total so far."""
        return 0 if self._total is None else int(self._total.item())

    def reset(self) -> None:
        """Start again from 0."""
        self._total = None


def count(mask: Tensor) -> Tensor:
    """How many elements of a boolean tensor are true, as a 0-dimensional int64 tensor."""
    return mask.sum(dtype=torch.int64)
