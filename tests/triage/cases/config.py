"""Configurations with and without a trap."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from brainbrr_debug.checks.given import Given
from brainbrr_debug.facts import Bounds, ConfigFacts, Corner, Schedule, StateSpace
from brainbrr_debug.machine import Gpu, Machine
from tests.triage.cases import Case

Make = Callable[[Path], Given]


def written(text: str, name: str = "config.yaml", **beside: str) -> Make:
    """A configuration file, and others beside it by name without the ending."""

    def make(folder: Path) -> Given:
        for stem, content in beside.items():
            (folder / f"{stem}.yaml").write_text(content, encoding="utf-8")
        path = folder / name
        path.write_text(text, encoding="utf-8")
        return Given(config=path)

    return make


def known(**facts: Any) -> Make:
    """Facts of a configuration that is nowhere on disk."""
    return lambda folder: Given(
        config=folder / "c.yaml", known={"config_facts": ConfigFacts(path=folder / "c.yaml", lines={}, **facts)}
    )


def machine(*gpus: Gpu, **changes: Any) -> Machine:
    """A machine with these cards and the numbers of a healthy one."""
    values: dict[str, Any] = {
        "packages": {},
        "cuda_built": "12.8",
        "driver": "570.1" if gpus else None,
        "gpus": gpus,
        "processors": 8,
        "memory": 32 << 30,
        "variables": {},
    }
    return Machine(**values | changes)


def on(given: Make, here: Machine) -> Make:
    """What `given` makes, on that machine."""

    def make(folder: Path) -> Given:
        made = given(folder)
        return Given(config=made.config, known={**made.known, "machine": here})

    return make


T4 = Gpu(name="T4", capability=(7, 5), memory=16 << 30)
A100 = Gpu(name="A100", capability=(8, 0), memory=80 << 30)


def schedule(**changes: Any) -> Make:
    """A schedule of 100 epochs of 1,000 steps with one epoch of warm-up."""
    values: dict[str, Any] = {
        "key": "training.scheduler.warmup_ratio",
        "peak": 1e-4,
        "epochs": 100.0,
        "warmup_epochs": 1.0,
        "steps": 100_000,
        "epoch_steps": 1000,
        "warmup_steps": 1000,
        "rates": (1e-7, 2e-7, 3e-7, 4e-7, 5e-7),
    }
    made = Schedule(**values | changes)
    facts = known()
    return lambda folder: Given(
        config=folder / "c.yaml", known={**facts(folder).known, "schedule": made, "corners": ()}
    )


def corner(gradient: float) -> Make:
    found = Corner(name="logits 100, target 1, gamma 0.5", loss=0.1, gradient=gradient)
    return lambda folder: Given(config=folder / "c.yaml", known={**known()(folder).known, "corners": (found,)})


def clamped(low: float, high: float, loss: tuple[float, float] | None = None) -> Make:
    return known(bounds=Bounds(key="model.clamp", logits=(low, high), loss=loss, enter=0.86, leave=0.78))


def space(headdim: int, *, fused: bool = True, d_model: int = 64) -> Make:
    return known(spaces=(StateSpace(key="k", d_model=d_model, expand=2, headdim=headdim, fused_convolution=fused),))


FUSED = "experiment: {device: cuda}\nmodel: {mamba: {backend: mamba_ssm, chunk_size: 256}}\n"
SMOKE = "experiment: {purpose: smoke}\ndata: {limit_files: 3}\ntraining: {epochs: 1}\n"

CASES = {
    "config.refused": (
        Case(planted=written("training:\n  batch_size: 0\n"), healthy=written("training:\n  batch_size: 1\n")),
        Case(planted=written("training: {bach_size: 4}\n"), healthy=written("{}\n")),
        Case(planted=written("- 1\n- 2\n"), healthy=written("data: {}\n")),
        Case(planted=written("a: [1\n"), healthy=written("training: {batch_size: 8}\n")),
    ),
    "config.unread": (
        Case(
            planted=written("training:\n  bach_size: 4\n"),
            healthy=written("training:\n  batch_size: 4\n"),
            look="config",
        ),
        Case(
            planted=written("training: {loss: bce, focal_gamma: 2.0}\n"),
            healthy=written("training: {loss: focal, focal_gamma: 2.0}\n"),
            look="config",
        ),
        Case(
            planted=written("model: {architecture: tcn, mamba: {n_layers: 2}, graph: {alpha: 0.1}}\n"),
            healthy=written("model: {architecture: v3, mamba: {n_layers: 2}, graph: {alpha: 0.1}}\n"),
            look="config",
            finds=2,
        ),
        Case(
            planted=written("data: {num_workers: 0, prefetch_factor: 4}\n"),
            healthy=written("data: {num_workers: 2, prefetch_factor: 4}\n"),
            look="config",
        ),
    ),
    "config.precision_device": (
        Case(
            planted=on(known(precision="fp16", device="cpu"), machine(A100)),
            healthy=on(known(precision="float32", device="cpu"), machine(A100)),
        ),
        Case(
            planted=on(known(precision="bf16", device="cuda"), machine(T4)),
            healthy=on(known(precision="bf16", device="cuda"), machine(A100)),
        ),
        Case(
            planted=on(known(precision="fp16", device="auto"), machine()),
            healthy=on(known(precision="fp16", device="auto"), machine(T4)),
        ),
    ),
    "config.ssm_dims": (
        Case(planted=space(48), healthy=space(8)),
        Case(planted=space(32), healthy=space(32, fused=False)),
        Case(
            planted=written("model: {mamba: {d_model: 64, headdim: 48}}\n"),
            healthy=written("model: {mamba: {d_model: 64, headdim: 32}}\n"),
        ),
    ),
    "config.index_overflow": (
        Case(
            planted=written(FUSED + "training: {batch_size: 48}\n"),
            healthy=written(FUSED + "training: {batch_size: 32}\n"),
        ),
        Case(
            planted=written(FUSED + "training: {batch_size: 48}\n"),
            healthy=written(FUSED.replace("256", "64") + "training: {batch_size: 48}\n"),
        ),
    ),
    "config.bounds_agree": (
        Case(planted=clamped(-1, 1), healthy=clamped(-10, 10)),
        Case(planted=clamped(2, 9), healthy=clamped(-2, 9)),
        Case(planted=clamped(-10, 10, (-9, 9)), healthy=clamped(-9, 9, (-9, 9))),
        Case(planted=written("model: {clamp: [-1.0, 1.0]}\n"), healthy=written("model: {clamp: [-10.0, 10.0]}\n")),
    ),
    "config.drift": (
        Case(
            planted=written(SMOKE + "model: {architecture: tcn}\n", "smoke.yaml", train="model: {architecture: v3}\n"),
            healthy=written(SMOKE, "smoke.yaml", train="model: {architecture: v3}\n"),
        ),
        Case(planted=written(SMOKE, "smoke.yaml"), healthy=written(SMOKE, "smoke.yaml", train="{}\n")),
    ),
    "config.warmup": (
        Case(
            planted=written("training: {epochs: 100, scheduler: {warmup_ratio: 0.1}}\n"),
            healthy=written("training: {epochs: 100, scheduler: {warmup_ratio: 0.01}}\n"),
        ),
        Case(planted=schedule(rates=(1e-4, 1.3e-8, 2e-8, 3e-8, 4e-8)), healthy=schedule()),
        Case(planted=schedule(rates=(1e-7, 2e-7, 3e-4, 4e-4, 5e-4)), healthy=schedule(rates=())),
    ),
    "config.loss_corners": (
        Case(planted=corner(math.nan), healthy=corner(0.1)),
        Case(planted=corner(math.inf), healthy=written("training: {focal_gamma: 0.5, focal_alpha: 1.0}\n")),
    ),
}
