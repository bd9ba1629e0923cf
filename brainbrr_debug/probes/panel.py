"""All probes of one watch: attached, opened at the start of a step, and read together at its gate."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from brainbrr_debug.probes.decompositions import Decompositions
from brainbrr_debug.probes.gradients import see_learning_rates, see_norm
from brainbrr_debug.probes.ledger import Guard, Ledger
from brainbrr_debug.probes.loss import Losses
from brainbrr_debug.probes.modules import Sentinel
from brainbrr_debug.probes.outputs import Outputs
from brainbrr_debug.probes.state import States
from brainbrr_debug.records import Reading


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
        self._states = States(self.ledger, bare, optimizer, parameters, looks.state_period, meant)

    def attach(self, guard: Guard) -> None:
        """Install hooks and the recording decompositions."""
        self.outputs.attach(self._model, guard)
        self.decompositions.attach(guard)
        if self.sentinel is not None:
            self.sentinel.attach(self._bare, guard)

    def detach(self) -> None:
        """Remove every hook and replacement, and let go of all tensors."""
        self.outputs.detach()
        self.decompositions.detach()
        if self.sentinel is not None:
            self.sentinel.detach()
        self._states.clear()
        self.close()

    def open(self, step: int, samples: int | None) -> None:
        """From here on the hooks record, for `step` with micro-batches of `samples`."""
        self.close()
        self.outputs.step = self.decompositions.step = step
        self.decompositions.samples, self.decompositions.micro_batch = samples, 0
        if self.sentinel is not None:
            self.sentinel.step = step

    def pause(self) -> None:
        """The hooks record no longer; what they saw stays until `close`."""
        self.outputs.step = self.decompositions.step = None
        if self.sentinel is not None:
            self.sentinel.step = None

    def close(self) -> None:
        """Forget the step."""
        self.ledger.clear()
        self.losses.clear()
        self.outputs.clear()
        self.decompositions.clear()
        if self.sentinel is not None:
            self.sentinel.clear()

    def forward(self, output: Any, loss: Tensor, step: int) -> None:
        """A micro-batch's output and loss."""
        if output is not None:
            self.outputs.see(output)
        self.losses.see(loss, step)
        self.decompositions.micro_batch += 1

    def see_state(self, step: int) -> None:
        """Look through parameters, buffers and optimizer state in this step and not in turns."""
        self._states.see_all(step)

    def read_forward(self) -> list[Reading]:
        """What a step that an exception ended has shown so far."""
        self._finish()
        return self.ledger.read()

    def read(self, step: int, norm: Tensor) -> list[Reading]:
        """All readings of the step, `norm` (0-d) of its gradients among them, with one synchronisation."""
        see_norm(self.ledger, norm, step)
        see_learning_rates(self.ledger, self._optimizer, step)
        self._states.see(step)
        self._finish()
        return self.ledger.read()

    def _finish(self) -> None:
        self.decompositions.finish()
        if self.sentinel is not None:
            self.sentinel.finish()
        self.pause()
