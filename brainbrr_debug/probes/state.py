"""Parameters, buffers and the optimizer's state in turns: a share of them every step, all within a fixed period."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from brainbrr_debug.probes.ledger import Ledger, nonfinite, objections
from brainbrr_debug.quantities import ROOT_SITE, STATE_NORM
from brainbrr_debug.records import Reading
from brainbrr_debug.statistics import can_be_nonfinite, total_norm

CALL = 20_000
"""What one more tensor costs, in elements: a kernel's start against reading them."""


def state_tensors(
    model: nn.Module, optimizer: torch.optim.Optimizer, parameters: Mapping[str, Tensor], meant: Collection[str] = ()
) -> Iterator[tuple[str, str, Tensor]]:
    """(phase, site, tensor) of all `parameters`, the model's buffers and every tensor of the optimizer's state.

    Buffers named in `meant` are left out: they hold infinities on purpose.
    """
    names = {id(parameter): name for name, parameter in parameters.items()}
    for name, parameter in parameters.items():
        yield "forward", name, parameter
    for name, buffer in model.named_buffers():
        if name not in meant:
            yield "forward", name, buffer
    for parameter, state in optimizer.state.items():
        if isinstance(state, Mapping):
            for key, value in state.items():
                if isinstance(value, Tensor):
                    yield "optimizer", f"{names.get(id(parameter), '?')}:{key}", value


class States:
    """Each step takes the norm of the next share, at even cost, so that `period` steps see everything.

    Yields a Reading only where the norm is not finite; which tensor it was is asked on that trigger.
    """

    def __init__(
        self,
        ledger: Ledger,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        parameters: Mapping[str, Tensor],
        period: int,
        meant: Collection[str] = (),
    ) -> None:
        if period < 1:
            raise ValueError(f"period is {period} steps; expected at least 1")
        self._ledger, self._model, self._optimizer, self._parameters = ledger, model, optimizer, parameters
        self._period, self._meant = period, meant
        self._turn = 0
        self._round: Iterator[Tensor] = iter(())
        self._share = 0.0
        self._owed = 0.0

    def see(self, step: int) -> None:
        """Screen this step's share."""
        if self._turn % self._period == 0:
            self._start_round()
        self._turn += 1
        self._owed += self._share
        self._screen(list(self._round if self._turn % self._period == 0 else self._due()), step)

    def see_all(self, step: int) -> None:
        """Screen everything at once."""
        self._screen(self._everything(), step)

    def _screen(self, due: Sequence[Tensor], step: int) -> None:
        if due:
            self._ledger.defer(
                [total_norm(due)],
                lambda v: objections(
                    [Reading(step=step, phase="optimizer", site=ROOT_SITE, quantity=STATE_NORM, value=v[0])]
                ),
                alarm=nonfinite,
            )

    def _everything(self) -> list[Tensor]:
        tensors = state_tensors(self._model, self._optimizer, self._parameters, self._meant)
        return [x for _, _, x in tensors if can_be_nonfinite(x)]

    def _start_round(self) -> None:
        everything = self._everything()
        self._share = sum(x.numel() + CALL for x in everything) / self._period
        self._owed = 0.0
        self._round = iter(everything)

    def _due(self) -> Iterator[Tensor]:
        while self._owed > 0 and (x := next(self._round, None)) is not None:
            self._owed -= x.numel() + CALL
            yield x

    def clear(self) -> None:
        """Let go of the tensors of the round."""
        self._turn, self._round = 0, iter(())
