"""The scan of `ssd`, one step after the other with the sequences innermost: the fast form on a CPU for small heads.

Letters as in `ssd`: S sequences, T steps, H heads, P channels of a head, N states. Every elementwise operation runs
over S contiguous values, whatever P and N are; the states of all steps are kept for an explicit backward pass.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def stepwise_scan(x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """`x` (H,P,T,S), `dt` (H,T,S), `a` (H), `b` and `c` (N,T,S) → `y` (H,P,T,S): channels outermost.

    Keeps S·T·H·P·N values for the backward pass; differentiable once.
    """
    y: Tensor = StepwiseScan.apply(x * dt[:, None], (dt * a[:, None, None]).exp(), b, c)  # type: ignore[no-untyped-call]
    return y


class StepwiseScan(torch.autograd.Function):
    """h[t] = kept[t] h[t-1] + source[t] ⊗ b[t] and y[t] = h[t] c[t], forward and backward."""

    @staticmethod
    def forward(ctx: Any, source: Tensor, kept: Tensor, b: Tensor, c: Tensor) -> Tensor:
        """`source` (H,P,T,S), `kept` (H,T,S), `b` and `c` (N,T,S) → (H,P,T,S)."""
        states = source[:, :, None] * b  # (H,P,N,T,S)
        steps, keeps = states.unbind(3), kept[:, None, None].unbind(3)
        for before, state, keep in zip(steps[:-1], steps[1:], keeps[1:], strict=True):
            state.addcmul_(before, keep)
        ctx.save_for_backward(source, kept, b, c, states)
        return _over_states(states, c)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The gradient with respect to source, kept, b and c."""
        grad = grads[0].contiguous()
        source, kept, b, c, states = ctx.saved_tensors
        flow = grad[:, :, None] * c  # (H,P,N,T,S): gradient with respect to every state
        steps, keeps = flow.unbind(3), kept[:, None, None].unbind(3)
        for after, step, keep in zip(reversed(steps[1:]), reversed(steps[:-1]), reversed(keeps[1:]), strict=True):
            step.addcmul_(after, keep)
        grad_kept = torch.zeros_like(kept)
        grad_kept[:, 1:] = (flow[:, :, :, 1:] * states[:, :, :, :-1]).sum((1, 2))
        return _over_states(flow, b), grad_kept, _over_channels(flow, source), _over_channels(states, grad)


def _over_states(states: Tensor, weights: Tensor) -> Tensor:
    """Σ over N of `states` (H,P,N,T,S) · `weights` (N,T,S): (H,P,T,S)."""
    total = states[:, :, 0] * weights[0]
    for index in range(1, weights.shape[0]):
        total.addcmul_(states[:, :, index], weights[index])
    return total


def _over_channels(states: Tensor, weights: Tensor) -> Tensor:
    """Σ over H and P of `states` (H,P,N,T,S) · `weights` (H,P,T,S): (N,T,S)."""
    states, weights = states.flatten(0, 1), weights.flatten(0, 1)
    total = states[0] * weights[0]
    for index in range(1, weights.shape[0]):
        total.addcmul_(states[index], weights[index])
    return total
