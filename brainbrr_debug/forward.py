"""From a snapshot forward to the step in which the damage was done: the capture that could not be written then."""

from __future__ import annotations

import dataclasses

import torch

from brainbrr_debug.capture import CaptureContent, restore
from brainbrr_debug.errors import CannotRunHere
from brainbrr_debug.lead import LeadStep, Passing, set_options
from brainbrr_debug.observation import Observation
from brainbrr_debug.oracle import harm
from brainbrr_debug.records import Outcome
from brainbrr_debug.rerun import state_copy, watched_step
from brainbrr_debug.rng import preserved
from brainbrr_debug.subject import Run, Subject
from brainbrr_debug.training_state import TrainingState
from brainbrr_debug.trial import captured_threads, moved, one_line


def forwarded(content: CaptureContent, subject: Subject) -> CaptureContent:
    """The capture of the first step of the lead-in that does harm, else of the captured step; without lead-in itself.

    Where no step does harm the content is returned as it is: the failure does not reproduce. Global generators are left
    as they were. Raises CannotRunHere when a step breaks down for other reasons than numbers.
    """
    if not content.lead_in:
        return content
    with captured_threads(content), preserved():
        run = subject.build(content.seed, {})
        restore(content, run)
        before: LeadStep | None = None
        for step in (*content.lead_in, _captured_step(content)):
            set_options(run.optimizer, step.groups)
            state = state_copy(run)
            seen = _play(run, step)
            if seen is not None and harm(seen).outcome is Outcome.BAD:
                return _content(content, step, before, state, seen)
            before = step if seen is not None else before
    return content


def _captured_step(content: CaptureContent) -> LeadStep:
    return LeadStep(
        step=content.step,
        micro_batches=content.micro_batches,
        identities=content.identities,
        rng=content.rng,
        groups=[dict(group) for group in content.optimizer_state["param_groups"]],
        updated=True,
    )


def _play(run: Run, step: LeadStep) -> Observation | None:
    """What the step showed; None for one whose update was dropped: it was found then, and did no harm."""
    device = next((p.device for p in run.model.parameters()), torch.device("cpu"))
    batches = moved(step.micro_batches, device)
    try:
        if step.updated:
            return watched_step(run, batches, lambda gate: step.play(run, gate, batches))
        step.play(run, Passing(updated=False), batches)
    except (RuntimeError, ValueError, ArithmeticError) as error:
        raise CannotRunHere(f"step {step.step} of the lead-in does not run here: {one_line(error)}") from error
    return None


def _content(
    content: CaptureContent, step: LeadStep, before: LeadStep | None, state: TrainingState, seen: Observation
) -> CaptureContent:
    found = content.finding
    evidence = {"state_nonfinite": list(seen.state_nonfinite), "gradient_nonfinite": list(seen.gradients_nonfinite)}
    message = f"step {step.step}: {harm(seen).reason}; found in step {content.step}: {found.message}"
    finding = dataclasses.replace(found, message=message, step=step.step, evidence=evidence)
    healthy = (content.healthy_micro_batches, content.healthy_identities)
    if before is not None:
        healthy = (before.micro_batches, before.identities)
    return dataclasses.replace(
        content,
        step=step.step,
        finding=finding,
        micro_batches=step.micro_batches,
        identities=step.identities,
        healthy_micro_batches=healthy[0],
        healthy_identities=healthy[1],
        model_state=state.model,
        optimizer_state=state.optimizer,
        extra_state=state.extra,
        rng=step.rng,
        readings=tuple(reading for reading in content.readings if reading.step <= step.step),
        expected=dict(seen.fingerprint or {}),
        lead_in=(),
    )
