"""How large the numbers of a model's parameters are, and which grew far too large at once."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

FLOOR = 0.1
"""A parameter below this share of the model's largest number counts as that large: what begins at zero must grow."""


def magnitudes(model: torch.nn.Module) -> dict[str, float]:
    """The largest |value| of every floating parameter, by name."""
    named = {name: p.detach() for name, p in model.named_parameters() if p.is_floating_point() and p.numel()}
    norms = torch._foreach_norm(list(named.values()), math.inf) if named else []
    return {name: float(norm) for name, norm in zip(named, norms, strict=True)}


def largest_jump(before: Mapping[str, float], after: Mapping[str, float]) -> tuple[float, str]:
    """The largest factor by which a parameter's largest number grew, and its name; (1.0, "") where none grew."""
    floor = FLOOR * max(filter(math.isfinite, before.values()), default=0.0)
    # What is no number any longer is larger than any: it did not come from the numbers before.
    ended = {name: math.inf if math.isnan(value) else value for name, value in after.items()}
    factors = {name: value / max(before[name], floor) for name, value in ended.items() if max(before[name], floor) > 0}
    name = max(factors, key=factors.__getitem__, default="")
    return (factors[name], name) if name and factors[name] > 1 else (1.0, "")
