"""What a certificate asks of a training: some of every step, and what the whole of it came to."""

from __future__ import annotations

import math
from typing import ClassVar, Protocol

from brainbrr_debug.certificate import Criterion
from brainbrr_debug.checks.constant import SAME
from brainbrr_debug.checks.updates import ZERO_RATES
from brainbrr_debug.probes.alterations import Alteration
from brainbrr_debug.probes.contrast import contrast
from brainbrr_debug.quantities import OUTSIDE_SITE, ROOT_SITE
from brainbrr_debug.sentence import nearby
from brainbrr_debug.significance import below_zero
from brainbrr_debug.trial import moved
from brainbrr_debug.witness import Step, Witness

WARM_UP = 0.1
"""In this share of the steps a loss scaler may look for its scale, and a clamp may act on finite values."""
CHANCE = 0.001
"""The largest probability with which a loss may be below the constant predictor's by chance."""
_ROUNDING = 1e-6


class Criterial(Protocol):
    """One criterion over the steps of a training."""

    name: ClassVar[str]
    required: ClassVar[str]

    def see(self, step: Step) -> str | None:
        """Take a step; what is wrong with it, None while nothing is."""

    def measured(self) -> str:
        """What all steps came to, where nothing was wrong."""


class Untouched:
    """No step skipped, no value altered. `growth_interval` is that of the loss scaler, None without one.

    After the warm-up a scaler may discard one step each time it lets its scale grow: that is how it holds it.
    """

    name: ClassVar[str] = "untouched"
    required: ClassVar[str] = (
        "no step skipped, no non-finite value made finite; beyond the first tenth of the steps no clamp acts, and no "
        "step is discarded by the loss scaler but as its scale grows"
    )

    def __init__(self, steps: int, growth_interval: int | None) -> None:
        self.warm_up = math.ceil(WARM_UP * steps)
        self._growth_interval = growth_interval
        self._early = self._late = self._held = 0

    def see(self, step: Step) -> str | None:
        """Whether this step is as the program computed it."""
        for found in step.altered:
            if found.nonfinite:
                return f"step {step.number}: {found.nonfinite} values that were not finite were made finite{_at(found)}"
        held = [found for found in step.altered if found.held]
        self._held += sum(found.held for found in held)
        if held and step.number >= self.warm_up:
            return f"step {step.number}: {held[0].held} values were held at a bound by a clamp{_at(held[0])}"
        if step.discarded:
            return self._discarded(step)
        if not step.asked:
            return f"step {step.number}: the step did not ask its gate before the update, so that nobody saw it"
        return None if step.updated else f"step {step.number}: the optimizer made no update"

    def _discarded(self, step: Step) -> str | None:
        if step.number < self.warm_up:
            self._early += 1
            return None
        self._late += 1
        granted = 0 if self._growth_interval is None else (step.number + 1) // self._growth_interval
        if self._late <= granted:
            return None
        return f"step {step.number}: the loss scaler discarded the step, the {self._late}. after the warm-up"

    def measured(self) -> str:
        """What was let pass."""
        passed = [f"{self._early} steps discarded by the loss scaler in the first {self.warm_up}"] * bool(self._early)
        passed += [f"{self._late} as its scale grew"] * bool(self._late)
        passed += [f"{self._held} values held at a bound in the first {self.warm_up} steps"] * bool(self._held)
        return ", ".join(passed) or "every step updated, nothing altered"


class Scheduled:
    """The rates with which the optimizer updates are the scheduled ones; where no schedule is known, not zero."""

    name: ClassVar[str] = "schedule"
    required: ClassVar[str] = "the learning rate of every update is the scheduled one"

    def __init__(self) -> None:
        self._rates: list[float] = []
        self._zero = 0
        self._known = False

    def see(self, step: Step) -> str | None:
        """Whether this step's rates are right."""
        if not step.rates:
            return None
        self._known |= bool(step.expected)
        self._rates.append(step.rates[0])
        for rate, wanted in zip(step.rates, step.expected, strict=False):
            if not abs(rate - wanted) <= _ROUNDING * max(abs(rate), abs(wanted)):
                return f"step {step.number}: the learning rate is {rate:.6g}, the schedule says {wanted:.6g}"
        if not all(map(math.isfinite, step.rates)):
            return f"step {step.number}: the learning rate is {step.rates}"
        self._zero = 0 if any(step.rates) else self._zero + 1
        return (
            f"step {step.number}: the learning rate is zero for {ZERO_RATES} steps"
            if self._zero >= ZERO_RATES
            else None
        )

    def measured(self) -> str:
        """From where to where it went."""
        if not self._rates:
            return "the optimizer has no learning rate"
        low, high = min(self._rates), max(self._rates)
        went = f"constant at {low:.3g}" if low == high else f"{low:.3g} to {high:.3g}, {self._rates[-1]:.3g} at the end"
        return went if self._known else f"{went}; the subject declares no schedule"


def dependence(witness: Witness) -> Criterion:
    """Whether two unrelated inputs have different outputs when the training is over."""
    device = next((p.device for p in witness.run.model.parameters()), None)
    inputs = witness.inputs if device is None else [moved(((x, None),), device)[0][0] for x in witness.inputs]
    apart = contrast(witness.run.model, inputs)
    if apart is None:
        measured = "cannot be told: no two outputs of the first and the last batch can be compared"
        return Criterion(name="input", required=_DIFFER, passed=None, measured=measured)
    return Criterion(
        name="input",
        required=_DIFFER,
        passed=apart > SAME,
        measured=f"outputs for samples of the first and the last batch are {apart:.3g} of their magnitude apart",
        evidence={"apart": apart},
    )


_DIFFER = f"unrelated inputs have outputs that differ by more than {SAME:g} of their magnitude"


def learning(witness: Witness) -> Criterion:
    """Whether the last losses are significantly below those of the best constant predictor on the same batches."""
    losses, constant = witness.late.losses(), witness.late.constant_losses()
    told = "of the best constant output, found in hindsight on the same batches"
    if constant is None:
        losses, early = witness.losses[-witness.compared :], witness.losses[: witness.compared]
        constant = [sum(early) / len(early)] * len(losses)
        told = "of the first steps, because no constant can be put in the place of this output"
    test = below_zero([a - b for a, b in zip(losses, constant, strict=True)])
    ours, others = sum(losses) / len(losses), sum(constant) / len(constant)
    return Criterion(
        name="learns",
        required=_BELOW,
        passed=test.p < CHANCE,
        measured=f"mean loss of the last {len(losses)} batches {ours:.4g}, {others:.4g} {told}; difference: {test}",
        evidence={"loss": ours, "constant": others, "p": test.p, "batches": len(losses)},
    )


_BELOW = f"the loss is below that of a constant predictor, p < {CHANCE:g}"


def _at(found: Alteration) -> str:
    place = f" in {found.site}" if found.site not in (ROOT_SITE, OUTSIDE_SITE) else ""
    return place + (f" ({nearby(found.location)})" if found.location else "")
