"""A Subject, run from its seed until a step does harm: the capture for those who have none.

Slower than Watch by a copy of the state a step, and in return a fault that is born inside the optimizer's step is
caught in that step and not in the next.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from brainbrr_debug.capture import CaptureContent
from brainbrr_debug.environment import describe_environment
from brainbrr_debug.observation import Observation
from brainbrr_debug.oracle import harm
from brainbrr_debug.recorder import Recorder
from brainbrr_debug.records import Finding, Outcome, Reading, Severity
from brainbrr_debug.rng import RngState
from brainbrr_debug.samples import batch_size
from brainbrr_debug.subject import Batch, Gate, Run, Subject, grouped, set_rates, step_of
from brainbrr_debug.tensors import copied
from brainbrr_debug.training_state import TrainingState, collect_state, load_state
from brainbrr_debug.trial import caused_by_nonfinite, one_line

CANDIDATES = 4
"""So many later batches are tried when the very first step fails and nothing healthy went before. When all of them fail
the next one is kept: it then shows that every batch does."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rerun:
    """How far the run went, and the capture of the step that did harm; None when it stayed healthy."""

    steps: int
    content: CaptureContent | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Start:
    """What one step began with."""

    state: TrainingState
    rng: RngState
    batches: tuple[Batch, ...]


def run_until_harm(
    subject: Subject,
    name: str,
    *,
    seed: int = 0,
    max_steps: int | None = None,
    config: Mapping[str, Any] | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> Rerun:
    """Train until a step does harm, at most `max_steps`. Global random generators are left as they were."""
    generators = RngState.take()
    try:
        return _train(subject, name, seed, max_steps, dict(config or {}), progress)
    finally:
        generators.restore()


def _train(
    subject: Subject,
    name: str,
    seed: int,
    max_steps: int | None,
    config: dict[str, Any],
    progress: Callable[[str], None],
) -> Rerun:
    run = subject.build(seed, {})
    drawn = grouped(run)
    readings: list[Reading] = []
    healthy: tuple[int, tuple[Batch, ...]] | None = None
    step = -1
    for step, batches in enumerate(itertools.islice(drawn, max_steps)):
        set_rates(run, step)
        start = _Start(state=state_copy(run), rng=RngState.take(), batches=copied(batches))
        seen = _do(run, batches)
        readings += seen.readings(step)
        judgement = harm(seen)
        progress(f"step {step:>5}  loss {seen.loss:<10.4g}  |g| {seen.gradient_norm:<10.3g}  {judgement.reason}")
        if judgement.outcome is Outcome.BAD:
            if healthy is None:
                healthy = _later_healthy(run, start, drawn, step + 1)
            content = _capture(subject, name, seed, config, step, start, seen, readings, healthy, judgement.reason)
            return Rerun(steps=step + 1, content=content)
        healthy = (step, start.batches)
    return Rerun(steps=step + 1, content=None)


def watched_step(run: Run, micro_batches: Sequence[Batch], play: Callable[[Gate], None]) -> Observation:
    """What a step showed that `play` runs; an exception that a non-finite value caused is a part of it."""
    with Recorder(run, [batch_size(batch) for batch in micro_batches]) as recorder:
        try:
            play(recorder)
        except (RuntimeError, ValueError, ArithmeticError) as error:
            if not caused_by_nonfinite(error):
                raise
            return recorder.observation(error=one_line(error))
        return recorder.observation()


def state_copy(run: Run) -> TrainingState:
    """Copies of everything that a step of `run` depends on, the generators aside."""
    state = collect_state(run.model, run.optimizer, run.extra_state, dict(run.model.named_buffers()))
    return TrainingState(model=copied(state.model), optimizer=copied(state.optimizer), extra=copied(state.extra))


def _do(run: Run, batches: tuple[Batch, ...]) -> Observation:
    step = step_of(run)
    return watched_step(run, batches, lambda gate: step(batches, gate))


def _later_healthy(
    run: Run, start: _Start, drawn: Iterator[tuple[Batch, ...]], first: int
) -> tuple[int, tuple[Batch, ...]] | None:
    """The first of the next few batches with which the failing step would have been healthy; else the next."""
    first_of_all: tuple[int, tuple[Batch, ...]] | None = None
    for place, batches in enumerate(itertools.islice(drawn, CANDIDATES), start=first):
        load_state(start.state, run.model, run.optimizer, run.extra_state)
        start.rng.restore()
        kept = copied(batches)
        if harm(_do(run, batches)).outcome is Outcome.GOOD:
            return place, kept
        first_of_all = first_of_all or (place, kept)
    return first_of_all


def _capture(
    subject: Subject,
    name: str,
    seed: int,
    config: dict[str, Any],
    step: int,
    start: _Start,
    seen: Observation,
    readings: list[Reading],
    healthy: tuple[int, tuple[Batch, ...]] | None,
    reason: str,
) -> CaptureContent:
    return CaptureContent(
        step=step,
        subject=name,
        seed=seed,
        config=config,
        environment=describe_environment(),
        finding=Finding(
            check="run.nonfinite",
            severity=Severity.P0,
            message=f"step {step}: {reason}",
            step=step,
            evidence={
                "state_nonfinite": list(seen.state_nonfinite),
                "gradient_nonfinite": list(seen.gradients_nonfinite),
            },
        ),
        micro_batches=start.batches,
        healthy_micro_batches=None if healthy is None else healthy[1],
        identities=identities_of(subject, step, start.batches),
        healthy_identities=() if healthy is None else identities_of(subject, *healthy),
        model_state=start.state.model,
        optimizer_state=start.state.optimizer,
        extra_state=start.state.extra,
        rng=start.rng,
        readings=tuple(readings),
        expected=dict(seen.fingerprint or {}),
    )


def identities_of(subject: Subject, step: int, batches: tuple[Batch, ...]) -> tuple[tuple[dict[str, Any], ...], ...]:
    """For every sample of a step's micro-batches what the subject knows of it; empty where it knows nothing."""
    from brainbrr_debug.questions.culprits import ask_subject

    first = step * len(batches)
    rows = tuple(
        tuple(ask_subject(subject, first + place, index) for index in range(batch_size(batch) or 0))
        for place, batch in enumerate(batches)
    )
    return rows if any(any(row) for row in rows) else ()
