"""What repairs it? Every turn of a switch that heals the captured step, least change first; and what only hides it.

What a candidate changes besides is measured: on the healthy batch, with the captured weights, its output and its
gradient are compared with those of the program as captured. Ranked are the fewest switches, those that keep the
weights, that switch nothing off, that leave the healthy output and then the healthy gradient as they are.

What is evident is refused here: what hides, and what does nothing but switch off the feature that fails. Of the others
the first is proved by a training (see prove.py), and the next where that is refused.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from brainbrr_debug.capture import CaptureContent
from brainbrr_debug.lead import Passing
from brainbrr_debug.probes.alterations import Alterations
from brainbrr_debug.questions.components import Components
from brainbrr_debug.questions.switched_off import taken_away
from brainbrr_debug.recipe import of_capture
from brainbrr_debug.subject import Subject, step_of
from brainbrr_debug.tensors import leaves
from brainbrr_debug.trial import Trial, Weights, caused_by_nonfinite, prepare
from brainbrr_debug.trials import Skipped, Trials

Switches = tuple[tuple[str, Any], ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """A job: what turning `switches` changes besides the failure.

    Its value: `output` and `gradient`, how far those of the healthy batch move, in shares of their size (None: there is
    no healthy batch, or they cannot be compared); `altered`, the values that sanitisers altered in the captured step;
    `takes_away`, the switches that take a feature away, each with its name.
    """

    switches: Switches
    weights: Weights = "before"

    def __call__(self, content: CaptureContent, subject: Subject) -> dict[str, Any]:
        """Measure it."""
        here = Trial(weights=self.weights, switches=self.switches)
        output: float | None = None
        gradient: float | None = None
        if content.healthy_micro_batches and self.weights == "before":
            as_captured, turned = _healthy(content, subject, ()), _healthy(content, subject, self.switches)
            output, gradient = _apart(as_captured[0], turned[0]), _apart(as_captured[1], turned[1])
        return {
            "output": output,
            "gradient": gradient,
            "altered": _altered(content, subject, here),
            "takes_away": taken_away(of_capture(content, subject, dict(self.switches))),
        }


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """A candidate: what it changes, what the captured step says to it, and what it changes besides.

    `safe`: every switch is at its safe value. `reason` is the oracle's.
    """

    changes: Mapping[str, Any]
    heals: bool
    hides: bool
    weights: str
    description: str
    safe: bool
    reason: str
    effect: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def refused(self) -> str:
        """What is evident without a training."""
        if self.hides:
            altered = self.effect.get("altered")
            seen = f"alters {altered} values of the captured step" if altered else "alters values by what it says"
            return f"hides the failure: it {seen}" if self.heals else f"hides the failure at best: {self.reason}"
        away = self.effect.get("takes_away", {})
        if len(self.changes) == 1 and away:
            (name,) = away.values()
            return f"avoids the failure: it takes {name} away, and with it back the captured step fails"
        return ""

    def rank(self) -> tuple[Any, ...]:
        """Smallest first; see the module's docstring."""
        moved = [self.effect.get(part) for part in ("output", "gradient")]
        apart = [math.inf if x is None else float(x) for x in moved]
        kept = self.weights == "before"
        away = len(self.effect.get("takes_away", {}))
        return (self.hides, not self.heals, len(self.changes), not kept, away, *apart, not self.safe)

    def row(self) -> dict[str, Any]:
        """As it stands in a verdict, not yet proved."""
        return {
            "changes": dict(self.changes),
            "heals": self.heals,
            "hides": self.hides,
            "proved": False,
            "refused": self.refused or "not proved: no training was asked for",
            "evident": bool(self.refused),
            "certificate": None,
            "tried_on": self.weights,
            "description": self.description,
            "effect": dict(self.effect),
        }


def which_repairs(trials: Trials, component: Components) -> tuple[Repair, ...]:
    """Every candidate, the best first; those that heal with their effect."""
    found = [
        dataclasses.replace(repair, effect=_effect(trials, tuple(repair.changes.items()), repair.weights))
        if repair.heals
        else repair
        for repair in candidates(trials.subject, component)
    ]
    return tuple(sorted(found, key=Repair.rank))


def candidates(subject: Subject, component: Components) -> tuple[Repair, ...]:
    """What healed alone, what heals only together, and what hides; as far as can be told without more trials."""
    found = [
        Repair(
            changes={t.name: t.value},
            heals=t.heals,
            hides=t.switch.hides,
            weights=t.weights,
            description=t.switch.description,
            safe=t.value == t.switch.safe,
            reason=t.result.reason,
        )
        for t in component.tried
        if t.result is not None and not t.skipped and (t.heals or t.switch.hides)
    ]
    if component.together:
        known = subject.switches()
        turned = {name: known[name] for name in component.together}
        found.append(
            Repair(
                changes={name: switch.safe for name, switch in turned.items()},
                heals=True,
                hides=any(switch.hides for switch in turned.values()),
                weights="before",
                description="; ".join(switch.description for switch in turned.values() if switch.description),
                safe=True,
                reason="heals together",
            )
        )
    return tuple(sorted(found, key=Repair.rank))


def _effect(trials: Trials, switches: Switches, weights: str) -> Mapping[str, Any]:
    """What was measured, or why it could not be."""
    job = Effect(switches=switches, weights="before" if weights == "before" else "fresh")
    try:
        measured: Mapping[str, Any] = trials.run("repair", job)
    except Skipped as reason:
        return {"skipped": str(reason)}
    return measured


class _Look:
    """A gate that keeps outputs and gradients, and lets nothing be updated."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._model = model
        self.outputs: dict[str, Tensor] = {}
        self.gradients_: dict[str, Tensor] = {}

    def forward(self, output: Any, loss: Tensor) -> None:
        """Keep the output."""
        for x in leaves(output):
            self.outputs[str(len(self.outputs))] = x.detach().double()

    def gradients(self, norm: Tensor | None = None) -> bool:
        """Keep the gradients."""
        named = self._model.named_parameters()
        self.gradients_ = {name: p.grad.detach().double() for name, p in named if p.grad is not None}
        return False


def _healthy(
    content: CaptureContent, subject: Subject, switches: Switches
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    run, batches, _ = prepare(content, subject, Trial(switches=switches, healthy_batch=True))
    look = _Look(run.model)
    step_of(run)(batches, look)
    return look.outputs, look.gradients_


def _apart(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float | None:
    """How far `b` is from `a`, in shares of the norm of `a`; what only one of them has counts whole."""
    if any(a[name].shape != b[name].shape for name in a.keys() & b.keys()):
        return None
    size = math.hypot(*(float(x.norm()) for x in a.values()))
    parts = [float((b[name] - a[name]).norm()) for name in a.keys() & b.keys()]
    parts += [float(one[name].norm()) for one, other in ((a, b), (b, a)) for name in one.keys() - other.keys()]
    apart = math.hypot(*parts)
    return apart / size if size > 0 and math.isfinite(apart / size) else None


def _altered(content: CaptureContent, subject: Subject, trial: Trial) -> int:
    """Values that sanitisers alter in the captured step."""
    run, batches, _ = prepare(content, subject, trial)
    seen = Alterations(run.model)
    try:
        with seen.watching():
            step_of(run)(batches, Passing())
    except (RuntimeError, ValueError, ArithmeticError) as error:
        if not caused_by_nonfinite(error):
            raise
    return sum(found.nonfinite + found.held for found in seen.read())
