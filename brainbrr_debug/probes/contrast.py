"""Two unrelated inputs, and how far apart the outputs are that a model gives for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from brainbrr_debug.rng import preserved
from brainbrr_debug.tensors import leaves


@torch.no_grad()
def contrast(model: nn.Module, inputs: Sequence[tuple[Any, ...]]) -> float | None:
    """The largest difference between the outputs for any samples of `inputs`, over the largest magnitude of them.

    The model is asked in evaluation mode, with the same random numbers each time, and left as it was. None where no
    two outputs can be compared: there is but one sample, or outputs have other shapes.
    """
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        outputs = []
        for each in inputs:
            with preserved():
                outputs.append(_rows(model(*each)))
    finally:
        for module, mode in modes.items():
            module.training = mode
    groups: dict[tuple[int, ...], list[Tensor]] = {}
    for rows in outputs:
        if rows is not None:
            groups.setdefault(tuple(rows.shape[1:]), []).append(rows)
    found = [apart for parts in groups.values() if (apart := _apart(torch.cat(parts))) is not None]
    return max(found, default=None)


def _rows(output: Any) -> Tensor | None:
    """The first floating tensor of an output with samples along its first axis."""
    found = next((x for x in leaves(output) if x.dim() and len(x) and x.is_floating_point()), None)
    return None if found is None else found.detach().double()


def _apart(rows: Tensor) -> float | None:
    if len(rows) < 2:
        return None
    largest = float(rows.abs().max()) if rows.numel() else 0.0
    return float((rows - rows[:1]).abs().max()) / largest if largest else 0.0
