"""Checks over the installation and the machine. Imports no torch."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

from brainbrr_debug.checks.config import at
from brainbrr_debug.checks.registry import Given, NotApplicable, check
from brainbrr_debug.records import Finding, Severity
from brainbrr_debug.triage.shipped import shipped
from brainbrr_debug.yamlfile import read_yaml

GPU_STACK = "env.gpu_stack"
KNOWN_BAD = "env.known_bad"
FEATURES = "env.feature_deps"
FALLBACKS = "env.fallbacks"
DISK = "env.disk_space"
FILESYSTEM = "env.filesystem"
WORKERS = "env.workers"
TF32 = "env.tf32"

GIB = 1 << 30


@check(GPU_STACK, Severity.P0, needs="environment", summary="a GPU stack that imports and does not compute")
def gpu_stack(given: Given) -> Iterator[Finding]:
    """Driver, CUDA and torch agree; each fused kernel is run forward and backward and compared with its reference."""
    machine = given.machine
    told: list[tuple[str, str]] = []
    if machine.driver is not None and machine.cuda_built is None:
        told.append((f"an NVIDIA driver ({machine.driver}) and a torch without CUDA", "install torch for CUDA"))
    elif machine.driver is not None and not machine.gpus:
        built = f"torch for CUDA {machine.cuda_built} finds no device behind driver {machine.driver}"
        told.append((built, "install a torch for a CUDA that this driver knows, or a newer driver"))
    worst = given.setting(GPU_STACK, "tolerance")
    for parity in given.parities:
        if parity.error is not None:
            told.append((f"{parity.kernel} cannot be run: {parity.error}", f"install {parity.kernel} for this torch"))
        elif not (parity.forward <= worst and parity.backward <= worst):  # NaN, too
            apart = f"{parity.forward:.2g} forward, {parity.backward:.2g} backward"
            told.append((f"{parity.kernel} deviates from its reference: {apart}; expected {worst:g}", "reinstall it"))
    if not told and not machine.gpus and not given.parities:
        raise NotApplicable("no CUDA device, and no package of fused kernels is installed")
    for what, remedy in told:
        yield Finding(
            check=GPU_STACK,
            severity=Severity.P0,
            message=what,
            where="GPU stack",
            why="packages that import well run another kernel than their version promises, or fall back in silence",
            remedy=remedy,
            commands=("brainbrr-debug env",),
        )


@check(KNOWN_BAD, Severity.P0, needs="environment", summary="an installed version that is known to compute wrongly")
def known_bad(given: Given) -> Iterator[Finding]:
    """Installed versions against the list in triage/known_bad.yaml."""
    from packaging.specifiers import SpecifierSet

    for entry in read_yaml(shipped("known_bad.yaml")).values:
        version = given.machine.packages.get(entry["package"]) or _installed(given, entry["package"])
        if version is None or not SpecifierSet(entry["versions"], prereleases=True).contains(version):
            continue
        yield Finding(
            check=KNOWN_BAD,
            severity=Severity[entry["severity"]],
            message=f"{entry['package']} {version} {entry['harm']} (known since {entry['known']}: {entry['source']})",
            where=entry["package"],
            why="nothing of it shows in the forward pass or in the loss",
            remedy=entry["remedy"],
            commands=(f"pip install --upgrade {entry['package']}",),
        )


def _installed(given: Given, package: str) -> str | None:
    from importlib import metadata

    if "machine" in given.known:
        return None  # another machine than this one
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


@check(
    FEATURES, Severity.P0, needs=("config", "environment"), summary="the configuration enables what is not installed"
)
def feature_deps(given: Given) -> Iterator[Finding]:
    """Every package that a key of the configuration calls for can be found."""
    from brainbrr_debug.machine import importable

    for feature in given.for_here.features:
        if not importable(feature.module):
            yield Finding(
                check=FEATURES,
                severity=Severity.P0,
                message=f"{feature.key} needs the package {feature.module}, which is not installed",
                **at(given, feature.key),
                why="training stops where it first imports it, which can be hours after the start",
                remedy="install the package, or change the key",
                commands=(f"pip install '{feature.install}'",),
            )


@check(FALLBACKS, Severity.P1, needs=("config", "environment"), summary="something else runs than is configured")
def fallbacks(given: Given) -> Iterator[Finding]:
    """Variables that override the configuration, interpreted kernels, and a GPU that `auto` will not find."""
    facts, machine = given.accepted, given.machine
    told = [
        (f"{name} is set in the environment and sets {changes}", f"unset {name}")
        for name, changes in facts.overrides.items()
    ]
    if machine.variables.get("TRITON_INTERPRET") == "1":
        told.append(("TRITON_INTERPRET=1: Triton kernels run in Python, thousands of times slower", "unset it"))
    if facts.device == "auto" and machine.driver is not None and not machine.gpus:
        told.append(("device auto takes the processor: torch cannot use the GPU that is here", "see env.gpu_stack"))
    for what, remedy in told:
        yield Finding(
            check=FALLBACKS,
            severity=Severity.P1,
            message=what,
            where="environment",
            file=str(given.config),
            why="the file that is read, shared and compared does not say what ran",
            remedy=remedy,
        )


@check(DISK, Severity.P2, needs=("config", "environment"), summary="too little room where a run writes")
def disk_space(given: Given) -> Iterator[Finding]:
    """Free bytes where the run writes against what it needs."""
    from brainbrr_debug.machine import existing

    for place in given.for_here.places:
        needed = max(place.needs, given.setting(DISK, "min_free_gib") * GIB)
        free = shutil.disk_usage(existing(place.path)).free
        if free < needed:
            yield Finding(
                check=DISK,
                severity=Severity.P2,
                message=f"{place.path}: {free / GIB:.1f} GiB free; expected {needed / GIB:.1f} GiB",
                **at(given, place.key),
                why="a run that cannot write its checkpoint loses what it has learnt",
                remedy="make room, or set the key to another disk",
            )


@check(FILESYSTEM, Severity.P2, needs=("config", "environment"), summary="memory-mapped files on a network's disk")
def filesystem(given: Given) -> Iterator[Finding]:
    """The kind of file system under every folder that is memory-mapped."""
    from brainbrr_debug.machine import filesystem_of

    unsafe, known = given.setting(FILESYSTEM, "unsafe"), given.known.get("filesystems", {})
    for place in given.for_here.places:
        kind = known.get(place.path) or filesystem_of(place.path) if place.mapped else None
        if kind in unsafe:
            yield Finding(
                check=FILESYSTEM,
                severity=Severity.P2,
                message=f"{place.path} lies on {kind}, and its files are memory-mapped",
                **at(given, place.key),
                why="a page that the other side does not deliver kills the process with SIGBUS, after hours",
                remedy="put the cache on a local disk (in WSL: in the Linux file system, not below /mnt)",
            )


@check(WORKERS, Severity.P2, needs=("config", "environment"), summary="more worker processes than processors")
def workers(given: Given) -> Iterator[Finding]:
    """Loader processes against the processors that this process may use."""
    facts, processors = given.for_here, given.machine.processors
    if facts.workers > processors:
        yield Finding(
            check=WORKERS,
            severity=Severity.P2,
            message=f"{facts.workers} worker processes on {processors} processors",
            **at(given, "data.num_workers"),
            why="they take each other's time and hold a copy of the data set each: loading becomes slower",
            remedy=f"set the key to {max(0, processors - 1)} or less",
        )


@check(TF32, Severity.P2, needs="environment", summary="float32 computed with fewer bits, as a side effect")
def tf32(given: Given) -> Iterator[Finding]:
    """The flags as the packages leave them that training imports, against PyTorch's own defaults."""
    defaults: dict[str, Any] = given.setting(TF32, "defaults")
    for name, value in given.precision.items():
        if name in defaults and value != defaults[name]:
            yield Finding(
                check=TF32,
                severity=Severity.P2,
                message=f"{name} is {value!r}; PyTorch's default is {defaults[name]!r}",
                where=name,
                why="an import set it for the whole process: products keep ten bits, eigengaps below 1e-3 are noise",
                remedy="set it back behind the imports, or decide for it in the configuration",
            )
