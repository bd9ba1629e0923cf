"""The moment before the update: everything a step has shown is read and judged, here or behind a quarantine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from brainbrr_debug.incident import Scene
from brainbrr_debug.judge import Judge
from brainbrr_debug.probes.panel import Panel
from brainbrr_debug.quarantine import Quarantine
from brainbrr_debug.records import Reading
from brainbrr_debug.snapshot import BufferCopies, StepStart
from brainbrr_debug.statistics import tensor_norms, total_norm


class Gate:
    """Lets the update of a step pass or not. `updated` says what became of the last one.

    With a `quarantine` every update passes and changes nothing where the device raises the alarm; `release` reads and
    judges behind it. `waiting` says that it has to be called.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        parameters: Mapping[str, Tensor],
        extra_state: Mapping[str, Any],
        buffers: BufferCopies,
        panel: Panel,
        judge: Judge,
        quarantine: Quarantine | None,
    ) -> None:
        self._model, self._optimizer, self._parameters = model, optimizer, parameters
        self._extra_state, self._buffers = extra_state, buffers
        self._panel, self._judge, self._quarantine = panel, judge, quarantine
        self._norms: dict[str, Tensor | None] = {}
        self._alarmed = False
        self.updated = self.waiting = False

    def decide(self, start: StepStart, norm: Tensor | None) -> bool:
        """True to go on with the update. Raises NonFiniteStep where the judge does."""
        if self._quarantine is not None:
            norms = tensor_norms([p.grad for p in self._parameters.values()])
            self._norms = dict(zip(self._parameters, norms, strict=True))
        if norm is None:  # the norm of norms is that of all
            norm = total_norm(self._norms.values() if self._norms else (p.grad for p in self._parameters.values()))
        self._judge.gradient_norm = self._judge.scaling.unscaled(norm.detach())
        self._panel.settle(start.step, self._judge.gradient_norm)
        if self._quarantine is not None:
            self._quarantine.hold(self._sound())
            self.waiting = True
            return True
        self._alarmed = self._judge.ranks.world == 1
        if not self._alarmed:
            self._sound()
        return self._judged(start)

    def release(self, start: StepStart) -> None:
        """Behind an update in quarantine: read what the device knew before it. Raises NonFiniteStep as `decide`."""
        self.waiting = False
        try:
            self._judged(start)
        finally:
            self._judge.counts["quarantined"] += self._alarmed
            self.updated &= not self._alarmed
            if self._quarantine is not None:
                self._quarantine.release(held=self._alarmed)

    def let_go(self) -> None:
        """At the end of the watch, in whatever way it came: no flag stays at the optimizer, no norm alive."""
        if self.waiting and self._quarantine is not None:
            self._quarantine.release(held=False)
        self.waiting, self._norms = False, {}

    def scene(self, start: StepStart) -> Scene:
        """The live objects, and what the probes hold of the step."""
        return Scene(
            model=self._model,
            optimizer=self._optimizer,
            parameters=self._parameters,
            extra_state=self._extra_state,
            buffers=self._buffers,
            start=start,
            outputs=self._panel.outputs.kept,
            losses=self._panel.losses.values,
            calls=self._panel.decompositions.calls,
            threshold=self._judge.eigengap,
            ranges=self._panel.ranges,
            gradient_norms=None if self._quarantine is None else self._norms,
        )

    def _judged(self, start: StepStart) -> bool:
        self.updated = False
        readings = self._panel.ledger.read()
        self.updated = self._judge.decide(self.scene(start), readings, alarmed=self._alarmed)
        return self.updated

    def _sound(self) -> Tensor:
        """The alarm of all ranks, on the device; whether it rang is known once the readings are read."""
        alarm = self._judge.ranks.loudest(self._panel.ledger.alarm())
        self._panel.ledger.defer([alarm], self._hear)
        return alarm

    def _hear(self, values: Sequence[float]) -> tuple[Reading, ...]:
        self._alarmed = bool(values[0])
        return ()
