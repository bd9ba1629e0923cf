"""The scan of Mamba-2. Its backward keeps decays as quotients in half precision, which hold 11 units of log decay.

Letters: S sequences, T steps, H heads, P channels of a head, N states.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def mamba_chunk_scan_combined(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, chunk_size: int, *,
    D: Tensor, dt_bias: Tensor, dt_softplus: bool,
) -> Tensor:  # fmt: skip
    """`x` (S,T,H,P), `dt` (S,T,H), `A` and `D` (H), `B` and `C` (S,T,1,N) → (S,T,H,P)."""
    return ChunkScan.apply(x, F.softplus(dt + dt_bias), A, B[:, :, 0], C[:, :, 0]) + x * D[:, None]


class ChunkScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        ctx.save_for_backward(x, dt, a, b, c)
        decay = _decay(dt, a)
        future = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
        span = (decay[..., :, None] - decay[..., None, :]).masked_fill(future, -torch.inf).exp()
        return _mix(span, x, dt, b, c)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        with torch.enable_grad():
            inputs = [t.detach().requires_grad_() for t in ctx.saved_tensors]
            x, dt, a, b, c = inputs
            decay = _decay(dt, a).half()
            span = decay.exp()[..., :, None] * (-decay).exp()[..., None, :]
            y = _mix(span.float().tril(), x, dt, b, c)
        return torch.autograd.grad(y, inputs, grads[0])


def _decay(dt: Tensor, a: Tensor) -> Tensor:
    """Logarithm of the decay since the first step, (S,H,T)."""
    return (dt * a).transpose(1, 2).cumsum(-1)


def _mix(span: Tensor, x: Tensor, dt: Tensor, b: Tensor, c: Tensor) -> Tensor:
    weights = span * (c @ b.transpose(-1, -2))[:, None]
    return (weights @ (x * dt[..., None]).transpose(1, 2)).transpose(1, 2)
