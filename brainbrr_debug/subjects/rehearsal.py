"""The detector on the stage: its configuration with windows so short that a step takes a second, on noise."""

from __future__ import annotations

from pathlib import Path

import torch

from brainbrr.config import ELECTRODES, SAMPLING_RATE, Config
from brainbrr.configure import with_values
from brainbrr.models.inventory import inventory
from brainbrr.training.setup import build_setup, new_detector
from brainbrr.training.step import AUTOCAST
from brainbrr_debug.facts import Kernel, Memory
from brainbrr_debug.rehearsal import Stage
from brainbrr_debug.subject import Batch, Run
from brainbrr_debug.subjects.brainbrr import DetectorSubject
from brainbrr_debug.subjects.configuration import config_of

STEPS = 16  # of the network behind its striding: enough for every stage to work on a sequence
SAMPLES = 2


def detector_stage(path: Path) -> Stage:
    """The configuration's detector on the CPU, with the portable kernels where the fused ones cannot run."""
    config = config_of(path)
    short = {
        "data.window_size": STEPS * config.model.tcn.stride_down / SAMPLING_RATE,
        "evaluation.stride": min(config.evaluation.stride, STEPS * config.model.tcn.stride_down / SAMPLING_RATE),
        "experiment.device": "cpu",
        "training.gradient_accumulation_steps": 1,
    }
    asked = config.model.mamba.backend
    if asked == "mamba_ssm":
        short["model.mamba.backend"] = "torch"  # it needs a GPU; env.gpu_stack compares the two where there is one
    small = with_values(config, short)
    precision = config.training.mixed_precision or "float32"

    def build(wanted: str) -> Run:
        dtype = False if wanted == "float32" else wanted
        return DetectorSubject(with_values(small, {"training.mixed_precision": dtype})).build(0, {})

    return Stage(
        build=build,
        batches=[_noise(small, seed) for seed in range(2)],
        precisions=tuple(dict.fromkeys(("float32", precision))),
        kernels=_kernels(small, asked),
    )


def _noise(config: Config, seed: int) -> Batch:
    """Windows of noise in σ, another one in each sample, and labels that change in the middle."""
    generator = torch.Generator().manual_seed(seed)
    length = round(config.data.window_size * SAMPLING_RATE)
    target = torch.zeros(SAMPLES, length)
    target[::2, length // 2 :] = 1.0
    return (torch.randn(SAMPLES, len(ELECTRODES), length, generator=generator),), target


def _kernels(config: Config, asked: str) -> tuple[Kernel, ...]:
    used = build_setup(config, 0).model.backends.mamba
    if used == "none" or asked == "mamba_ssm":
        return ()
    return (Kernel(key="model.mamba.backend", asked=asked, used=used),)


def detector_memory(path: Path) -> Memory:
    """What a training step of the configuration needs, measured on short windows and carried on."""
    config = config_of(path)
    batch = config.training.batch_size
    found = inventory(new_detector(config), batch_size=batch, dtype=AUTOCAST.get(config.training.mixed_precision or ""))
    parts = {
        "parameters": found.parameter_bytes,
        "gradients": found.gradient_bytes,
        "optimizer": found.optimizer_bytes,
        "activations": found.activation_bytes,
    }
    device = "cpu" if config.experiment.device == "cpu" else "cuda"
    fused = device == "cuda" and config.model.mamba.backend in ("auto", "mamba_ssm")
    return Memory(key="training.batch_size", batch_size=batch, device=device, bytes=parts, at_most=fused)
