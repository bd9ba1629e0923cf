"""Machines and installations, healthy and not; what needs a GPU is told by facts instead of by one."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from brainbrr_debug.checks.given import Given
from brainbrr_debug.facts import Feature, Place
from brainbrr_debug.machine import Parity
from tests.triage.cases import Case
from tests.triage.cases.config import A100, known, machine, on

HIGHEST = {"torch.get_float32_matmul_precision()": "highest", "torch.backends.cudnn.allow_tf32": True}


def here(**facts: Any) -> Callable[[Path], Given]:
    """Facts of a machine and of what ran on it."""
    return lambda folder: Given(known={"machine": machine(), "parities": (), "precision": HIGHEST, **facts})


def kernel(forward: float, backward: float, error: str | None = None) -> Callable[[Path], Given]:
    parity = Parity(kernel="mamba_ssm", forward=forward, backward=backward, error=error)
    return here(machine=machine(A100), parities=(parity,))


def installed(**packages: str) -> Callable[[Path], Given]:
    return here(machine=machine(packages={name.replace("_", "-"): version for name, version in packages.items()}))


def feature(module: str) -> Callable[[Path], Given]:
    return on(known(features=(Feature(key="model.graph.backend", module=module, install=module),)), machine())


def place(**options: Any) -> Callable[[Path], Given]:
    """A cache in the case's folder, which lies on whatever the test runs on."""

    def make(folder: Path) -> Given:
        facts = known(places=(Place(key="data.cache_dir", path=folder / "cache" / "deep", **options),))
        return on(facts, machine())(folder)

    return make


def on_filesystem(kind: str) -> Callable[[Path], Given]:
    """The same with this kind of file system under it."""

    def make(folder: Path) -> Given:
        made = place(mapped=True)(folder)
        return Given(config=made.config, known={**made.known, "filesystems": {folder / "cache" / "deep": kind}})

    return make


CASES = {
    "env.gpu_stack": (
        Case(planted=kernel(0.4, 0.1), healthy=kernel(1e-6, 1e-5)),
        Case(planted=kernel(1e-6, math.nan), healthy=kernel(1e-3, 2e-3)),
        Case(planted=kernel(math.nan, math.nan, "undefined symbol"), healthy=here(machine=machine(A100))),
        Case(
            planted=here(machine=machine(driver="570.1", cuda_built=None)),
            healthy=here(machine=machine(A100, driver="570.1")),
        ),
        Case(planted=here(machine=machine(driver="470.1")), healthy=here(machine=machine(A100, driver="570.1"))),
    ),
    "env.known_bad": (
        Case(planted=installed(mamba_ssm="2.2.2"), healthy=installed(mamba_ssm="2.2.5")),
        Case(planted=installed(mamba_ssm="2.0.3"), healthy=installed(mamba_ssm="2.3.2.post1"), finds=2),
        Case(planted=installed(flash_attn="2.0.4"), healthy=installed(flash_attn="2.8.3")),
    ),
    "env.feature_deps": Case(planted=feature("no_such_package"), healthy=feature("yaml")),
    "env.fallbacks": (
        Case(
            planted=on(known(overrides={"BGB_SANITIZE_GRADS": "training.on_nonfinite=sanitize"}), machine()),
            healthy=on(known(), machine()),
        ),
        Case(
            planted=on(known(), machine(variables={"TRITON_INTERPRET": "1"})),
            healthy=on(known(), machine(variables={"TRITON_INTERPRET": "0"})),
        ),
        Case(
            planted=on(known(device="auto"), machine(driver="470.1")),
            healthy=on(known(device="cpu"), machine(driver="470.1")),
        ),
    ),
    "env.disk_space": Case(planted=place(needs=1 << 62), healthy=place(needs=1)),
    "env.filesystem": (
        Case(planted=on_filesystem("9p"), healthy=on_filesystem("ext4")),
        Case(planted=on_filesystem("cifs"), healthy=on_filesystem("nfs4")),
    ),
    "env.workers": Case(planted=on(known(workers=9), machine()), healthy=on(known(workers=8), machine())),
    "env.tf32": Case(
        planted=here(precision={**HIGHEST, "torch.get_float32_matmul_precision()": "high"}), healthy=here()
    ),
}
