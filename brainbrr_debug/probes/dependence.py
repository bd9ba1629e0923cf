"""Whether the output depends on the input: how samples differ, and what a loss function thinks of constants."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from brainbrr_debug.probes.ledger import Ledger
from brainbrr_debug.quantities import (
    BASELINE_CONSTANT,
    BASELINE_LOSS,
    BASELINE_ZEROS,
    INPUTS_DIFFER,
    LOSS_SITE,
    ROOT_SITE,
    SPREAD,
)
from brainbrr_debug.records import Reading
from brainbrr_debug.rng import preserved
from brainbrr_debug.statistics import can_be_nonfinite
from brainbrr_debug.subject import Batch
from brainbrr_debug.tensors import leaves


class Dependence:
    """Looks at micro-batches of a sampled step. `loss_fn` maps (output, target) to a loss."""

    def __init__(self, ledger: Ledger, loss_fn: Callable[[Any, Any], Tensor] | None) -> None:
        self._ledger, self._loss_fn = ledger, loss_fn

    def see(self, step: int, outputs: Iterable[Tensor], batch: Batch) -> None:
        """Take the tensors of an output, of which the first with a row for each of two or more samples counts."""
        inputs, target = batch
        rows = [x for x in leaves(inputs) if x.dim() and x.layout is torch.strided]
        samples = len(rows[0]) if rows else 0
        usable = (x for x in outputs if x.dim() and len(x) == samples > 1 and x.is_floating_point())
        output = next((x.detach() for x in usable if can_be_nonfinite(x) and x.layout is torch.strided), None)
        if output is None:
            return
        self._spread(step, output, [x for x in rows if len(x) == samples])
        if self._loss_fn is not None:
            self._baselines(step, output, target)

    def _spread(self, step: int, output: Tensor, inputs: list[Tensor]) -> None:
        x = output.float() if output.itemsize < 4 else output
        differs = [x.detach().ne(x[:1]).reshape(len(x), -1).any(1) for x in inputs]
        share = torch.stack([d.to(x.device) for d in differs]).any(0).sum() / len(x)

        def build(v: Any) -> list[Reading]:
            spread = v[0] / v[1] if v[1] else 0.0
            return [
                Reading(step=step, phase="forward", site=ROOT_SITE, quantity=INPUTS_DIFFER, value=v[2]),
                Reading(step=step, phase="forward", site=ROOT_SITE, quantity=SPREAD, value=spread),
            ]

        self._ledger.defer([(x - x[:1]).abs_().max(), x.abs().max(), share], build)

    @torch.no_grad()
    def _baselines(self, step: int, output: Tensor, target: Any) -> None:
        assert self._loss_fn is not None
        others = {
            BASELINE_LOSS: output,
            BASELINE_ZEROS: torch.zeros_like(output),
            BASELINE_CONSTANT: output.mean(0, keepdim=True).expand_as(output).contiguous(),
        }
        # a loop may move its batch only after it has told the watch
        target = tree_map(lambda x: x.to(output.device) if isinstance(x, Tensor) else x, target)
        with preserved():
            losses = [self._loss_fn(x, target).detach().float().mean() for x in others.values()]
        self._ledger.defer(
            losses,
            lambda v: [
                Reading(step=step, phase="forward", site=LOSS_SITE, quantity=quantity, value=value)
                for quantity, value in zip(others, v, strict=True)
            ],
        )
