"""The sentinel: every leaf module's output, as deferred sums in execution order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from brainbrr_debug.probes.ledger import Guard, Ledger, objections
from brainbrr_debug.probes.reach import in_reach
from brainbrr_debug.quantities import MODULE_SUM
from brainbrr_debug.records import Reading
from brainbrr_debug.statistics import can_be_nonfinite, screen
from brainbrr_debug.tensors import leaves


class Sentinel:
    """Hooks on all modules without children. Yields Readings only for outputs whose sum is not finite."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._handles: list[RemovableHandle] = []
        self._sums: list[Tensor] = []
        self._sites: list[str] = []
        self.step: int | None = None
        self.unseen = 0  # compiled modules, and tensors whose values exist only inside of a function transform

    def attach(self, model: nn.Module, guard: Guard, outer: nn.Module | None = None) -> None:
        """Start to see the leaf modules of `model`, which is called as `outer`; a shared one goes by its first name."""
        modules, compiled = in_reach(model, model if outer is None else outer)
        self.unseen += compiled
        for name, module in modules:
            if next(module.children(), None) is None:
                self._handles.append(module.register_forward_hook(guard(self._hook(name))))

    def detach(self) -> None:
        """Remove the hooks and forget everything."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self.clear()

    def clear(self) -> None:
        """Forget the step."""
        self.step, self._sums, self._sites = None, [], []

    def _hook(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if self.step is None or torch.compiler.is_compiling():
                return
            for x in (output,) if isinstance(output, Tensor) else leaves(output):
                if torch._C._functorch.is_functorch_wrapped_tensor(x):
                    self.unseen += 1
                elif can_be_nonfinite(x):
                    self._sums.append(screen(x))
                    self._sites.append(name)

        return hook

    def finish(self) -> None:
        """At the end of the step: defer all sums as one entry."""
        step, sites = self.step if self.step is not None else -1, self._sites
        self._ledger.defer(
            self._sums,
            lambda v: objections(
                Reading(step=step, phase="forward", site=site, quantity=MODULE_SUM, value=value)
                for site, value in zip(sites, v, strict=True)
            ),
        )
        self._sums, self._sites = [], []
