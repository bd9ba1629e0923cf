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
    """Versions, device, precision, every backend chosen and every fallback, and the overrides seen; safe for JSON."""
    return {
        "brainbrr": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": str(setup.device),
        "device_name": torch.cuda.get_device_name(setup.device) if setup.device.type == "cuda" else platform.machine(),
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "precision": PRECISION[config.training.mixed_precision],
        "tf32": torch.backends.cuda.matmul.allow_tf32,
        "backends": dataclasses.asdict(setup.model.backends),
        "overrides": dict(overrides),
    }


def startup_lines(setup: Setup, config: Config, overrides: Mapping[str, Any]) -> list[str]:
    """The same for a person, one aligned line a fact."""
    facts = environment(setup, config, overrides)
    parameters = sum(p.numel() for p in setup.model.parameters())
    lines = [
        f"device      {facts['device']} ({facts['device_name']}), {facts['threads']} threads, torch {facts['torch']}",
        f"precision   {facts['precision']}",
        f"detector    {config.model.architecture}, {parameters:,} parameters",
    ]
    backends = setup.model.backends
    lines.append(f"backend     mamba {backends.mamba}, graph {backends.graph}")
    lines += [f"fallback    {note}" for note in backends.notes]
    for name, what in overrides.items():
        changes = ", ".join(f"{key}={value}" for key, value in what["changes"].items()) or "nothing"
        lines.append(f"override    {name}={what['value']} sets {changes}")
    return lines
