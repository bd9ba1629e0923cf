"""Which implementation of the Mamba-2 scan runs: chosen aloud, never exchanged in silence."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.util
import os
import sys
import types
from collections.abc import Callable
from typing import Any, Literal

import torch

Backend = Literal["auto", "torch", "mamba_ssm", "conv1d"]


class BackendError(RuntimeError):
    """An implementation that was asked for, or that the device calls for, and that cannot run here."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What runs (`torch`, `mamba_ssm` or `conv1d`), and why where that is not simply what was asked for."""

    name: str
    note: str | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Backends:
    """Everything a detector chose: scan of the Mamba-2 layers, form of the graph convolution, notes on fallbacks."""

    device: str
    mamba: str
    graph: str
    notes: tuple[str, ...]


def choose(backend: Backend, device: torch.device) -> Choice:
    """The implementation that `backend` means on `device`.

    `auto` is the fused kernels on CUDA and the PyTorch scan elsewhere. Raises BackendError where the kernels are
    called for and missing, or asked for on a device they do not run on.
    """
    if backend == "conv1d":
        return Choice(name="conv1d", note="mamba.backend is conv1d: a convolution stands in for Mamba-2, on request")
    if backend == "torch":
        note = "mamba.backend is torch: the portable scan runs on a GPU, on request" if device.type == "cuda" else None
        return Choice(name="torch", note=note)
    if backend == "auto" and device.type != "cuda":
        return Choice(name="torch", note=f"mamba.backend auto: no fused kernels on {device.type}, the torch scan runs")
    if device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        raise BackendError(
            f"mamba.backend is {backend} on {device.type}; expected a CUDA device; set model.mamba.backend to torch"
        )
    fused_kernels()
    return Choice(name="mamba_ssm")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Kernels:
    """The fused kernels of mamba_ssm that a layer calls: scan, and gated RMS norm."""

    scan: Callable[..., Any]
    gated_norm: Callable[..., Any]


@functools.cache
def fused_kernels() -> Kernels:
    """The kernels of mamba_ssm. Raises BackendError when it is not installed or cannot be imported."""
    try:
        scan = _kernel_module("mamba_ssm.ops.triton.ssd_combined").mamba_chunk_scan_combined
        norm = _kernel_module("mamba_ssm.ops.triton.layernorm_gated").rmsnorm_fn
    except (ImportError, AttributeError) as error:
        raise BackendError(
            f"mamba_ssm cannot be used ({error}); expected mamba-ssm 2.2.5 or newer; install the extra gpu, or set "
            "model.mamba.backend to torch to run the portable scan knowingly"
        ) from error
    return Kernels(scan=scan, gated_norm=norm)


def _kernel_module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        if getattr(error, "name", None) != "selective_scan_cuda":
            raise
    # The package's __init__ wants the compiled kernels of Mamba-1, which Mamba-2 never calls and a wheel built without
    # nvcc lacks. A bare package with the right path lets the Triton kernels be imported without that __init__.
    spec = importlib.util.find_spec("mamba_ssm")
    if spec is None or spec.submodule_search_locations is None:
        raise ImportError("mamba_ssm is not a package")
    bare = types.ModuleType("mamba_ssm")
    bare.__path__ = list(spec.submodule_search_locations)
    sys.modules["mamba_ssm"] = bare
    return importlib.import_module(name)
