"""The total norm of the gradients before anything clips or sanitises them, and the learning rate they meet."""

from __future__ import annotations

import torch
from torch import Tensor

from brainbrr_debug.probes.ledger import Ledger
from brainbrr_debug.quantities import GRADIENT_NORM, LEARNING_RATE, OPTIMIZER_SITE, ROOT_SITE
from brainbrr_debug.records import Reading


def see_norm(ledger: Ledger, norm: Tensor, step: int) -> None:
    """Defer the total norm of the gradients, 0-d."""
    ledger.defer(
        [norm], lambda v: [Reading(step=step, phase="backward", site=ROOT_SITE, quantity=GRADIENT_NORM, value=v[0])]
    )


def see_learning_rates(ledger: Ledger, optimizer: torch.optim.Optimizer, step: int) -> None:
    """Defer the learning rate of every parameter group; groups with one rate count as one."""
    rates = [group["lr"] for group in optimizer.param_groups if "lr" in group]
    numbers = list(dict.fromkeys(float(rate) for rate in rates if not isinstance(rate, Tensor)))
    ledger.defer(
        [rate.reshape(()) for rate in rates if isinstance(rate, Tensor)],
        lambda v: [
            Reading(step=step, phase="optimizer", site=OPTIMIZER_SITE, quantity=LEARNING_RATE, value=rate)
            for rate in (*numbers, *v)
        ],
    )
