"""A watch inside a loop that somebody else runs: micro-batches come one by one, wrapped methods are put back."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, distributed

from brainbrr_debug.subject import Batch
from brainbrr_debug.tensors import TreeError, TreeWriter
from brainbrr_debug.watch import Watch

Identify = Callable[[Any], Sequence[Mapping[str, Any]]]
"""From a micro-batch as the loop has it to where each of its samples comes from."""

_NOT_THERE: Any = object()


class Session:
    """One training under `watch`, which it enters. `leave` ends it, removes every hook and unwraps every method."""

    def __init__(self, watch: Watch, identify: Identify | None) -> None:
        self.watch = watch
        self._identify = identify
        self._raw: list[Any] = []
        self._losses = 0
        self._open = self._update = self._passed = self._left = False
        self._exit = contextlib.ExitStack()
        self._exit.enter_context(watch)

    def wrap(self, thing: Any, name: str, wrapper: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        """Put `wrapper(method)` in place of the method `name` of this one object, until `leave`."""
        original, own = getattr(thing, name), vars(thing).get(name, _NOT_THERE)
        setattr(thing, name, functools.wraps(original)(wrapper(original)))
        self._exit.callback(_put_back, thing, name, own)

    def leave(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        """The end, by `error` where there is one; again: nothing. Raises NonFiniteStep as the watch does on leaving."""
        self._left = True
        self._exit.__exit__(kind, error, trace)

    @property
    def open(self) -> bool:
        """Whether a step has begun and is not over."""
        return self._open

    def on_leaving(self, callback: Callable[[], None]) -> None:
        """Call this, too, on leaving."""
        self._exit.callback(callback)

    def ended_by_error(self) -> contextlib.ExitStack:
        """Around what may raise: an exception ends the session on its way out."""
        stack = contextlib.ExitStack()
        stack.push(lambda kind, error, trace: self.leave(kind, error, trace) if kind is not None else None)
        return stack

    # The step

    def micro_batch(self, batch: Batch, raw: Any, *, step: int) -> None:
        """Before the forward pass of the next micro-batch; the first one begins `step`."""
        if self._open:
            self.watch.add(*batch)
            self._raw.append(raw)
            return
        self._raw, identify = [raw], self._identify
        seen = self._raw
        self.watch.begin(
            [batch], step=step, identities=None if identify is None else lambda: [identify(each) for each in seen]
        )
        self._open, self._passed, self._update, self._losses = True, False, True, 0

    def loss(self, loss: Tensor) -> None:
        """After the forward pass: the loss of the micro-batch, neither divided nor scaled."""
        self.watch.forward(None, loss)
        self._losses += 1

    def gate(self) -> None:
        """All gradients are there, nothing is clipped: decide. Raises NonFiniteStep as `Watch.gradients` does."""
        self._passed = True
        if self._losses:  # a step whose every forward pass was left out changes nothing
            self._update = self.watch.gradients()

    def settle(self, optimizer: torch.optim.Optimizer) -> None:
        """Right before `optimizer.step()`, which passes parameters without a gradient by: so an update is skipped."""
        if not self._update:
            optimizer.zero_grad(set_to_none=True)

    def end(self) -> None:
        """After each micro-batch: where the gate was passed, the step is over."""
        if self._passed:
            self._open = self._passed = False
            self.watch.end()

    def checkpoint(self) -> None:
        """Before a checkpoint is written, while the session lasts. Raises NonFiniteStep as `Watch.checkpoint` does."""
        if not self._left:
            self.watch.checkpoint()


def require_skippable(optimizer: torch.optim.Optimizer) -> None:
    """Raises TypeError for LBFGS, which evaluates a step several times."""
    if isinstance(optimizer, torch.optim.LBFGS):
        raise TypeError(
            "the optimizer is LBFGS, which evaluates a step several times; expected one that updates once a step, "
            "or a Watch in a loop of your own"
        )


def options_for_watch(
    given: Mapping[str, Any], *, framework: str, schedulers: Mapping[str, Any], scaler: Any
) -> dict[str, Any]:
    """The options that a person gave, and where they are silent what the framework knows."""
    together = distributed.is_available() and distributed.is_initialized()
    return {
        "scaler": scaler,
        "process_group": distributed.group.WORLD if together else None,
        **given,
        "extra_state": {**_storable(schedulers), **(given.get("extra_state") or {})},
        "environment": {"framework": framework, **(given.get("environment") or {})},
    }


def _storable(things: Mapping[str, Any]) -> dict[str, Any]:
    """Those whose state dict a capture can hold; a warning names the others, before a whole capture fails for them."""
    kept = {}
    for name, thing in things.items():
        try:
            TreeWriter().write(thing.state_dict(), name)
        except TreeError as error:
            warnings.warn(f"captures of this run leave {type(thing).__name__} out: {error}", stacklevel=2)
        else:
            kept[name] = thing
    return kept


def _put_back(thing: Any, name: str, own: Any) -> None:
    if own is _NOT_THERE:
        delattr(thing, name)
    else:
        setattr(thing, name, own)
