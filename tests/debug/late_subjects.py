"""Programs whose optimizer does the damage in its own step, so that the next step begins with it."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping

import torch
from torch import nn

from brainbrr_debug.subject import Batch, Run

BIRTH = 5
"""The step in which it happens."""


class Late(nn.Module):
    """(B, 4) -> (B, 1). From a batch with a large first element on, `extra` gets a gradient, of zero."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 1)
        self.drop = nn.Dropout(0.25)
        self.extra = nn.Parameter(torch.ones(3, dtype=torch.float16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.drop(self.head(x)) + self.extra.detach().float().sum()
        return out + self.extra.float().sum() * 0 if x[0, 0] > 50 else out


class Vanishing:
    """Adam's ε is zero in float16, and so is the second moment: 0/0 in step BIRTH, in parameter `extra`."""

    def build(self, seed: int, switches: Mapping[str, object]) -> Run:
        torch.manual_seed(seed)
        model = Late()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        return Run(model, optimizer, nn.functional.mse_loss, self.batches())

    def batches(self) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(3)
        for step in itertools.count():
            x = torch.randn(6, 4, generator=generator)
            if step == BIRTH:
                x[0, 0] = 100.0
            yield (x,), torch.zeros(6, 1)

    def switches(self) -> Mapping[str, object]:
        return {}

    def identify(self, batch_index: int, sample_index: int) -> dict[str, int]:
        return {"batch": batch_index, "row": sample_index}


class Overflowing(Vanishing):
    """A gradient of 1e25 in step BIRTH: finite, but not its square, which stays in the optimizer's state unseen."""

    def build(self, seed: int, switches: Mapping[str, object]) -> Run:
        return dataclasses.replace(super().build(seed, switches), loss_fn=lambda out, weight: (out * weight).mean())

    def batches(self) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(3)
        for step in itertools.count():
            yield (torch.randn(6, 4, generator=generator),), torch.full((6, 1), 1e25 if step == BIRTH else 1.0)
