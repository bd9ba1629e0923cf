"""What do the changes of a repair switch off, and does it come back? And what among them only hides a failure?

A feature is switched off where the model loses a module, or where a switch that stands for a component is set to
nothing. It comes back when the repair works without that one change: on the captured step, and in a short run. A repair
that is nothing but the switching off of what fails cannot pass: it avoids the failure.
"""

from __future__ import annotations

from collections.abc import Callable

from brainbrr_debug.capture import CaptureContent
from brainbrr_debug.certificate import Criterion
from brainbrr_debug.judge import NonFiniteStep
from brainbrr_debug.oracle import Harm
from brainbrr_debug.questions.components import captured_value
from brainbrr_debug.recipe import Recipe
from brainbrr_debug.records import Outcome
from brainbrr_debug.rng import preserved
from brainbrr_debug.trial import Trial, captured_threads, observe
from brainbrr_debug.witness import Plan, Witness

SHORT = 50
"""Steps of a run in which a feature is back."""
NAME = "switched off"
REQUIRED = "each feature that the changes switch off comes back, one at a time, and nothing fails"
_NOTHING = (False, None, 0, "off", "none")


def taken_away(recipe: Recipe) -> dict[str, str]:
    """The changes that switch a feature off, each with the module that the model loses by it."""
    if not recipe.changes:
        return {}
    known, found = recipe.subject.switches(), {}
    with preserved():
        left = {name for name, _ in recipe.build().model.named_modules()}
        for name, value in recipe.changes.items():
            component = known[name].component if name in known else None
            whole = recipe.without(name).build().model.named_modules()
            lost = next((module for module, _ in whole if module not in left), None)
            if lost is not None:
                found[name] = component or lost
            elif component is not None and value in _NOTHING:
                found[name] = component
    return found


def returning(plan: Plan, content: CaptureContent | None, progress: Callable[[str], None]) -> Criterion:
    """Whether what the changes switch off comes back without a failure; the first that does not ends it."""
    recipe, steps = plan.recipe, min(SHORT, plan.steps)
    off = taken_away(recipe)
    if not off:
        measured = "not applicable: nothing was " + ("switched off" if recipe.changes else "changed")
        return Criterion(name=NAME, required=REQUIRED, passed=None, measured=measured)
    for name, lost in off.items():
        progress(f"{name} comes back, and with it {lost}")
        failure = _fails(recipe.without(name), steps, content)
        if failure is not None:
            measured = f"{name}={recipe.changes[name]} takes {lost} away, and with it back {failure}"
            return Criterion(name=NAME, required=REQUIRED, passed=False, measured=measured, evidence={"change": name})
    where = f"{'on the captured step and ' if content is not None else ''}in {steps} steps"
    measured = f"{', '.join(off)} came back one at a time {where}"
    return Criterion(name=NAME, required=REQUIRED, passed=True, measured=measured)


def hiding(recipe: Recipe) -> tuple[str, ...]:
    """The switches that the subject says only hide a failure, and that are turned: by a change or from the start."""
    found = []
    for name, switch in recipe.subject.switches().items():
        value = recipe.changes.get(name, captured_value(recipe.config, name))
        if switch.hides and (name in recipe.changes or value == switch.safe):
            found.append(f"{name}={value}")
    return tuple(found)


def _fails(recipe: Recipe, steps: int, content: CaptureContent | None) -> str | None:
    """How the captured step or a short run fails; None where neither does."""
    if content is not None:
        known = recipe.subject.switches()
        kept = all(known[name].keeps_weights for name in recipe.changes if name in known)
        trial = Trial(weights="before" if kept else "fresh", switches=tuple(recipe.changes.items()))
        judge = Harm(outputs="logits" in content.finding.evidence.get("nonfinite", ()))
        with captured_threads(content), preserved():
            judged = judge(observe(content, recipe.subject, trial))
        if judged.outcome is Outcome.BAD:
            return f"the captured step fails again: {judged.reason}"
    try:
        for _ in Witness(Plan(recipe=recipe, steps=steps), compared=2).steps():
            pass
    except NonFiniteStep as stop:
        return f"the run fails: {stop.finding.message}"
    return None
