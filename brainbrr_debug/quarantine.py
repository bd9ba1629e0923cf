"""A step that updates nothing because the device says so: no host has to read anything before it.

Fused optimizers take a flag, `found_inf`, with which a loss scaler makes their update a no-op. Here the flag is the
watch's own alarm.
"""

from __future__ import annotations

import torch
from torch import Tensor


class Quarantine:
    """Holds back the updates of `optimizer`. Raises ValueError for one that does not take `found_inf`.

    `scaled` says that an enabled GradScaler drives the optimizer.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, *, policy: str, scaled: bool) -> None:
        if policy not in ("stop", "skip"):
            raise ValueError(f"quarantine holds back what policy {policy!r} lets pass; expected policy stop or skip")
        if scaled:
            raise ValueError(
                "quarantine is on and a GradScaler is in charge of found_inf; expected one of them: the scaler keeps "
                "steps that are not finite from the parameters already, so leave quarantine off"
            )
        fused = all(group.get("fused") for group in optimizer.param_groups)
        if not (fused and getattr(optimizer, "_step_supports_amp_scaling", False)):
            raise ValueError(
                f"quarantine is on and {type(optimizer).__name__} does not take found_inf; expected a fused optimizer "
                "(Adam, AdamW, SGD or Adagrad with fused=True), or leave quarantine off"
            )
        self._optimizer = optimizer
        self._stateless: list[Tensor] = []

    def hold(self, alarm: Tensor) -> None:
        """Before the update: it shall change nothing where `alarm`, 0-d float32, is 1."""
        state = self._optimizer.state
        self._stateless = [p for group in self._optimizer.param_groups for p in group["params"] if p not in state]
        self._optimizer.found_inf = alarm  # type: ignore[attr-defined]

    def release(self, *, held: bool) -> None:
        """After the update; `held` says whether the alarm rang."""
        del self._optimizer.found_inf  # type: ignore[attr-defined]
        if held:  # the first update makes the state before it looks at the flag, and SGD leaves its memory as it was
            for parameter in self._stateless:
                self._optimizer.state.pop(parameter, None)
        self._stateless = []
