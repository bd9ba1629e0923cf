"""The total norm of the gradients before anything clips or sanitises them, and the learning rate they meet."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from brainbrr_debug.probes.ledger import Ledger, nonfinite
from brainbrr_debug.quantities import EXPECTED_RATE, GRADIENT_NORM, LEARNING_RATE, OPTIMIZER_SITE, ROOT_SITE
from brainbrr_debug.records import Reading


def see_norm(ledger: Ledger, norm: Tensor, step: int) -> None:
    """Defer the total norm of the gradients, 0-d."""
    ledger.defer(
        [norm],
        lambda v: [Reading(step=step, phase="backward", site=ROOT_SITE, quantity=GRADIENT_NORM, value=v[0])],
        alarm=nonfinite,
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


Expected = Callable[[int], Sequence[Any]]
"""Step → the learning rate of each parameter group from the first on, numbers or 0-d tensors."""


def schedule(
    optimizer: torch.optim.Optimizer, learning_rate: Callable[[int], float] | None, schedulers: Iterable[Any]
) -> Expected | None:
    """What the rates should be: `learning_rate` for the first group, else what a scheduler of `optimizer` says."""
    if learning_rate is not None:
        return lambda step: [learning_rate(step)]
    for scheduler in schedulers:
        groups = getattr(getattr(scheduler, "optimizer", None), "param_groups", None)
        if groups is optimizer.param_groups and hasattr(scheduler, "get_last_lr"):
            return lambda step, rates=scheduler.get_last_lr: rates()  # type: ignore[misc]
    return None


def see_expected_rates(ledger: Ledger, optimizer: torch.optim.Optimizer, step: int, expected: Expected) -> None:
    """Defer the expected rate of each group that has another one, beyond rounding."""
    for index, (group, rate) in enumerate(zip(optimizer.param_groups, expected(step), strict=False)):
        pair = (group["lr"], rate)
        site = OPTIMIZER_SITE if index == 0 else f"{OPTIMIZER_SITE}.{index}"
        if not any(isinstance(x, Tensor) for x in pair):
            if _differ(*pair):
                wanted = _expected(step, site, rate)
                ledger.defer([], lambda v, wanted=wanted: [wanted])  # type: ignore[misc]
            continue
        ledger.defer(
            [torch.as_tensor(x).reshape(()) for x in pair],
            lambda v, site=site: [_expected(step, site, v[1])] if _differ(*v) else [],  # type: ignore[misc]
        )


def _differ(actual: float, expected: float) -> bool:
    return abs(actual - expected) > 1e-6 * max(abs(actual), abs(expected))


def _expected(step: int, site: str, rate: float) -> Reading:
    return Reading(step=step, phase="optimizer", site=site, quantity=EXPECTED_RATE, value=rate)
