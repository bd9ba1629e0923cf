"""The historical clamp, made honest: it counts what it alters."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from brainbrr.models.tally import Tally, count


class Clamp(nn.Module):
    """Limits values to [low, high]; NaN stays NaN. Its gradient is zero where it alters a value."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        if not low < high:
            raise ValueError(f"clamp is [{low}, {high}]; expected low < high")
        self.low, self.high = low, high
        self.altered, self.seen = Tally(), Tally()

    def forward(self, x: Tensor) -> Tensor:
        """`x` of any shape → the same shape."""
        self.altered.add(count((x < self.low) | (x > self.high)))
        self.seen.add(torch.tensor(x.numel(), dtype=torch.int64))
        return x.clamp(self.low, self.high)

    def counters(self) -> dict[str, int]:
        """Values altered, and values seen, by name."""
        return {"altered": self.altered.read(), "seen": self.seen.read()}
