"""The model's output before any sanitiser: a forward hook on the root, or whatever the step's gate is given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from brainbrr_debug.probes.ledger import Guard, Ledger
from brainbrr_debug.quantities import OUTPUT_SUM, ROOT_SITE
from brainbrr_debug.records import Reading
from brainbrr_debug.statistics import can_be_nonfinite, screen
from brainbrr_debug.tensors import leaves

KEPT = 1 << 20
"""Outputs of at most this many elements are kept until the end of the step; of larger ones only the latest is."""


class Outputs:
    """Screens every output of the step and keeps what is needed to confirm a trigger exactly."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._handle: RemovableHandle | None = None
        self.step: int | None = None  # None: between steps, as in a validation
        self.kept: list[tuple[Tensor | None, int]] = []  # (detached output or None if let go, version when seen)

    def attach(self, model: nn.Module, guard: Guard) -> None:
        """Start to see the outputs of `model`."""
        self._handle = model.register_forward_hook(guard(self._hook))

    def detach(self) -> None:
        """Remove the hook and forget everything."""
        if self._handle is not None:
            self._handle.remove()
        self._handle = None
        self.clear()

    def clear(self) -> None:
        """Forget the step."""
        self.step, self.kept = None, []

    def _hook(self, module: nn.Module, args: Any, output: Any) -> None:
        if self.step is not None and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            self.see(_without_loss(output))

    def see(self, output: Any) -> None:
        """Take the output of a micro-batch, tensors in any nesting; what the hook saw already is not taken twice."""
        for x in leaves(output):
            if can_be_nonfinite(x) and not self._seen(x):
                self._take(x.detach())

    def _seen(self, x: Tensor) -> bool:
        return any(
            old is not None
            and x._version == version
            and old.layout == x.layout == torch.strided
            and old.data_ptr() == x.data_ptr()
            and old.shape == x.shape
            and old.dtype == x.dtype
            for old, version in self.kept
        )

    def _take(self, x: Tensor) -> None:
        step = self.step if self.step is not None else -1
        self._ledger.defer(
            [screen(x)],
            lambda v: [Reading(step=step, phase="forward", site=ROOT_SITE, quantity=OUTPUT_SUM, value=v[0])],
            alarm=torch.isnan,
        )
        self.kept = [(old if old is None or old.numel() <= KEPT else None, version) for old, version in self.kept]
        self.kept.append((x, x._version))


def _without_loss(output: Any) -> Any:
    """Some models return their loss, alone or beside the logits; it is watched as the loss."""
    if isinstance(output, Tensor) and output.dim() == 0:
        return None
    return {name: x for name, x in output.items() if name != "loss"} if isinstance(output, Mapping) else output
