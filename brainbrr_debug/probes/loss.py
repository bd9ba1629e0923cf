"""The loss of each micro-batch, kept on its device."""

from __future__ import annotations

from torch import Tensor

from brainbrr_debug.probes.ledger import Ledger, nonfinite
from brainbrr_debug.quantities import LOSS, LOSS_SITE
from brainbrr_debug.records import Reading


class Losses:
    """Holds the losses of one step, for the readings and for the capture's expectation."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.values: list[Tensor] = []

    def see(self, loss: Tensor, step: int) -> None:
        """Take the loss of a micro-batch; one that is not a scalar counts as its sum."""
        loss = loss.detach()
        loss = loss.reshape(()) if loss.numel() == 1 else loss.sum()
        self.values.append(loss)
        self._ledger.defer(
            [loss.real if loss.is_complex() else loss],
            lambda v: [Reading(step=step, phase="forward", site=LOSS_SITE, quantity=LOSS, value=v[0])],
            alarm=nonfinite,
        )

    def clear(self) -> None:
        """Forget the step."""
        self.values = []
