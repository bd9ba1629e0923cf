"""What a detector consists of: stages, output shapes, parameters; for `brainbrr info` and the start of a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from torch import nn


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stage: its module's name, the shape of its output for one window (no batch dimension), its parameters."""

    name: str
    shape: tuple[int, ...]
    parameters: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """All stages for a window of `samples`; `parameter_bytes` as the parameters are stored now."""

    samples: int
    stages: tuple[Stage, ...]
    parameters: int
    parameter_bytes: int


def describe(model: nn.Module, shapes: Mapping[str, tuple[int, ...]], samples: int) -> Description:
    """The description of `model`, whose stages are its children named in `shapes`, in that order."""
    parameters = list(model.parameters())
    return Description(
        samples=samples,
        stages=tuple(
            Stage(name=name, shape=shape, parameters=sum(p.numel() for p in model.get_submodule(name).parameters()))
            for name, shape in shapes.items()
        ),
        parameters=sum(parameter.numel() for parameter in parameters),
        parameter_bytes=sum(parameter.numel() * parameter.element_size() for parameter in parameters),
    )
