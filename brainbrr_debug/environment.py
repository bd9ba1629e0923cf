"""What a run's bits depend on besides its inputs: versions, processor, threads, precision flags."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from typing import Any

import torch

from brainbrr_debug.machine import driver

PACKAGES = (
    "numpy", "scipy", "h5py", "mne", "mamba-ssm", "causal-conv1d", "triton", "torch-geometric", "brainbrr",
)  # fmt: skip
VARIABLES = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "MKL_CBWR", "ATEN_CPU_CAPABILITY", "CUBLAS_WORKSPACE_CONFIG",
    "CUDA_VISIBLE_DEVICES", "NVIDIA_TF32_OVERRIDE", "MAMBA_DETERMINISTIC", "TRITON_CACHE_AUTOTUNING", "PYTHONHASHSEED",
)  # fmt: skip


def describe_environment(device: torch.device | str = "cpu") -> dict[str, Any]:
    """The environment of a run on `device` as plain JSON types."""
    device = torch.device(device)
    return {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "device": _device(device),
        "precision": _precision(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "interop_threads": torch.get_num_interop_threads(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        "driver": driver(),
        "packages": _versions(),
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
        "command": [os.path.basename(sys.argv[0]), *sys.argv[1:]] if sys.argv else [],
    }


def _device(device: torch.device) -> str:
    if device.type == "cuda" and torch.cuda.is_available():
        return f"cuda: {torch.cuda.get_device_name(device)}"
    return device.type


def _precision() -> dict[str, Any]:
    return {
        "default_dtype": str(torch.get_default_dtype()).removeprefix("torch."),
        "float32_matmul": torch.get_float32_matmul_precision(),
        "cudnn_allow_tf32": torch.backends.cudnn.allow_tf32,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "flush_denormal": _flushes_denormals(),
    }


def _flushes_denormals() -> bool:
    return bool((torch.tensor([1e-310], dtype=torch.float64) * 0.5).item() == 0.0)


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
