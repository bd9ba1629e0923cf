"""The short causal convolution of Mamba-2, with channels outermost and sequences innermost.

Letters: M channels, T steps, S sequences, K taps. A CPU runs it as K fused multiply-adds over S contiguous values,
two to four times faster forward and backward than the depthwise `conv1d` of PyTorch over (S,M,T).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def causal_convolution(x: Tensor, conv: nn.Conv1d) -> Tensor:
    """The depthwise `conv`, padded so that step t sees the steps up to t: `x` (M,T,S) → (M,T,S)."""
    y: Tensor = CausalConvolution.apply(x, conv.weight[:, 0], conv.bias)  # type: ignore[no-untyped-call]
    return y


class CausalConvolution(torch.autograd.Function):
    """y[m,t] = bias[m] + Σ over k of weight[m,K-1-k] · x[m,t-k]; differentiable once."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """`x` (M,T,S), `weight` (M,K) and `bias` (M) → (M,T,S)."""
        ctx.save_for_backward(x, weight)
        taps = _delays(weight)
        y = torch.addcmul(bias[:, None, None], x, taps[0])
        for delay, tap in enumerate(taps[1 : x.shape[1]], 1):
            y[:, delay:].addcmul_(x[:, :-delay], tap)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The gradient with respect to x, weight and bias."""
        grad = grads[0].contiguous()
        x, weight = ctx.saved_tensors
        taps = _delays(weight)
        grad_x = grad * taps[0]
        grad_weight = torch.zeros_like(weight)
        grad_weight[:, -1] = (grad * x).sum((1, 2))
        for delay, tap in enumerate(taps[1 : x.shape[1]], 1):
            later, earlier = grad[:, delay:], x[:, :-delay]
            grad_x[:, :-delay].addcmul_(later, tap)
            grad_weight[:, -1 - delay] = (later * earlier).sum((1, 2))
        return grad_x, grad_weight, grad.sum((1, 2))


def _delays(weight: Tensor) -> list[Tensor]:
    """The taps of `weight` (M,K) from no delay to K-1 steps, each (M,1,1)."""
    return [tap[:, None, None] for tap in reversed(weight.unbind(1))]
