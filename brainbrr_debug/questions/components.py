"""Which component? Every switch of the subject, one at a time, on the captured step: at its safe value, and at every
other value that is not the captured one where the captured configuration tells which that is.

A switch that keeps the weights is tried with the captured ones, any other with those of the run's seed; that says
something only if the step fails with those, too, which the data-or-weights matrix has shown.
Judged by harm: a guarded gradient leaves the eigenvalues repeated and divides by none of their gaps.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from brainbrr_debug.oracle import Oracles
from brainbrr_debug.records import Origin, Outcome
from brainbrr_debug.search import fewest_that_heal
from brainbrr_debug.subject import Switch
from brainbrr_debug.trial import Trial, Weights
from brainbrr_debug.trials import Result, Trials

MAX_PAIRS_TRIALS = 40


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """One switch at one value, on which weights, and what came of it; `skipped` says why it was not tried."""

    name: str
    switch: Switch
    value: Any
    weights: str = ""
    result: Result | None = None
    skipped: str | None = None

    @property
    def heals(self) -> bool:
        """Whether turning it makes the step harmless."""
        return self.result is not None and self.result.outcome is Outcome.GOOD


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Components:
    """The culprit's module name (None: no switch points at one) and every switch that was or was not tried.

    `necessary`: taking the component away heals. `together` names the fewest switches that heal when none does alone.
    `disagreement` says in what switches and origin contradict each other.
    """

    component: str | None
    necessary: bool | None
    tried: tuple[Tried, ...]
    together: tuple[str, ...] = ()
    disagreement: str | None = None

    @property
    def healing(self) -> tuple[Tried, ...]:
        """The switches that heal by computing otherwise, not by altering values."""
        return tuple(t for t in self.tried if t.heals and not t.switch.hides)


def which_component(trials: Trials, oracles: Oracles, origin: Origin, *, fresh_fails: bool | None) -> Components:
    """Try every switch that applies, and choose the most specific component that heals and fits the origin."""
    tried = tuple(
        _try(trials, oracles, name, switch, value, fresh_fails)
        for name, switch in trials.subject.switches().items()
        for value in _values(switch, captured_value(trials.content.config, name, _MISSING))
    )
    healing = [t for t in tried if t.heals and not t.switch.hides]
    together: tuple[str, ...] = ()
    if not healing:
        together = _together(trials, oracles, [t for t in tried if t.result is not None and not t.switch.hides])
    component, disagreement = choose(healing, origin)
    necessary: bool | None = None
    if any(t.switch.component is not None and t.switch.component == component for t in healing):
        necessary = True
    elif component is not None and origin.proof == "healed":
        necessary = True  # the tracer took this one operation's bad elements away, and the harm was gone
    elif together or any(t.result is not None for t in tried):
        necessary = bool(together) or bool(healing)
    return Components(
        component=component, necessary=necessary, tried=tried, together=together, disagreement=disagreement
    )


def choose(healing: Sequence[Tried], origin: Origin) -> tuple[str | None, str | None]:
    """The component to blame, and how switches and origin disagree.

    The deepest healing component that contains the origin's module, or lies within it; else the origin's own module;
    else, without an origin, the deepest healing component.
    """
    components = list(dict.fromkeys(t.switch.component for t in healing if t.switch.component is not None))
    if origin.healthy or origin.module is None:
        return max(components, key=_depth, default=None), None
    fitting = [c for c in components if _contains(c, origin.module) or _contains(origin.module, c)]
    if fitting:
        return max(fitting, key=_depth), None
    if not components:
        return origin.module, None
    place = origin.module or "the root module"
    return origin.module, f"switching {components[0]} heals, but the operation lies in {place}"


def _values(switch: Switch, captured: Any) -> tuple[Any, ...]:
    """The values to try: the safe one, then the others, if it is known which of them the captured step had."""
    if captured is _MISSING or switch.applies is not None:
        return (switch.safe,)
    return (switch.safe, *(value for value in switch.values if value not in (switch.safe, captured)))


def _try(trials: Trials, oracles: Oracles, name: str, switch: Switch, value: Any, fresh_fails: bool | None) -> Tried:
    if switch.applies is not None:
        return Tried(name=name, switch=switch, value=value, skipped=switch.applies)
    if captured_value(trials.content.config, name, _MISSING) == value:
        return Tried(name=name, switch=switch, value=value, skipped=f"is {value!r} already")
    if not switch.keeps_weights and not fresh_fails:
        reason = "needs fresh weights, and with those the step does not fail anyway"
        return Tried(name=name, switch=switch, value=value, skipped=reason)
    weights: Weights = "before" if switch.keeps_weights else "fresh"
    trial = Trial(weights=weights, switches=((name, value),))
    result = trials.ask("component", trial, oracles.harm)
    skipped = result.reason if result.outcome is Outcome.SKIP else None
    return Tried(name=name, switch=switch, value=value, weights=weights, result=result, skipped=skipped)


def _together(trials: Trials, oracles: Oracles, tried: Sequence[Tried]) -> tuple[str, ...]:
    """The fewest switches that heal together; those that keep the weights only, so that all are tried alike."""
    usable = {t.name: t.switch for t in tried if t.switch.keeps_weights and t.value == t.switch.safe and not t.skipped}
    if len(usable) < 2:
        return ()

    def fails(names: tuple[str, ...]) -> bool | None:
        turned = tuple((name, usable[name].safe) for name in names)
        return trials.ask("component", Trial(switches=turned), oracles.harm).bad

    return fewest_that_heal(tuple(usable), fails, max_trials=MAX_PAIRS_TRIALS).minimal or ()


_MISSING = object()


def captured_value(config: Mapping[str, Any], name: str, default: Any = None) -> Any:
    """The value of a dotted key in nested plain values."""
    found: Any = config
    for part in name.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return default
        found = found[part]
    return found


def _depth(name: str) -> int:
    return name.count(".") + 1 if name else 0


def _contains(outer: str, inner: str) -> bool:
    return outer == "" or inner == outer or inner.startswith(outer + ".")
