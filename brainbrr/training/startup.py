"""What a run says of itself before its first step: device, precision, kernels, and every fallback and override."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Mapping
from typing import Any

import torch

from brainbrr import __version__
from brainbrr.config import Config
from brainbrr.training.setup import Setup

PRECISION = {False: "float32", "bf16": "bfloat16 autocast", "fp16": "float16 autocast with loss scaling"}


def environment(setup: Setup, config: Config, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """What the watch cannot know of a run: mixed precision, every backend and fallback, the overrides seen.

    Safe for JSON; goes into environment.json beside what `brainbrr_debug` says of the machine.
    """
    return {
        "brainbrr": __version__,
        "mixed_precision": PRECISION[config.training.mixed_precision],
        "backends": dataclasses.asdict(setup.model.backends),
        "overrides": dict(overrides),
    }


def startup_lines(setup: Setup, config: Config, overrides: Mapping[str, Any]) -> list[str]:
    """For a person, one aligned line a fact."""
    device, backends = setup.device, setup.model.backends
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    parameters = sum(p.numel() for p in setup.model.parameters())
    lines = [
        f"device      {device} ({name}), {torch.get_num_threads()} threads, torch {torch.__version__}",
        f"precision   {PRECISION[config.training.mixed_precision]}",
        f"detector    {config.model.architecture}, {parameters:,} parameters",
        f"backend     mamba {backends.mamba}, graph {backends.graph}",
    ]
    lines += [f"fallback    {note}" for note in backends.notes]
    for variable, what in overrides.items():
        changes = ", ".join(f"{key}={value}" for key, value in what["changes"].items()) or "nothing"
        lines.append(f"override    {variable}={what['value']} sets {changes}")
    return lines
