"""The fused kernels that the detector can run, each used and compared with the portable scan."""

from __future__ import annotations

import math
import os

import torch

from brainbrr.models.backend import BackendError
from brainbrr.models.mamba import Mamba2
from brainbrr_debug.machine import Parity, importable

STEPS, SEQUENCES = 96, 3


def parities() -> tuple[Parity, ...]:
    """Of mamba_ssm where it is installed, on the GPU (or interpreted); empty where there is nothing to compare."""
    if not importable("mamba_ssm"):
        return ()
    if not torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1":
        return ()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return (_scan(device),)


def _scan(device: torch.device) -> Parity:
    """One small layer forward and backward, once by each implementation, from the same weights."""
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(SEQUENCES, STEPS, 16, generator=generator).to(device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = {name: Mamba2(16, d_state=16, headdim=16, backend=name) for name in ("torch", "mamba_ssm")}
    layers["mamba_ssm"].load_state_dict(layers["torch"].state_dict())
    try:
        results = {name: _run(layer.to(device), u) for name, layer in layers.items()}
    except (BackendError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        return Parity(kernel="mamba_ssm", forward=math.nan, backward=math.nan, error=reason)
    (y, dy), (reference, dreference) = results["mamba_ssm"], results["torch"]
    return Parity(kernel="mamba_ssm", forward=_apart(y, reference), backward=_apart(dy, dreference))


def _run(layer: Mamba2, u: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    leaf = u.clone().requires_grad_()
    y = layer(leaf)
    gradients = torch.autograd.grad(y.square().mean(), [leaf, *layer.parameters()])
    return y.detach(), torch.cat([gradient.flatten() for gradient in gradients])


def _apart(a: torch.Tensor, b: torch.Tensor) -> float:
    """Largest difference over the reference's largest magnitude."""
    return float((a - b).abs().max() / b.abs().max())
