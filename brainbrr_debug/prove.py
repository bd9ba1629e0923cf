"""Proof that a training is healthy: so many steps under watch, held to six criteria; a certificate, or a refusal.

    switched off    what the changes switch off comes back, one at a time, and nothing fails
    finite          no value that is not finite, before any sanitiser
    untouched       no step skipped, no value altered by a sanitiser, a clamp or a loss scaler
    schedule        the learning rates are the scheduled ones
    input           the output depends on the input
    learns          the loss is significantly below that of the best constant predictor

A failure that something merely hides is refused like any other, because what is seen here is seen before it is hidden.
The first criterion that fails ends the training.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from brainbrr_debug.capture import CaptureContent
from brainbrr_debug.certificate import NAME, Certificate, Criterion
from brainbrr_debug.criteria import Criterial, Scheduled, Untouched, dependence, learning
from brainbrr_debug.errors import CannotRunHere
from brainbrr_debug.judge import NonFiniteStep
from brainbrr_debug.probes.alterations import Alteration
from brainbrr_debug.questions.switched_off import hiding, returning
from brainbrr_debug.recipe import breakdowns
from brainbrr_debug.records import dumps
from brainbrr_debug.rng import preserved
from brainbrr_debug.rundir import atomic_write
from brainbrr_debug.witness import Plan, Step, Witness

STEPS = 500
COMPARED = 100
"""So many of the last steps, a quarter at most, are compared with the constant predictor."""
SHOWN = 25
FINITE = "no loss, logit, gradient, parameter or optimizer state that is not finite, before any sanitiser"

Progress = Callable[[str], None]


class OutOfTime(Exception):
    """The time for a proof is up."""


def prove(
    plan: Plan,
    *,
    content: CaptureContent | None = None,
    deadline: float | None = None,
    progress: Progress = lambda line: None,
) -> Certificate:
    """Train as `plan` says, and issue or refuse its certificate; it is written into the plan's run directory.

    `content` is the captured step that the changes are to repair. Global generators are left as they were. Raises
    CannotRunHere where the subject breaks down for other reasons than numbers, OutOfTime after `deadline` (of
    time.monotonic).
    """
    started = time.monotonic()
    proof = _Proof(plan, deadline, progress)
    with preserved(), breakdowns(plan.recipe.name):
        proof.hold(content)
    failed = next((c for c in proof.criteria if c.passed is False), None)
    hidden = () if failed is None else proof.hidden(failed)
    certificate = Certificate(
        granted=failed is None,
        hides=bool(hidden),
        reason=_granted(proof) if failed is None else _refused(failed, hidden),
        subject=plan.recipe.name,
        seed=plan.recipe.seed,
        changes=dict(plan.recipe.changes),
        steps=proof.done,
        of=plan.steps,
        criteria=tuple(proof.criteria),
        run=None if plan.run_dir is None else str(plan.run_dir.path),
        seconds=round(time.monotonic() - started, 3),
    )
    if plan.run_dir is not None:
        with atomic_write(plan.run_dir.path / NAME) as file:
            file.write(dumps(certificate.to_dict(), indent=2) + "\n")
    return certificate


class _Proof:
    """The criteria so far, and the steps done."""

    def __init__(self, plan: Plan, deadline: float | None, progress: Progress) -> None:
        self.plan, self._deadline, self._progress = plan, deadline, progress
        self.criteria: list[Criterion] = []
        self.done = 0
        self._altered: tuple[Alteration, ...] = ()  # in the last step

    def hold(self, content: CaptureContent | None) -> None:
        """Ask for everything, until something fails."""
        self.criteria.append(returning(self.plan, content, self._progress))
        if self.criteria[-1].passed is False:
            return
        witness = Witness(self.plan, compared=max(2, min(COMPARED, self.plan.steps // 4)))
        ongoing = (Untouched(self.plan.steps, witness.growth_interval), Scheduled())
        wrong = self._train(witness, ongoing)
        if wrong is not None:
            self.criteria.append(wrong)
            return
        passes = f", {witness.passes} passes over the batches" if witness.passes > 1 else ""
        self.criteria += [
            Criterion(name="finite", required=FINITE, passed=True, measured=f"{self.done} steps{passes}, all finite"),
            *(Criterion(name=c.name, required=c.required, passed=True, measured=c.measured()) for c in ongoing),
            dependence(witness),
            learning(witness),
        ]

    def hidden(self, failed: Criterion) -> tuple[str, ...]:
        """What would have kept this failure from showing: what acted, else what the subject says would have."""
        if failed.name not in ("finite", "untouched"):
            return ()
        acted = (
            ["the sanitiser" if any(found.nonfinite for found in self._altered) else "the clamp"]
            if self._altered
            else []
        )
        return hiding(self.plan.recipe) or tuple(acted)

    def _train(self, witness: Witness, ongoing: Sequence[Criterial]) -> Criterion | None:
        """All steps; the criterion that failed, if one did."""
        try:
            for step in witness.steps():
                self.done, self._altered = step.number + 1, step.altered
                self._tell(step)
                for criterion in ongoing:
                    wrong = criterion.see(step)
                    if wrong is not None:
                        return Criterion(name=criterion.name, required=criterion.required, passed=False, measured=wrong)
                if self._deadline is not None and time.monotonic() > self._deadline:
                    raise OutOfTime(f"the time was up after {self.done} of {self.plan.steps} steps")
        except NonFiniteStep as stop:
            evidence = {} if stop.capture_path is None else {"capture": str(stop.capture_path)}
            measured = stop.finding.message
            return Criterion(name="finite", required=FINITE, passed=False, measured=measured, evidence=evidence)
        if self.done < self.plan.steps:
            raise CannotRunHere(
                f"the batches end after {self.done} of {self.plan.steps} steps, and a new run has "
                "none either; expected batches that can be drawn again"
            )
        return None

    def _tell(self, step: Step) -> None:
        if step.number % SHOWN == 0 or self.done == self.plan.steps:
            rate = f"lr {step.rates[0]:.3g}" if step.rates else ""
            self._progress(f"step {self.done:>6}/{self.plan.steps}  loss {step.loss:<10.4g}  {rate}".rstrip())


def _granted(proof: _Proof) -> str:
    passed = sum(c.passed is True for c in proof.criteria)
    return f"{proof.done} steps, {passed} criteria met, {len(proof.criteria) - passed} not applicable"


def _refused(failed: Criterion, hidden: Sequence[str]) -> str:
    hides = f"; {' and '.join(hidden)} hides the failure and does not repair it" if hidden else ""
    return f"{failed.name}: {failed.measured}{hides}"
