"""Statistics of every module's outputs and of the gradients that arrive there, on sampled steps, as they happen.

On a sampled step, and on no other, every module carries hooks, and the root's forward pass runs under a dispatch mode
that counts what sanitisers alter and what stays allocated. Not seen are operations outside of the root's forward pass,
and modules in a compiled region: hooks that come and go would have it compiled again each time.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from brainbrr_debug.probes.census import Census
from brainbrr_debug.probes.ledger import Guard, Ledger
from brainbrr_debug.probes.operations import Operations, See
from brainbrr_debug.probes.reach import in_reach
from brainbrr_debug.probes.sanitisers import Altered, altered
from brainbrr_debug.quantities import (
    ABSMAX,
    CLAMPED,
    HEADROOM,
    HELD,
    HELD_IN_ALL,
    MEAN,
    RMS,
    ROOT_SITE,
    SANITISED,
    SANITISED_DATA,
    ZEROS,
)
from brainbrr_debug.records import Reading
from brainbrr_debug.statistics import can_be_nonfinite, elements, measure, summarize
from brainbrr_debug.tensors import leaves


class Survey:
    """Hooks on all modules of `model`, while a sampled step is open. A shared module goes by its first name.

    `outer` is the model with its wrappers, as it is called.
    """

    def __init__(self, ledger: Ledger, model: nn.Module, outer: nn.Module | None = None) -> None:
        self._ledger, self._model, self._outer = ledger, model, model if outer is None else outer
        self._step = -1
        self._open = False
        self._handles: list[RemovableHandle] = []
        self._running: list[str] = []  # the modules whose forward runs, outermost first
        self._depth = 0  # of calls of the root, which may call itself
        self._pass: tuple[Operations, Census] | None = None
        self._last: tuple[Callable[[], Tensor | None], int] = (lambda: None, -1)
        self._measured: tuple[Tensor, ...] = ()
        self.unseen = 0  # compiled modules, and tensors whose values exist only inside of a function transform

    def attach(self, guard: Guard) -> Guard:
        """Make the hooks; they are put into place when a sampled step opens.

        Returns `guard` for the hooks of other observers, whose operations are then none of the model's.
        """

        def quiet(hook: Callable[..., None]) -> Callable[..., None]:
            return self._unseen(guard(hook))

        self._on_begin, self._on_end = guard(self._begin), guard(self._end)
        self._on_enter, self._on_leave = guard(self._enter), quiet(self._leave)
        self._on_gradient = guard(self._gradient)
        self._on_operation: See = guard(self._operation)
        return quiet

    def _unseen(self, hook: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(hook)
        def unseen(*args: Any, **kwargs: Any) -> None:
            if self._pass is None:
                hook(*args, **kwargs)
                return
            with self._pass[0].unseen():
                hook(*args, **kwargs)

        return unseen

    def open(self, step: int) -> None:
        """Start to see `step`."""
        self._step, self._open = step, True
        modules, compiled = in_reach(self._model, self._outer)
        self.unseen += compiled
        if not modules or modules[0][1] is not self._model:
            return
        self._handles.append(self._model.register_forward_pre_hook(self._on_begin))
        for name, module in modules:
            self._handles.append(module.register_forward_pre_hook(functools.partial(self._on_enter, name)))
            leave = functools.partial(self._on_leave, name)
            self._handles.append(module.register_forward_hook(leave, always_call=True))  # exceptions end modules, too
        # the last, so that the root's own output is measured before
        self._handles.append(self._model.register_forward_hook(self._on_end, always_call=True))

    def pause(self) -> None:
        """See no longer, and be gone from the model."""
        for handle in self._handles:
            handle.remove()
        if self._pass is not None:  # an interrupt can keep the root's hook from being called
            self._pass[0].stop()
        self._pass, self._depth, self._open = None, 0, False
        self._handles, self._running = [], []
        self._last, self._measured = (lambda: None, -1), ()

    # A forward pass of the root

    def _begin(self, module: nn.Module, args: Any) -> None:
        if not _running_forward():
            return
        self._depth += 1
        if self._pass is None:
            self._running = []
            self._pass = Operations(self._on_operation), Census(self._model)
            self._pass[0].start()

    def _end(self, module: nn.Module, args: Any, output: Any) -> None:
        if not _running_forward() or self._pass is None:
            return
        self._depth -= 1
        if self._depth == 0:
            (mode, census), self._pass = self._pass, None
            mode.stop()
            held = census.alive()
            rows = [*((site, HELD, size) for site, size in held.items()), (ROOT_SITE, HELD_IN_ALL, sum(held.values()))]
            self._ledger.defer([], lambda v: [self._reading("forward", *row) for row in rows])

    def _operation(self, func: Any, args: Any, kwargs: Mapping[str, Any], x: Tensor | None, out: Any) -> None:
        site = self._running[-1] if self._running else ROOT_SITE
        if self._pass is not None:
            self._pass[1].see(site, args, out)
        if x is not None:
            found = altered(func, args, kwargs, x, out)
            self._ledger.defer([found.values, found.nonfinite], functools.partial(self._sanitised, site, found))

    # Modules

    def _enter(self, name: str, module: nn.Module, args: Any) -> None:
        if _running_forward():
            self._running.append(name)

    def _leave(self, name: str, module: nn.Module, args: Any, output: Any) -> None:
        if torch.compiler.is_compiling():
            return
        forward = _running_forward()  # else a checkpoint computes it again: only the gradient may be new
        if forward and self._running:
            self._running.pop()
        for x in leaves(output):
            if not can_be_nonfinite(x):
                continue
            if torch._C._functorch.is_functorch_wrapped_tensor(x):
                self.unseen += 1
                continue
            if forward:
                self._measure("forward", name, x)
            if x.requires_grad:
                hook = x.register_hook(functools.partial(self._on_gradient, name))  # type: ignore[no-untyped-call]
                self._handles.append(hook)

    def _gradient(self, name: str, gradient: Tensor) -> None:
        if self._open and can_be_nonfinite(gradient):
            self._measure("backward", name, gradient)

    def _measure(self, phase: str, site: str, x: Tensor) -> None:
        (last, seen), version = self._last, -1 if x.is_inference() else x._version
        if last() is not x or seen != version:  # a container returns what its last child returned
            self._measured = measure(x)
            self._last = weakref.ref(x), version
        count = elements(x).numel()
        self._ledger.defer(self._measured, functools.partial(self._statistics, phase, site, count, x.dtype))

    # Readings

    def _statistics(
        self, phase: str, site: str, count: int, dtype: torch.dtype, v: Sequence[float]
    ) -> Iterator[Reading]:
        found = summarize(v, count, dtype)
        yield self._reading(phase, site, ABSMAX, found.absmax)
        yield self._reading(phase, site, RMS, found.rms)
        yield self._reading(phase, site, MEAN, found.mean)
        yield self._reading(phase, site, ZEROS, found.zeros)
        if found.headroom is not None:
            yield self._reading(phase, site, HEADROOM, found.headroom)

    def _sanitised(self, site: str, found: Altered, v: Sequence[float]) -> Iterator[Reading]:
        values, nonfinite = v
        if found.clamp and values and not found.data:
            yield self._reading("forward", site, CLAMPED, values / found.elements)
        if nonfinite:
            yield self._reading("forward", site, SANITISED_DATA if found.data else SANITISED, nonfinite)

    def _reading(self, phase: str, site: str, quantity: str, value: float) -> Reading:
        return Reading(step=self._step, phase=phase, site=site, quantity=quantity, value=value)


def _running_forward() -> bool:
    """Neither is the compiler tracing, nor does a checkpoint compute a forward pass again for the backward pass."""
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() == -1
