"""Back to before a step, and forward again to the step that began what it suffers from: the capture made there.

The run begins at its last checkpoint before, where the Subject can load one, else at its seed. It is the same run only
as long as its losses are those that were read; where they are not, nothing is concluded.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch

from brainbrr_debug.capture import CaptureContent
from brainbrr_debug.jumps import largest_jump, magnitudes
from brainbrr_debug.observation import Observation
from brainbrr_debug.oracle import JUMP, Harm
from brainbrr_debug.quantities import LOSS
from brainbrr_debug.records import Finding, Outcome, Reading, Severity
from brainbrr_debug.rerun import identities_of, state_copy, watched_step
from brainbrr_debug.rng import RngState, preserved
from brainbrr_debug.subject import Batch, Run, Subject, grouped, set_rates, step_of
from brainbrr_debug.tensors import copied
from brainbrr_debug.training_state import TrainingState
from brainbrr_debug.trial import captured_threads, moved

BEGAN = "run.began"
PATIENCE = 60.0
"""Seconds that the way from the checkpoint or the seed may take, by what its first step takes."""
SAME = 1e-3
"""Relative difference of a loss from the one that was read, up to which it is the same run."""


class TooFar(Exception):
    """Why the way back was not gone, or led nowhere: a phrase."""


@runtime_checkable
class Resumable(Protocol):
    """A Subject that knows the checkpoints of its program."""

    def resume(self, checkpoint: Path) -> tuple[Run, int] | None:
        """The run as `checkpoint` left it, generators and the batches to come included, and its next step.

        None for a file that is none of its checkpoints, or of another configuration.
        """


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rewound:
    """The step in which it began, what it is to be looked for in (the captured step, where it began outside of any
    step), and in words how it was found.
    """

    step: int
    content: CaptureContent
    told: str


def rewind(
    content: CaptureContent,
    subject: Subject,
    readings: Sequence[Reading],
    *,
    last: int,
    checkpoints: Path | None = None,
) -> Rewound:
    """Run forward, up to step `last`, to the first step that does harm or makes a weight far too large. Raises TooFar.

    Global generators are left as they were.
    """
    with captured_threads(content), preserved():
        run, first, source = _start(content, subject, last, checkpoints)
        return _forward(content, subject, run, range(first, last + 1), source, _losses(readings))


def _start(content: CaptureContent, subject: Subject, last: int, checkpoints: Path | None) -> tuple[Run, int, str]:
    files = list(checkpoints.glob("[!.]*")) if checkpoints is not None and isinstance(subject, Resumable) else []
    best: tuple[Run, int, str] | None = None
    for path in sorted(files, key=lambda path: path.stat().st_mtime):
        found = subject.resume(path)  # type: ignore[attr-defined]
        if found is not None and found[1] <= last and (best is None or found[1] >= best[1]):
            best = (*found, f"checkpoint {path.name} (step {found[1]})")
    return best or (subject.build(content.seed, {}), 0, "the run's seed")


def _forward(
    content: CaptureContent, subject: Subject, run: Run, way: range, source: str, read: Mapping[int, float]
) -> Rewound:
    ended: dict[str, float] = {}
    before: tuple[Batch, ...] | None = None
    began = time.monotonic()
    for step, batches in _steps(run, way):
        start, generators, kept = state_copy(run), RngState.take(), copied(batches)
        factor, name = largest_jump(ended, magnitudes(run.model)) if ended else (1.0, "")
        if not factor < JUMP:
            outside = f"{name} became {factor:.3g} times as large before step {step}, in no step"
            return Rewound(step=step, content=content, told=f"from {source}: {outside}")
        seen = _do(run, batches)
        if seen.losses and not _agrees(seen.loss, read.get(step, seen.loss)):
            raise TooFar(f"the run from {source} goes another way: its loss at step {step} is {seen.loss:.4g}")
        told = Harm(jump=JUMP)(seen)
        if told.outcome is Outcome.BAD and step < content.step:
            made = _content(content, subject, step, start, generators, kept, before, seen, told.reason)
            return Rewound(step=step, content=made, told=f"from {source} it began at step {step}: {told.reason}")
        ended, before = magnitudes(run.model), kept
        left = (time.monotonic() - began) / (step - way.start + 1) * (way.stop - 1 - step)
        if left > PATIENCE:
            raise TooFar(f"{len(way)} steps from {source} would take about {left / 60:.0f} minutes")
    raise TooFar(f"from {source} no step up to {way.stop - 1} does harm by itself")


def _steps(run: Run, way: range) -> Iterator[tuple[int, tuple[Batch, ...]]]:
    device = next((p.device for p in run.model.parameters()), torch.device("cpu"))
    for step, batches in zip(way, grouped(run), strict=False):
        set_rates(run, step)
        yield step, moved(batches, device)


def _do(run: Run, batches: tuple[Batch, ...]) -> Observation:
    step = step_of(run)
    return watched_step(run, batches, lambda gate: step(batches, gate))


def _content(
    content: CaptureContent,
    subject: Subject,
    step: int,
    start: TrainingState,
    generators: RngState,
    batches: tuple[Batch, ...],
    before: tuple[Batch, ...] | None,
    seen: Observation,
    reason: str,
) -> CaptureContent:
    """The capture of `step`, as if the watch had stopped there."""
    healthy = (before, identities_of(subject, step - 1, before)) if before is not None else None
    evidence = {"jump": JUMP, "state_nonfinite": list(seen.state_nonfinite), "captured": content.step}
    return dataclasses.replace(
        content,
        step=step,
        finding=Finding(
            check=BEGAN, severity=Severity.P0, message=f"step {step}: {reason}", step=step, evidence=evidence
        ),
        micro_batches=batches,
        healthy_micro_batches=healthy[0] if healthy else content.healthy_micro_batches,
        identities=identities_of(subject, step, batches),
        healthy_identities=healthy[1] if healthy else content.healthy_identities,
        model_state=start.model,
        optimizer_state=start.optimizer,
        extra_state=start.extra,
        rng=generators,
        readings=tuple(r for r in content.readings if r.step <= step),
        expected=dict(seen.fingerprint or {}),
        lead_in=(),
    )


def _losses(readings: Sequence[Reading]) -> dict[int, float]:
    """The mean loss of every step that was read."""
    rows = itertools.groupby((r for r in readings if r.quantity == LOSS), key=lambda r: r.step)
    means = {step: [r.value for r in found] for step, found in rows}
    return {step: sum(values) / len(values) for step, values in means.items()}


def _agrees(loss: float, read: float) -> bool:
    return not math.isfinite(read) or not math.isfinite(loss) or abs(loss - read) <= SAME * max(abs(loss), abs(read))
