"""Loss scaling: an overflow that the scaler discards is how it finds its scale, no incident until it repeats."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def find_scaler(extra_state: Mapping[str, Any]) -> torch.amp.GradScaler | None:
    """The enabled GradScaler among the objects of a run, if there is one."""
    for thing in extra_state.values():
        if isinstance(thing, torch.amp.GradScaler) and thing.is_enabled():
            return thing
    return None


class ScalerPatience:
    """Tolerates up to `patience` skipped steps in a row (each halves the scale), and none at a scale of 1 or less."""

    def __init__(self, scaler: torch.amp.GradScaler | None, optimizer: torch.optim.Optimizer, patience: int) -> None:
        self._scaler = scaler if scaler is not None and scaler.is_enabled() else None
        self._optimizer, self._patience = optimizer, patience
        self._in_a_row = 0
        self.skipped = 0

    @property
    def active(self) -> bool:
        """Whether there is a scaler."""
        return self._scaler is not None

    def unscaled(self, norm: Tensor) -> Tensor:
        """The norm of the gradients without the scale, where the loop has not called `scaler.unscale_` yet."""
        if self._scaler is None or self._scaler._scale is None:
            return norm
        state = self._scaler._per_optimizer_states.get(id(self._optimizer))
        if state is not None and state["stage"].name != "READY":
            return norm
        return norm / self._scaler._scale.to(norm.device)

    def tolerates(self) -> bool:
        """Called for a step of which only the gradient is not finite: True when the scaler may have its way."""
        if self._scaler is None:
            return False
        self._in_a_row += 1
        if self._in_a_row > self._patience or self._scaler.get_scale() <= 1:
            return False
        self.skipped += 1
        return True

    def reset(self) -> None:
        """A step went well."""
        self._in_a_row = 0
