"""What sanitisers alter in a whole step: forward pass, loss, backward pass, and between gate and update.

Beside clamps and nan_to_num that is whatever replaces exactly the elements that are not finite: `where(isfinite(x), x,
0)`, `x.masked_fill(x.isnan(), 0)`, `x[x.isnan()] = 0`.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from brainbrr_debug.probes.operations import Operations, See
from brainbrr_debug.probes.replacement import caller
from brainbrr_debug.probes.sanitisers import SANITISERS, altered
from brainbrr_debug.statistics import can_be_nonfinite

_ATEN = torch.ops.aten
_MASKING = (_ATEN.where, _ATEN.masked_fill, _ATEN.masked_fill_, _ATEN.index_put, _ATEN.index_put_)
_LOOKED_AT = {*SANITISERS, *_MASKING}
_ACTIVATIONS = (_ATEN.hardtanh, _ATEN.hardtanh_)


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
    functions (relu6, hardtanh), nor masks that replace finite values, too. Compiled regions are not seen.
    """

    def __init__(self, model: nn.Module) -> None:
        self._names = {id(module): name for name, module in model.named_modules()}
        self._found: list[tuple[str, str, Tensor, Tensor | None]] = []
        self._mode = _Whole(self._see, self._replaced)

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

    def _replaced(self, count: Tensor) -> None:
        self._found.append((*caller(self._names), count, None))

    def _see(self, func: Any, args: Any, kwargs: Mapping[str, Any], x: Tensor | None, out: Any) -> None:
        if x is None:
            return
        found = altered(func, args, kwargs, x, out)
        counts = found.clamp and func.overloadpacket not in _ACTIVATIONS
        held = found.values - found.nonfinite if counts and torch.is_grad_enabled() and args[0].requires_grad else None
        self._found.append((*caller(self._names), found.nonfinite, held))


class _Whole(Operations):  # type: ignore[no-untyped-call]
    """Shows the count of replaced elements to `replaced`, too (0-d: 0 where a mask took finite ones, or left some)."""

    def __init__(self, see: See, replaced: Callable[[Tensor], None]) -> None:
        super().__init__(see)
        self._replaced = replaced

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        packet = getattr(func, "overloadpacket", None)
        if packet not in _LOOKED_AT and packet is not None and not any(map(_complex, args)):
            return func(*args, **(kwargs or {}))  # nothing to see, nothing to put back: thousands of these a step
        for x, mask in _masked(packet, args):
            if can_be_nonfinite(x) and (_in_backward() or (torch.is_grad_enabled() and x.requires_grad)):
                bad = torch.isfinite(x.detach()).logical_not_()
                exact = bad.eq(mask.reshape(mask.shape + (1,) * (x.dim() - mask.dim()))).all()
                self._replaced(torch.count_nonzero(bad) * exact)
        return super().__torch_dispatch__(func, types, args, kwargs)


def _masked(packet: Any, args: Any) -> Iterator[tuple[Tensor, Tensor]]:
    """The tensors of which an operation replaces elements by a mask, each with the mask of those."""
    if packet is _ATEN.where and len(args) == 3:
        mask, *branches = args
        yield from ((x, m) for x, m in zip(branches, (~mask, mask), strict=True) if _covers(m, x))
    elif packet in (_ATEN.masked_fill, _ATEN.masked_fill_) and _covers(args[1], args[0]):
        yield args[0], args[1]
    elif packet in (_ATEN.index_put, _ATEN.index_put_) and len(args[1]) == 1 and _covers(args[1][0], args[0]):
        yield args[0], args[1][0]


def _covers(mask: Any, x: Any) -> bool:
    both = isinstance(mask, Tensor) and isinstance(x, Tensor) and mask.dtype is torch.bool
    return both and mask.shape == x.shape[: mask.dim()]


def _complex(x: Any) -> bool:
    if isinstance(x, (list, tuple)):
        return any(map(_complex, x))
    return isinstance(x, Tensor) and x.is_complex()


def _in_backward() -> bool:
    return torch._C._current_graph_task_id() != -1
