"""Parameters, buffers and the optimizer's state in turns: a slice of them every step, all within a fixed period."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from brainbrr_debug.probes.ledger import Ledger, objections
from brainbrr_debug.quantities import STATE_SUM
from brainbrr_debug.records import Reading
from brainbrr_debug.statistics import can_be_nonfinite, screen


def state_tensors(
    model: nn.Module, optimizer: torch.optim.Optimizer, parameters: Mapping[str, Tensor]
) -> Iterator[tuple[str, str, Tensor]]:
    """(phase, site, tensor) of all `parameters`, the model's buffers and every tensor of the optimizer's state."""
    names = {id(parameter): name for name, parameter in parameters.items()}
    for name, parameter in parameters.items():
        yield "forward", name, parameter
    for name, buffer in model.named_buffers():
        yield "forward", name, buffer
    for parameter, state in optimizer.state.items():
        if isinstance(state, Mapping):
            for key, value in state.items():
                if isinstance(value, Tensor):
                    yield "optimizer", f"{names.get(id(parameter), '?')}:{key}", value


class States:
    """Each step screens the next share, by elements, so that `period` steps see everything at even cost."""

    def __init__(
        self,
        ledger: Ledger,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        parameters: Mapping[str, Tensor],
        period: int,
    ) -> None:
        if period < 1:
            raise ValueError(f"period is {period} steps; expected at least 1")
        self._ledger, self._model, self._optimizer, self._parameters = ledger, model, optimizer, parameters
        self._period = period
        self._turn = 0
        self._round: Iterator[tuple[str, str, Tensor]] = iter(())
        self._share = 0.0  # elements a step
        self._owed = 0.0

    def see(self, step: int) -> None:
        """Screen this step's share."""
        if self._turn % self._period == 0:
            self._start_round()
        self._turn += 1
        self._owed += self._share
        last = self._turn % self._period == 0
        for phase, site, x in self._round if last else self._due():
            self._take(phase, site, x, step)

    def _start_round(self) -> None:
        everything = [
            entry
            for entry in state_tensors(self._model, self._optimizer, self._parameters)
            if can_be_nonfinite(entry[2])
        ]
        self._share = sum(x.numel() for _, _, x in everything) / self._period
        self._owed = 0.0
        self._round = iter(everything)

    def _due(self) -> Iterator[tuple[str, str, Tensor]]:
        while self._owed > 0:
            entry = next(self._round, None)
            if entry is None:
                return
            self._owed -= entry[2].numel()
            yield entry

    def see_all(self, step: int) -> None:
        """Screen everything at once: at a checkpoint or on a trigger."""
        for phase, site, x in state_tensors(self._model, self._optimizer, self._parameters):
            if can_be_nonfinite(x):
                self._take(phase, site, x, step)

    def _take(self, phase: str, site: str, x: Tensor, step: int) -> None:
        self._ledger.defer(
            [screen(x)],
            lambda v: objections([Reading(step=step, phase=phase, site=site, quantity=STATE_SUM, value=v[0])]),
        )

    def clear(self) -> None:
        """Let go of the tensors of the round."""
        self._turn, self._round = 0, iter(())
