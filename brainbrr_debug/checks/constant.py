"""Outputs that no longer depend on the input, and losses that a constant would have. Imports no torch."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterator, Sequence

from brainbrr_debug.checks.steps import Step
from brainbrr_debug.quantities import BASELINE_CONSTANT, BASELINE_LOSS, BASELINE_ZEROS, INPUTS_DIFFER, SPREAD
from brainbrr_debug.records import Finding, Severity

CONSTANT = "run.constant_predictor"

SAME = 1e-5
"""Samples whose outputs differ by less than this share of the largest magnitude have one output."""
EQUAL = 1e-6
"""Losses that differ by less than this share are one loss."""
NO_BETTER = 1e-3
"""A model has learned nothing as long as its loss is not this share below that of its own mean."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Sign:
    """What a sampled step shows (None: it cannot tell), and for how many samples and steps it must last."""

    where: str
    samples: int
    steps: int
    shows: Callable[[Step], bool | None]
    message: str
    why: str
    remedy: str


def _one_output(step: Step) -> bool | None:
    spreads, differ = step.values(SPREAD), step.values(INPUTS_DIFFER)
    if not spreads or not all(share > 0 for share in differ):
        return None
    return all(spread <= SAME for spread in spreads)


def _as_zeros(step: Step) -> bool | None:
    return _compared(step.values(BASELINE_LOSS), step.values(BASELINE_ZEROS), lambda a, b: abs(a - b) <= EQUAL * abs(b))


def _as_own_mean(step: Step) -> bool | None:
    losses, means = step.values(BASELINE_LOSS), step.values(BASELINE_CONSTANT)
    return _compared(losses, means, lambda a, b: a >= b - NO_BETTER * abs(b))


def _compared(a: Sequence[float], b: Sequence[float], holds: Callable[[float, float], bool]) -> bool | None:
    return all(holds(x, y) for x, y in zip(a, b, strict=True)) if a else None


SIGNS = (
    Sign(
        where="output",
        samples=3,
        steps=20,
        shows=_one_output,
        message="the output is the same for every sample, and the inputs differ",
        why="nothing of the input reaches the output: the model can learn no more than a constant",
        remedy="look at the statistics of the modules for the first whose output is zero, constant or saturated",
    ),
    Sign(
        where="loss of zeros",
        samples=3,
        steps=20,
        shows=_as_zeros,
        message="the loss is that of all-zero outputs",
        why="that is what sanitised outputs look like: each of them was replaced by zero",
        remedy="look at the output before anything sanitises it",
    ),
    Sign(
        where="loss of a constant",
        samples=10,
        steps=500,
        shows=_as_own_mean,
        message="the loss is no better than with the mean output for every sample",
        why="the model is a constant predictor: what tells samples apart does not help it",
        remedy="check labels against inputs, the learning rate, and whether gradients reach the first layers",
    ),
)


class Constancy:
    """Finds what SIGNS describe."""

    def __init__(self) -> None:
        self._since: dict[str, collections.deque[int]] = {
            sign.where: collections.deque(maxlen=sign.samples) for sign in SIGNS
        }
        self._first: dict[str, int] = {}

    def see(self, step: Step) -> Iterator[Finding]:
        """The findings of one step."""
        if not step.has(SPREAD):
            return
        for sign in SIGNS:
            shown = sign.shows(step)
            seen = self._since[sign.where]
            if shown is False:
                seen.clear()
            if not shown:
                continue
            if not seen:
                self._first[sign.where] = step.number
            seen.append(step.number)
            lasted = step.number - self._first[sign.where]
            if len(seen) == sign.samples and lasted >= sign.steps:
                yield Finding(
                    check=CONSTANT,
                    severity=Severity.P1,
                    message=f"step {step.number}: for {lasted} steps, {sign.message}",
                    where=sign.where,
                    step=step.number,
                    evidence={
                        quantity: list(step.values(quantity))
                        for quantity in (SPREAD, BASELINE_LOSS, BASELINE_ZEROS, BASELINE_CONSTANT)
                        if step.has(quantity)
                    },
                    why=sign.why,
                    remedy=sign.remedy,
                )
