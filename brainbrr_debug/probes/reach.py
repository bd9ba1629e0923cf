"""Which modules hooks can look at: those that run in the open, not in a region that was compiled."""

from __future__ import annotations

from torch import nn


def in_reach(model: nn.Module, outer: nn.Module) -> tuple[list[tuple[str, nn.Module]], int]:
    """The modules of `model` by their first names, without the compiled ones, and how many those are.

    `outer` is the model with its wrappers, as it is called. In a compiled region hooks see nothing, split it, and have
    it compiled again when they come or go.
    """
    compiled: set[nn.Module] = set()
    for module in outer.modules():
        if type(module).__name__ == "OptimizedModule":
            compiled.update(module._orig_mod.modules())  # type: ignore[union-attr]
        elif module._compiled_call_impl is not None:
            compiled.update(module.modules())
    found = [(name, module) for name, module in model.named_modules() if module not in compiled]
    return found, sum(module in compiled for module in model.modules())
