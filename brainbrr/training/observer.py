"""What the training loop tells whoever watches it. The loop knows this Protocol and nothing of who implements it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch

Batch = tuple[tuple[torch.Tensor, ...], torch.Tensor]  # ((signal (B, 19, L),), target (B, L))


class Gate(Protocol):
    """What one training step tells its observer."""

    def forward(self, output: torch.Tensor, loss: torch.Tensor) -> None:
        """After the forward pass of a micro-batch: logits (B, L) before any sanitiser, and the loss."""

    def gradients(self, norm: torch.Tensor | None = None) -> bool:
        """Before clipping and before the update, with the total norm of the gradients: True to go on."""


class Observer(Gate, Protocol):
    """Sees every step of a run."""

    def begin(
        self,
        micro_batches: Sequence[Batch],
        *,
        step: int | None = None,
        identities: Sequence[Sequence[Mapping[str, Any]]] | None = None,
    ) -> None:
        """At the start of a step: its batches, and for every sample where it comes from."""

    def end(self) -> None:
        """After the update."""

    def checkpoint(self) -> None:
        """Before a checkpoint takes the place of the last one."""


class Unobserved:
    """Sees nothing and lets everything pass."""

    def begin(
        self,
        micro_batches: Sequence[Batch],
        *,
        step: int | None = None,
        identities: Sequence[Sequence[Mapping[str, Any]]] | None = None,
    ) -> None:
        """Ignore the step."""

    def forward(self, output: torch.Tensor, loss: torch.Tensor) -> None:
        """Ignore the forward pass."""

    def gradients(self, norm: torch.Tensor | None = None) -> bool:
        """Go on."""
        return True

    def end(self) -> None:
        """Ignore the end."""

    def checkpoint(self) -> None:
        """Let it be written."""
