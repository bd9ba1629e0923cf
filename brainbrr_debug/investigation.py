"""From a failing step to its origin: trace it, try the suspects, explain what is left."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence

import torch

from brainbrr_debug.mechanisms import explain, sentence
from brainbrr_debug.records import Origin
from brainbrr_debug.tracing.events import Intervention, attention_to
from brainbrr_debug.tracing.evidence import Evidence
from brainbrr_debug.tracing.finiteness import kind_name
from brainbrr_debug.tracing.harm import Symptom
from brainbrr_debug.tracing.proof import Conviction, Court, suspect_first
from brainbrr_debug.tracing.reenactment import Reenactment, Replay, Stage

PATIENCE = 40.0  # seconds after which no further suspect is tried


@dataclasses.dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """The culprit of one step, why, and in how many replays that was found."""

    conviction: Conviction
    mechanism: str
    explanation: str
    replays: int

    def origin(self, step: int) -> Origin:
        """The record of it, for the step of this number."""
        event = self.conviction.event
        return Origin(
            healthy=False,
            step=step,
            phase=event.phase,
            module=event.module,
            op=event.op,
            node=event.node if event.phase == "backward" else None,
            kind=kind_name(event.found),
            location=None if event.phase == "data" else event.location,
            mechanism=self.mechanism,
            explanation=self.explanation,
            proof=self.conviction.proof,
            replays=self.replays,
        )


def investigate(stage: Stage) -> Diagnosis | None:
    """The culprit of a step; None if it does no harm. Raises the step's own exception if nothing bad caused it."""
    deadline = time.monotonic() + PATIENCE
    reenactment = Reenactment(stage)
    baseline = reenactment.replay()
    if baseline.healthy:
        return None
    conviction = Court(reenactment, baseline, deadline=deadline).convict()
    if baseline.error is not None and (conviction is None or conviction.proof != "healed"):
        raise baseline.error
    if conviction is None or _only_on_purpose(conviction, baseline.symptoms):
        return None
    event, replays = conviction.event, reenactment.count
    evidence = None
    if event.arrival is None and not event.deliberate:
        evidence = reenactment.replay(Intervention(**attention_to([event])), watched=event).evidence
    return _explained(reenactment, conviction, evidence, replays)


def without_proof(reenactment: Reenactment, first: Replay) -> Diagnosis | None:
    """The most suspicious event of a step that cannot be repeated; None if nothing in it became non-finite."""
    conviction = suspect_first(first)
    return None if conviction is None else _explained(reenactment, conviction, None, reenactment.count)


def not_reproduced(step: int, symptoms: Sequence[Symptom]) -> Origin:
    """What can be said when a failing step is healthy at its repetition."""
    return _without_place(
        step,
        symptoms,
        "but not when it was run again from the same state: something outside of model, optimizer, loss, batch and "
        "random generators decides.",
    )


def not_traced(step: int, symptoms: Sequence[Symptom], error: Exception) -> Origin:
    """What can be said when a failing step raises as soon as its operations are watched (some compiled regions do)."""
    told = f"{type(error).__name__}: {error}".splitlines()[0]
    return _without_place(step, symptoms, f"but cannot be run with its operations watched ({told:.200}).")


def _without_place(step: int, symptoms: Sequence[Symptom], why: str) -> Origin:
    seen = ", ".join(dict.fromkeys(f"{symptom.what} {symptom.name}".strip() for symptom in symptoms[:3]))
    return Origin(
        healthy=False,
        step=step,
        kind=kind_name(symptoms[0].found),
        mechanism="not-reproduced",
        explanation=f"Step {step} ended with a bad {seen}, {why}",
        proof="first event",
        replays=1,
    )


def _explained(reenactment: Reenactment, conviction: Conviction, evidence: Evidence | None, replays: int) -> Diagnosis:
    stage = reenactment.stage
    stage.start.restore()  # what arrived bad is shown as it arrived
    with torch.no_grad():
        told = explain(conviction.event, evidence, model=stage.model, optimizer=stage.optimizer, batches=stage.batches)
        explanation = sentence(conviction.event, told) + _company(conviction)
    return Diagnosis(conviction=conviction, mechanism=told.mechanism, explanation=explanation, replays=replays)


def _company(conviction: Conviction) -> str:
    """Who had to be made finite as well, and who was suspected before and is innocent."""
    said = ""
    culprit = conviction.event
    for introduction, events in (("Healed together with", conviction.together), ("Acquitted:", conviction.acquitted)):
        others = [event for event in events if event.site != culprit.site]
        names = dict.fromkeys(f"{event.node or event.op} in {event.module or 'the model'}" for event in others)
        if names:
            rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
            said += f" {introduction} {', '.join(list(names)[:3])}{rest}."
    return said


def _only_on_purpose(conviction: Conviction, symptoms: Sequence[Symptom]) -> bool:
    """A constant that somebody wrote into a buffer or a state on purpose (a mask of −inf) does no harm there."""
    return conviction.event.deliberate and all(s.what in ("buffer", "optimizer state") for s in symptoms)
