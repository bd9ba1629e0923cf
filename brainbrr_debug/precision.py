"""Another precision for a run or for some of its modules, and other algorithms for a while."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from typing import Any

import torch
from torch.utils._pytree import tree_leaves, tree_map

from brainbrr_debug.subject import Run


def cast(run: Run, dtype: torch.dtype) -> None:
    """Model and optimizer state in another floating dtype."""
    _convert(run.model, dtype)
    _follow(run)


def lift(run: Run, names: Collection[str], dtype: torch.dtype = torch.float64) -> None:
    """The modules of these names ("" is the root), and all in them, compute in `dtype`.

    What goes in is cast there, what comes out is cast back, gradients likewise. Raises KeyError for an unknown name.
    """
    modules = dict(run.model.named_modules())
    for name in outermost(names):
        _convert(modules[name], dtype)
        border = _Border(dtype)
        modules[name].register_forward_pre_hook(border.inward, with_kwargs=True)
        modules[name].register_forward_hook(border.outward)
    _follow(run)


def outermost(names: Collection[str]) -> tuple[str, ...]:
    """The names that do not lie within another one of them."""
    return tuple(n for n in names if not any(n != o and (not o or n.startswith(o + ".")) for o in names))


@contextlib.contextmanager
def algorithms(*, deterministic: bool, tf32: bool) -> Iterator[None]:
    """While inside, only deterministic algorithms, or products of shortened float32; nothing changes without either."""
    was, warned = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    products = torch.get_float32_matmul_precision()
    if deterministic:
        torch.use_deterministic_algorithms(True)
    if tf32:
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        if deterministic:
            torch.use_deterministic_algorithms(was, warn_only=warned)
        if tf32:
            torch.set_float32_matmul_precision(products)


def autocasting(run: Run, dtype: str | None) -> contextlib.AbstractContextManager[Any]:
    """The block with torch's choice between `dtype` and float32 on the run's device; None: as it is."""
    if dtype is None:
        return contextlib.nullcontext()
    device = next((p.device.type for p in run.model.parameters()), "cpu")
    return torch.autocast(device, dtype=getattr(torch, dtype))


class _Border:
    """Casts at the border of one module; what comes out has the dtype of what went in."""

    def __init__(self, dtype: torch.dtype) -> None:
        self._dtype, self._outside = dtype, torch.get_default_dtype()

    def inward(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """For a forward pre-hook."""
        given = [x.dtype for x in tree_leaves((args, kwargs)) if _floating(x)]
        self._outside = given[0] if given else self._outside
        cast_args, cast_kwargs = tree_map(lambda x: x.to(self._dtype) if _floating(x) else x, (args, kwargs))
        return cast_args, cast_kwargs

    def outward(self, module: Any, args: Any, output: Any) -> Any:
        """For a forward hook."""
        return tree_map(lambda x: x.to(self._outside) if _floating(x) and x.dtype == self._dtype else x, output)


def _convert(module: torch.nn.Module, dtype: torch.dtype) -> None:
    module._apply(lambda x: x.to(dtype) if x.is_floating_point() else x)  # type: ignore[no-untyped-call]


def _follow(run: Run) -> None:
    """Every state that has its parameter's shape gets its parameter's dtype."""
    for parameter, entries in run.optimizer.state.items():
        for key, value in entries.items():
            if _floating(value) and value.shape == parameter.shape and parameter.is_floating_point() and value.dim():
                entries[key] = value.to(parameter.dtype)


def _floating(x: Any) -> bool:
    return isinstance(x, torch.Tensor) and x.is_floating_point()
