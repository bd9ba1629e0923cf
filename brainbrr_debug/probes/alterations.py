"""What clamps and nan_to_num alter in a whole step: forward pass, loss, backward pass, and between gate and update."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from brainbrr_debug.probes.operations import Operations
from brainbrr_debug.probes.replacement import caller
from brainbrr_debug.probes.sanitisers import altered

_ACTIVATIONS = (torch.ops.aten.hardtanh, torch.ops.aten.hardtanh_)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Alteration:
    """How many values one line altered in one step, and which module ran it.

    `nonfinite` were not finite before and are now; `held` are finite ones that carry a gradient, held at a bound.
    """

    site: str
    location: str
    nonfinite: int
    held: int


class Alterations:
    """Counts what sanitisers alter in the steps that run under `watching`.

    Finite values without a gradient do not count (gradients and weights are clipped on purpose), nor do activation
    functions (relu6, hardtanh). Compiled regions are not seen.
    """

    def __init__(self, model: nn.Module) -> None:
        self._names = {id(module): name for name, module in model.named_modules()}
        self._found: list[tuple[str, str, Tensor, Tensor | None]] = []
        self._mode = Operations(self._see)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Around a step."""
        self._found = []
        self._mode.start()
        try:
            yield
        finally:
            self._mode.stop()

    def unseen(self) -> contextlib.AbstractContextManager[None]:
        """Around an observer's own operations."""
        return self._mode.unseen()

    def read(self) -> tuple[Alteration, ...]:
        """What the last step altered, line by line."""
        sums: dict[tuple[str, str], list[int]] = {}
        for site, location, nonfinite, held in self._found:
            total = sums.setdefault((site, location), [0, 0])
            total[0] += int(nonfinite)
            total[1] += 0 if held is None else int(held)
        self._found = []
        return tuple(
            Alteration(site=site, location=location, nonfinite=nonfinite, held=held)
            for (site, location), (nonfinite, held) in sums.items()
            if nonfinite or held
        )

    def _see(self, func: Any, args: Any, kwargs: Mapping[str, Any], x: Tensor | None, out: Any) -> None:
        if x is None:
            return
        found = altered(func, args, kwargs, x, out)
        counts = found.clamp and func.overloadpacket not in _ACTIVATIONS
        held = found.values - found.nonfinite if counts and torch.is_grad_enabled() and args[0].requires_grad else None
        self._found.append((*caller(self._names), found.nonfinite, held))
