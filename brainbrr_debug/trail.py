"""Snapshots at intervals and the batches since: the way back to a step whose damage is older than the step itself.

A fault born inside the optimizer's step is seen when the parameters are damaged already. A snapshot and the steps since
then lead there again.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from brainbrr_debug.incident import Scene, healthy
from brainbrr_debug.lead import LeadStep
from brainbrr_debug.snapshot import StepStart
from brainbrr_debug.tensors import copied
from brainbrr_debug.training_state import TrainingState, collect_state


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Lead:
    """A snapshot and every step since then, as a capture holds them."""

    state: TrainingState
    steps: tuple[LeadStep, ...]


@dataclasses.dataclass(slots=True, kw_only=True)
class _Past:
    start: StepStart
    updated: bool


class Trail:
    """Takes a snapshot every `every` steps (0: never) and keeps references to the batches of the steps since.

    A snapshot is a copy in main memory: a device has none to spare, and the copy's time is divided by `every`. Beside
    it up to `every` batches stay alive, where the program put them.
    """

    def __init__(self, every: int) -> None:
        if every < 0:
            raise ValueError(f"snapshot_every is {every}; expected a number of steps, or 0 for no snapshots")
        self.every = every
        self._state: TrainingState | None = None
        self._past: list[_Past] = []

    def begin(self, scene: Scene) -> bool:
        """At the start of a step: a new snapshot where one is due; False where the state is not fit for one."""
        if not self.every:
            return True
        fit = True
        if self._state is None or len(self._past) >= self.every:
            fit = healthy(scene)
            if fit:
                self._take(scene)
            elif len(self._past) > self.every:
                self.clear()  # the damage was reported a step ago, and nobody stopped
        return fit

    def _take(self, scene: Scene) -> None:
        state = collect_state(scene.model, scene.optimizer, scene.extra_state, scene.buffers.values())
        self._state = TrainingState(
            model=copied(state.model, "cpu"), optimizer=copied(state.optimizer, "cpu"), extra=copied(state.extra, "cpu")
        )
        self._past = []

    def end(self, start: StepStart, *, updated: bool) -> None:
        """After a step, with what the gate said."""
        if self._state is not None:
            self._past.append(_Past(start=start, updated=updated))

    def clear(self) -> None:
        """Let go of everything."""
        self._state, self._past = None, []

    def lead(self) -> Lead | None:
        """The way from the last snapshot to the open step; None where there is none that can be gone."""
        if self._state is None or not self._past or self._written_into() is not None:
            return None
        return Lead(state=self._state, steps=tuple(_lead_step(past) for past in self._past))

    def way_back(self, checkpoints: Path | None) -> dict[str, Any]:
        """What a finding of damage older than its step says of the time before: in words, with the numbers of it.

        `checkpoints` is the folder that the run's checkpoints are in; None where the run has no directory.
        """
        first = self._past[0].start.step if self._past else None
        modified = self._written_into()
        if checkpoints is None:
            words = "no run directory to write a capture to"
        elif first is None:
            words = "no snapshot to run forward from: set snapshot_every, and the step that did it can be repeated"
        elif modified is not None:
            words = f"the batch of step {modified} was written into, so nothing can run forward from step {first}"
        else:
            words = f"captured from the snapshot of step {first} with the {len(self._past)} steps since"
        files = checkpoints.glob("[!.]*") if checkpoints else ()
        found = sorted(files, key=lambda path: path.stat().st_mtime)
        checkpoint = str(found[-1]) if found else None
        if checkpoint is not None and (first is None or modified is not None):
            words += f"; last checkpoint {checkpoint}"
        return {"way_back": words, "snapshot": first, "checkpoint": checkpoint}

    def _written_into(self) -> int | None:
        return next((past.start.step for past in self._past if past.start.batches.modified), None)


def _lead_step(past: _Past) -> LeadStep:
    return LeadStep(
        step=past.start.step,
        micro_batches=tuple(past.start.batches.micro_batches),
        identities=past.start.batches.named(),
        rng=past.start.rng,
        groups=past.start.groups,
        updated=past.updated,
    )
