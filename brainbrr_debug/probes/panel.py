"""All probes of one watch: attached, opened at the start of a step, and read together at its gate."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from brainbrr_debug.probes.decompositions import Decompositions
from brainbrr_debug.probes.dependence import Dependence
from brainbrr_debug.probes.gradients import schedule, see_expected_rates, see_learning_rates, see_norm
from brainbrr_debug.probes.ledger import Guard, Ledger
from brainbrr_debug.probes.loss import Losses
from brainbrr_debug.probes.modules import Sentinel
from brainbrr_debug.probes.outputs import Outputs
from brainbrr_debug.probes.ranges import Ranges
from brainbrr_debug.probes.state import States
from brainbrr_debug.probes.survey import Survey
from brainbrr_debug.probes.updates import Updates
from brainbrr_debug.records import Reading
from brainbrr_debug.snapshot import Batches
from brainbrr_debug.tensors import leaves


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Looks:
    """How closely a watch looks.

    `sentinel` sums every leaf module's output; parameters, buffers and optimizer state are looked through once in
    `state_period` steps. The first step and each `every`-th after it are sampled: statistics of every module, forward
    and backward (0: never). `ranges` is how many minima and maxima of every leaf module are kept on its device (0:
    none). Sampled steps ask `loss_fn` (output, target) → loss what zeros and the output's own mean would have scored.
    `learning_rate` gives the expected rate of a step; those of `schedulers` that have a `get_last_lr` are asked, too.
    """

    sentinel: bool = False
    state_period: int = 100
    every: int = 0
    ranges: int = 0
    loss_fn: Callable[[Any, Any], Tensor] | None = None
    learning_rate: Callable[[int], float] | None = None
    schedulers: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        for name, value in (("every", self.every), ("ranges", self.ranges)):
            if value < 0:
                raise ValueError(f"{name} is {value}; expected 0 (off) or more")


class Panel:
    """The probes. `bare` is the model without wrappers: its names are the ones that sites carry.

    Buffers named in `meant` hold infinities on purpose; it may grow.
    """

    def __init__(
        self,
        model: nn.Module,
        bare: nn.Module,
        optimizer: torch.optim.Optimizer,
        parameters: Mapping[str, Tensor],
        looks: Looks,
        meant: Collection[str] = (),
    ) -> None:
        self._model, self._bare, self._optimizer = model, bare, optimizer
        self.ledger = Ledger()
        self.losses = Losses(self.ledger)
        self.outputs = Outputs(self.ledger)
        self.decompositions = Decompositions(self.ledger, {id(m): name for name, m in bare.named_modules()})
        self.sentinel = Sentinel(self.ledger) if looks.sentinel else None
        self.ranges = Ranges(looks.ranges) if looks.ranges else None
        self._looks, self._turn, self._sampled = looks, 0, False
        self._batches: Batches | None = None
        self._outputs_before = 0  # those of earlier micro-batches
        self._survey = Survey(self.ledger, bare, model)
        self._dependence = Dependence(self.ledger, looks.loss_fn)
        self._updates = Updates(self.ledger)
        self._parameters = parameters
        self._expected = schedule(optimizer, looks.learning_rate, looks.schedulers)
        self._states = States(self.ledger, bare, optimizer, parameters, looks.state_period, meant)

    def attach(self, guard: Guard) -> None:
        """Install hooks and the recording decompositions."""
        guard = self._survey.attach(guard)
        self.outputs.attach(self._model, guard)
        self.decompositions.attach(guard)
        for probe in (self.sentinel, self.ranges):
            if probe is not None:
                probe.attach(self._bare, guard, self._model)
        # what the program gave may raise anything
        self._see_dependence, self._see_expected_rates = guard(self._dependence.see), guard(see_expected_rates)

    def detach(self) -> None:
        """Remove every hook and replacement, and let go of all tensors."""
        self.outputs.detach()
        self.decompositions.detach()
        for probe in (self.sentinel, self.ranges):
            if probe is not None:
                probe.detach()
        self._states.clear()
        self._updates.clear()
        self.close()

    def open(self, step: int, batches: Batches) -> None:
        """From here on the hooks record, for `step` with those micro-batches."""
        self.close()
        self._batches = batches
        self.outputs.step = self.decompositions.step = step
        self.decompositions.samples, self.decompositions.micro_batch = batches.samples(), 0
        if self.sentinel is not None:
            self.sentinel.step = step
        if self.ranges is not None:
            self.ranges.open(step)
        self._updates.see(step)
        self._sampled = self._looks.every > 0 and self._turn % self._looks.every == 0
        self._turn += 1
        if self._sampled:
            self._survey.open(step)

    def pause(self) -> None:
        """The hooks record no longer; what they saw stays until `close`."""
        self.outputs.step = self.decompositions.step = None
        for probe in (self.sentinel, self.ranges):
            if probe is not None:
                probe.step = None
        self._survey.pause()

    def close(self) -> None:
        """Forget the step."""
        self.ledger.clear()
        self.losses.clear()
        self.outputs.clear()
        self.decompositions.clear()
        if self.sentinel is not None:
            self.sentinel.clear()
        if self.ranges is not None:
            self.ranges.step = None
        self._survey.pause()
        self._batches, self._outputs_before = None, 0

    def forward(self, output: Any, loss: Tensor, step: int) -> None:
        """A micro-batch's output and loss."""
        if output is not None:
            self.outputs.see(output)
        self.losses.see(loss, step)
        if self._sampled:
            self._ask(output, step)
        self.decompositions.micro_batch += 1

    def see_state(self, step: int) -> None:
        """Look through parameters, buffers and optimizer state in this step and not in turns."""
        self._states.see_all(step)

    def _ask(self, output: Any, step: int) -> None:
        """Whether the output of the micro-batch that was just seen depends on its input."""
        kept = self.outputs.kept[self._outputs_before :]
        self._outputs_before = len(self.outputs.kept)
        seen = [x for x, version in kept if x is not None and x._version == version]
        batches, index = self._batches, self.decompositions.micro_batch
        if batches is not None and index < len(batches.micro_batches):
            found = list(leaves(output)) if output is not None else seen
            self._see_dependence(step, found, batches.micro_batches[index])

    @property
    def unseen(self) -> int:
        """Outputs that exist only inside a function transform, and modules that are compiled: neither was looked at."""
        return sum(probe.unseen for probe in (self.sentinel, self.ranges, self._survey) if probe is not None)

    def read_forward(self) -> list[Reading]:
        """What a step that an exception ended has shown so far."""
        self._finish()
        return self.ledger.read()

    def settle(self, step: int, norm: Tensor) -> None:
        """All is done but the update, and `norm` (0-d) is of the gradients: what was seen waits in the ledger."""
        see_norm(self.ledger, norm, step)
        see_learning_rates(self.ledger, self._optimizer, step)
        if self._expected is not None:
            self._see_expected_rates(self.ledger, self._optimizer, step, self._expected)
        if self._sampled:
            self._updates.take(self._parameters.values())
        self._states.see(step)
        self._finish()

    def _finish(self) -> None:
        self.decompositions.finish()
        if self.sentinel is not None:
            self.sentinel.finish()
        self.pause()
