"""What do the changes of a repair switch off, and does it come back? And what among them only hides a failure?

A feature is switched off where the model loses a module, or where a switch that stands for a component is set to
nothing. It comes back when the repair works without that one change: on the captured step, and in a short run. A repair
that is nothing but the switching off of what fails cannot pass: it avoids the failure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from brainbrr_debug.capture import CaptureContent
from brainbrr_debug.certificate import Criterion
from brainbrr_debug.judge import NonFiniteStep
from brainbrr_debug.oracle import Harm
from brainbrr_debug.questions.components import captured_value
from brainbrr_debug.records import Outcome
from brainbrr_debug.rng import preserved
from brainbrr_debug.subject import Subject
from brainbrr_debug.trial import Trial, captured_threads, observe
from brainbrr_debug.witness import Plan, Witness

SHORT = 50
"""Steps of a run in which a feature is back."""
NAME = "switched off"
REQUIRED = "each feature that the changes switch off comes back, one at a time, and nothing fails"
_NOTHING = (False, None, 0, "off", "none")


def switched_off(subject: Subject, seed: int, changes: Mapping[str, Any]) -> dict[str, str]:
    """The changes that switch a feature off, each with what the model loses by it."""
    if not changes:
        return {}
    known, found = subject.switches(), {}
    with preserved():
        left = {name for name, _ in subject.build(seed, dict(changes)).model.named_modules()}
        for name, value in changes.items():
            component = known[name].component if name in known else None
            whole = subject.build(seed, without(changes, name)).model.named_modules()
            lost = next((module for module, _ in whole if module not in left), None)
            if lost is not None:
                found[name] = lost
            elif component is not None and any(value is nothing or value == nothing for nothing in _NOTHING):
                found[name] = component
    return found


def returning(plan: Plan, content: CaptureContent | None, progress: Callable[[str], None]) -> Criterion:
    """Whether what the plan's changes switch off comes back without a failure; the first that does not ends it."""
    off = switched_off(plan.subject, plan.seed, plan.changes)
    if not off:
        measured = "not applicable: nothing was " + ("switched off" if plan.changes else "changed")
        return Criterion(name=NAME, required=REQUIRED, passed=None, measured=measured)
    for name, lost in off.items():
        progress(f"{name} comes back, and with it {lost}")
        failure = _fails(plan, without(plan.changes, name), content)
        if failure is not None:
            measured = f"{name}={plan.changes[name]} takes {lost} away, and with it back {failure}"
            return Criterion(name=NAME, required=REQUIRED, passed=False, measured=measured, evidence={"change": name})
    steps = min(SHORT, plan.steps)
    where = f"{'on the captured step and ' if content is not None else ''}in {steps} steps"
    measured = f"{', '.join(off)} came back one at a time {where}"
    return Criterion(name=NAME, required=REQUIRED, passed=True, measured=measured)


def hiding(plan: Plan) -> tuple[str, ...]:
    """The switches that the subject says only hide a failure, and that are turned: by the plan or from the start."""
    found = []
    for name, switch in plan.subject.switches().items():
        value = plan.changes.get(name, captured_value(plan.config, name))
        if switch.hides and (name in plan.changes or (name not in plan.changes and value == switch.safe)):
            found.append(f"{name}={value}")
    return tuple(found)


def without(changes: Mapping[str, Any], name: str) -> dict[str, Any]:
    """All changes but one."""
    return {key: value for key, value in changes.items() if key != name}


def _fails(plan: Plan, changes: Mapping[str, Any], content: CaptureContent | None) -> str | None:
    """How the captured step or a short run fails under `changes`; None where neither does."""
    if content is not None:
        known = plan.subject.switches()
        kept = all(known[name].keeps_weights for name in changes if name in known)
        trial = Trial(weights="before" if kept else "fresh", switches=tuple(changes.items()))
        objected = content.finding.evidence.get("nonfinite", ())
        with captured_threads(content), preserved():
            judged = Harm(outputs="logits" in objected)(observe(content, plan.subject, trial))
        if judged.outcome is Outcome.BAD:
            return f"the captured step fails again: {judged.reason}"
    short = Plan(
        subject=plan.subject, name=plan.name, seed=plan.seed, steps=min(SHORT, plan.steps), changes=dict(changes)
    )
    try:
        for _ in Witness(short, compared=2).steps():
            pass
    except NonFiniteStep as stop:
        return f"the run fails: {stop.finding.message}"
    return None
