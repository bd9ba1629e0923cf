"""Updates that are none, or not the ones intended. Imports no torch."""

from __future__ import annotations

import collections
from collections.abc import Iterator

from brainbrr_debug.checks.steps import Step
from brainbrr_debug.quantities import (
    EXPECTED_RATE,
    GRADIENT_NORM,
    GRADIENT_NORM_DISCARDED,
    LEARNING_RATE,
    UNCHANGED,
)
from brainbrr_debug.records import Finding, Severity

SCHEDULE = "run.lr_schedule"
ZERO_GRADIENT = "run.zero_gradient"
NO_UPDATE = "run.no_update"
SKIPPED = "run.skipped_steps"

ZERO_RATES = 20
"""A schedule may begin or end at zero; so many steps in a row are a mistake."""
ZERO_GRADIENTS = 3
"""A batch without a label may have no gradient; so many in a row are a mistake."""
STILL = 2
"""Sampled updates in a row that change nothing."""
WINDOW, DISCARDED = 100, 20
"""A loss scaler finds its scale within some 16 steps, and then discards one in thousands."""


class LearningRate:
    """Finds rates that are not the scheduled ones, and a rate of zero that stays."""

    def __init__(self) -> None:
        self._zero = 0

    def see(self, step: Step) -> Iterator[Finding]:
        """The findings of one step."""
        rates = step.values(LEARNING_RATE)
        for reading in step.readings(EXPECTED_RATE):
            met = ", ".join(f"{rate:.6g}" for rate in rates)
            yield Finding(
                check=SCHEDULE,
                severity=Severity.P1,
                message=f"step {step.number}: the learning rate is {met}, the schedule says {reading.value:.6g}",
                where=reading.site,
                step=step.number,
                evidence={"rates": list(rates), "expected": reading.value},
                why="something else writes the rate, or the scheduler is stepped at another time than it was made for",
                remedy="step the scheduler once per update, or per epoch with its numbers in epochs; write no rate",
            )
        self._zero = self._zero + 1 if rates and not any(rates) else 0
        if self._zero >= ZERO_RATES:
            yield Finding(
                check=SCHEDULE,
                severity=Severity.P1,
                message=f"step {step.number}: the learning rate is zero for {self._zero} steps",
                where="zero",
                step=step.number,
                evidence={"steps": self._zero},
                why="no update changes anything",
                remedy="give the schedule the number of updates that the run makes",
            )


class Updates:
    """Finds gradients of zero, updates without effect, and loss scalers that discard too much."""

    def __init__(self) -> None:
        self._zero = self._still = 0
        self._moving: tuple[int, bool] = (-1, False)  # the last step, and whether it should have changed something
        self._discarded: collections.deque[bool] = collections.deque(maxlen=WINDOW)

    def see(self, step: Step) -> Iterator[Finding]:
        """The findings of one step."""
        yield from self._unchanged(step)
        norms = step.values(GRADIENT_NORM)
        self._moving = step.number, any(norm > 0 for norm in norms) and any(step.values(LEARNING_RATE))
        self._discarded.append(step.has(GRADIENT_NORM_DISCARDED))
        if norms:
            self._zero = 0 if any(norms) else self._zero + 1
        if self._zero >= ZERO_GRADIENTS:
            yield Finding(
                check=ZERO_GRADIENT,
                severity=Severity.P1,
                message=f"step {step.number}: every gradient is zero, for {self._zero} steps",
                where="gradient",
                step=step.number,
                evidence={"steps": self._zero},
                why="the loss does not depend on the parameters, or all of it underflows or is cut on the way",
                remedy="look for detach, no_grad, a saturated clamp or a dead activation; in float16, scale the loss",
            )
        discarded = sum(self._discarded)
        if discarded >= DISCARDED and self._discarded[-1]:
            yield Finding(
                check=SKIPPED,
                severity=Severity.P1,
                message=f"step {step.number}: the loss scaler discarded {discarded} of {len(self._discarded)} steps",
                where="scaler",
                step=step.number,
                evidence={"discarded": discarded, "of": len(self._discarded)},
                why="gradients overflow again and again: the scale does not settle, and those batches are not learned",
                remedy="find what overflows, keep it in float32 or bfloat16, or let the scale grow more slowly",
            )

    def _unchanged(self, step: Step) -> Iterator[Finding]:
        before, moving = self._moving
        for share in step.values(UNCHANGED):
            if before != step.number - 1 or not moving:
                continue  # nothing was to be expected of the update before
            self._still = self._still + 1 if share == 1 else 0
            if self._still >= STILL:
                yield Finding(
                    check=NO_UPDATE,
                    severity=Severity.P1,
                    message=f"step {step.number}: the update before changed no parameter, nor did the last one sampled",
                    where="optimizer",
                    step=step.number,
                    evidence={"sampled_in_a_row": self._still},
                    why="gradient and rate are not zero: the optimizer holds other parameters, or rounds it off",
                    remedy="make the optimizer of the final model; keep parameters in float32 where the rate is small",
                )
