"""What this machine and installation are, for checks to judge: each fact is looked at only when it is asked for."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import re
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

WATCHED = ("torch", "triton", "mamba-ssm", "causal-conv1d", "torch-geometric", "numpy", "scipy", "mne", "h5py")
"""Packages whose versions decide over numbers or files."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One CUDA device: name, compute capability, bytes of memory."""

    name: str
    capability: tuple[int, int]
    memory: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """A kernel against its reference: largest deviation forward and backward over the reference's largest magnitude.

    `error`: why it could not be run at all; then both are NaN.
    """

    kernel: str
    forward: float
    backward: float
    error: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Machine:
    """`cuda_built`: the CUDA that torch was built for; `driver`: of the kernel module, where there is one.

    `memory`: bytes of main memory.
    """

    packages: Mapping[str, str]
    cuda_built: str | None
    driver: str | None
    gpus: tuple[Gpu, ...]
    processors: int
    memory: int
    variables: Mapping[str, str]


def describe_machine() -> Machine:
    """This one."""
    import torch

    gpus = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        properties = torch.cuda.get_device_properties(index)
        capability = (properties.major, properties.minor)
        gpus.append(Gpu(name=properties.name, capability=capability, memory=properties.total_memory))
    return Machine(
        packages={name: version for name in WATCHED if (version := _version(name)) is not None},
        cuda_built=torch.version.cuda,
        driver=driver(),
        gpus=tuple(gpus),
        processors=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0,
        variables=dict(os.environ),
    )


def float32_flags() -> dict[str, object]:
    """What lets float32 be computed with fewer bits, as it is set now in this process."""
    import torch

    return {
        "torch.get_float32_matmul_precision()": torch.get_float32_matmul_precision(),
        "torch.backends.cudnn.allow_tf32": torch.backends.cudnn.allow_tf32,
    }


def importable(module: str) -> bool:
    """Whether a package is there, without importing it."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def filesystem_of(path: Path) -> str | None:
    """The kind of file system that `path` (or the nearest folder above it that exists) lies on; None where unknown."""
    try:
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    here = existing(path)
    kinds = {}
    for line in mounts:
        _, point, kind, *_ = line.split(" ")
        kinds[Path(re.sub(r"\\(\d{3})", lambda found: chr(int(found[1], 8)), point))] = kind
    return next((kinds[folder] for folder in (here, *here.parents) if folder in kinds), None)


def existing(path: Path) -> Path:
    """`path` in full, or the nearest folder above it that exists."""
    path = Path(os.path.abspath(path))
    return next((folder for folder in (path, *path.parents) if folder.exists()), Path("/"))


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def driver() -> str | None:
    """Version of the NVIDIA kernel module; None where there is none."""
    try:
        text = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.search(r"\s(\d+\.\d+(?:\.\d+)?)\s", text)
    return found[1] if found else text.strip()
