"""The last minima and maxima of every leaf module's output, in a ring on its device that is read only on a trigger."""

from __future__ import annotations

import collections
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from brainbrr_debug.probes.ledger import Guard
from brainbrr_debug.probes.reach import in_reach
from brainbrr_debug.statistics import can_be_nonfinite, elements, headroom
from brainbrr_debug.tensors import leaves

LEFT = 2.0
"""A module has left its range when its largest magnitude is beyond this many times all that the ring still holds."""


class Ring:
    """`size` pairs of a minimum and a maximum of one dtype, and when each was taken: (step, order within the step)."""

    def __init__(self, size: int, like: Tensor) -> None:
        self._pairs = torch.empty(size, 2, dtype=like.dtype, device=like.device)
        self._slots = [tuple(pair.unbind()) for pair in self._pairs.unbind()]
        self._next = 0
        self.taken: collections.deque[tuple[int, int]] = collections.deque(maxlen=size)

    def fits(self, x: Tensor) -> bool:
        """Whether the ring can hold the range of `x`."""
        return self._pairs.dtype == x.dtype and self._pairs.device == x.device

    def take(self, x: Tensor, step: int, order: int) -> None:
        """The range of `x`, over the oldest."""
        torch.aminmax(x, out=self._slots[self._next])
        self._next = (self._next + 1) % len(self._slots)
        self.taken.append((step, order))

    def read(self) -> list[tuple[int, int, float, float]]:
        """(step, order, minimum, maximum), oldest first. Reads back from the device."""
        pairs: list[tuple[float, float]] = [(low, high) for low, high in self._pairs.double().tolist()]
        places = range(self._next - len(self.taken), self._next)
        return [(step, order, *pairs[at]) for (step, order), at in zip(self.taken, places, strict=True)]

    @property
    def dtype(self) -> torch.dtype:
        """Of the outputs."""
        return self._pairs.dtype


class Ranges:
    """Hooks on all modules without children; a shared one goes by its first name. `size` is that of each ring."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._rings: dict[str, Ring] = {}
        self._handles: list[RemovableHandle] = []
        self._order = 0
        self.step: int | None = None
        self.unseen = 0  # compiled modules, and tensors whose values exist only inside of a function transform

    def attach(self, model: nn.Module, guard: Guard, outer: nn.Module | None = None) -> None:
        """Start to see the leaf modules of `model`, which is called as `outer`."""
        modules, compiled = in_reach(model, model if outer is None else outer)
        self.unseen += compiled
        for name, module in modules:
            if next(module.children(), None) is None:
                self._handles.append(module.register_forward_hook(guard(self._hook(name))))

    def detach(self) -> None:
        """Remove the hooks and forget everything."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._rings, self.step = [], {}, None

    def open(self, step: int) -> None:
        """From here on outputs belong to `step`."""
        self.step, self._order = step, 0

    def _hook(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if self.step is None or torch.compiler.is_compiling():
                return
            for x in (output,) if isinstance(output, Tensor) else leaves(output):
                if can_be_nonfinite(x):
                    self._take(name, x)

        return hook

    def _take(self, name: str, x: Tensor) -> None:
        if torch._C._functorch.is_functorch_wrapped_tensor(x):
            self.unseen += 1
            return
        x = elements(x)
        ring = self._rings.get(name)
        if ring is None or not ring.fits(x):
            ring = self._rings[name] = Ring(self._size, x)
        ring.take(x, self.step if self.step is not None else -1, self._order)
        self._order += 1

    def report(self, step: int) -> dict[str, Any]:
        """What a finding in `step` says of it: the first module out of its range, and how headroom went.

        "left_first" is the first output of the step, in order of execution, that is not finite or beyond LEFT times
        the largest magnitude in its ring; None where there is none. "headroom" follows that module, or else the one
        with the least left: log2 of the dtype's maximum over the magnitude, oldest first, None where not finite.
        """
        rows = sorted(
            (order, name, low, high)
            for name, ring in self._rings.items()
            for at, order, low, high in ring.read()
            if at == step
        )
        usual = {name: _usual(ring, step) for name, ring in self._rings.items()}
        left = next((row for row in rows if _left(_magnitude(*row[2:]), usual[row[1]])), None)
        tightest = max(rows, key=lambda row: -self._left_of(row[1], row[2], row[3]), default=None)
        shown = left or tightest
        return {
            "left_first": left and {"module": left[1], "low": left[2], "high": left[3], "usual": usual[left[1]]},
            "headroom": shown and {"module": shown[1], "bits": self._trend(shown[1])},
        }

    def _left_of(self, name: str, low: float, high: float) -> float:
        bits = headroom(_magnitude(low, high), self._rings[name].dtype)
        return math.inf if bits is None else bits

    def _trend(self, name: str) -> list[float | None]:
        ring = self._rings[name]
        bits = [headroom(_magnitude(low, high), ring.dtype) for _, _, low, high in ring.read()]
        return [None if b is None else round(b, 2) for b in bits]


def _usual(ring: Ring, step: int) -> float | None:
    """The largest magnitude before `step`; None where the ring holds none."""
    return max((m for at, _, low, high in ring.read() if at < step and math.isfinite(m := _magnitude(low, high))),
               default=None)  # fmt: skip


def _magnitude(low: float, high: float) -> float:
    return max(-low, high)


def _left(magnitude: float, usual: float | None) -> bool:
    return not math.isfinite(magnitude) or (usual is not None and magnitude > LEFT * usual)
