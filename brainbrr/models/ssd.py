"""The state-space-dual scan of Mamba-2: matrix-shaped in chunks, and the plain recurrence it must agree with.

Letters: S sequences, T steps, H heads, P channels of a head, N states, Q steps of a chunk, n chunks.

    h[t] = exp(dt[t] a) h[t-1] + dt[t] x[t] ⊗ b[t]        h (S,H,P,N)
    y[t] = h[t] c[t]
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def chunked_scan(x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, *, chunk_size: int = 16) -> Tensor:
    """The scan as matrix products over chunks of `chunk_size` steps; any number of steps.

    `x` (S,T,H,P), step lengths `dt` (S,T,H) at least 0, decay rates `a` (H) below 0, `b` and `c` (S,T,N), shared by
    the heads. Returns `y` (S,T,H,P). Raises ValueError for shapes that do not fit together.
    """
    _check_shapes(x, dt, a, b, c, chunk_size)
    sequences, steps, heads, width = x.shape
    chunk = min(chunk_size, steps)
    chunks = -(-steps // chunk)
    padding = chunks * chunk - steps
    # A step of length 0 neither decays the state nor adds to it: padding the end changes no earlier step.
    dt = F.pad(dt, (0, 0, 0, padding)).view(sequences, chunks, chunk, heads)
    b = F.pad(b, (0, 0, 0, padding)).view(sequences, chunks, chunk, -1)
    c = F.pad(c, (0, 0, 0, padding)).view(sequences, chunks, chunk, -1)
    x = F.pad(x, (0, 0, 0, 0, 0, padding)).view(sequences, chunks, chunk, heads, width) * dt[..., None]
    decay = (dt * a).transpose(2, 3).cumsum(-1)  # (S,n,H,Q) logarithm of the decay since the chunk's start
    y = _within_chunks(x, decay, b, c)
    if chunks > 1:
        y = y + _across_chunks(x, decay, b, c)
    return y.reshape(sequences, chunks * chunk, heads, width)[:, :steps]


def _within_chunks(x: Tensor, decay: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """What the steps of a chunk contribute to later steps of the same chunk, (S,n,Q,H,P)."""
    chunk = decay.shape[-1]
    future = torch.ones(chunk, chunk, dtype=torch.bool, device=x.device).triu(1)
    # The mask comes before the exponential: above the diagonal the exponent is positive and would overflow, and an
    # infinity that is masked afterwards is finite forward and NaN backward.
    span = (decay[..., :, None] - decay[..., None, :]).masked_fill_(future, -torch.inf).exp_()  # (S,n,H,Q,Q)
    mix = span * (c @ b.transpose(-1, -2))[:, :, None]
    return (mix @ x.transpose(2, 3)).transpose(2, 3)


def _across_chunks(x: Tensor, decay: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """What the state left by earlier chunks contributes, (S,n,Q,H,P)."""
    _, chunks, _, heads, width = x.shape
    to_end = (decay[..., -1:] - decay).exp().transpose(2, 3)  # (S,n,Q,H)
    added = (x * to_end[..., None]).flatten(3).transpose(-1, -2) @ b  # (S,n,H·P,N)
    added = added.view(-1, chunks, heads, width, b.shape[-1])
    kept = decay[..., -1].exp()[..., None, None]  # (S,n,H,1,1)
    state = torch.zeros_like(added[:, 0])
    entering = [state]
    # unbind, not added[:, i]: the backward of an index fills a zero tensor of the full size at every step.
    for keep, add in zip(kept.unbind(1)[:-1], added.unbind(1)[:-1], strict=True):
        state = keep * state + add
        entering.append(state)
    states = torch.stack(entering, 1).flatten(2, 3)  # (S,n,H·P,N)
    seen = (c @ states.transpose(-1, -2)).view(x.shape)
    return seen * decay.exp().transpose(2, 3)[..., None]


def recurrence(x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """The same scan, one step after the other: slow and obviously right. Shapes as in `chunked_scan`."""
    _check_shapes(x, dt, a, b, c, 1)
    state = x.new_zeros(x.shape[0], x.shape[2], x.shape[3], b.shape[-1])
    outputs = []
    for x_t, dt_t, b_t, c_t in zip(x.unbind(1), dt.unbind(1), b.unbind(1), c.unbind(1), strict=True):
        step = dt_t[..., None, None]
        state = (step * a[:, None, None]).exp() * state + step * x_t[..., None] * b_t[:, None, None, :]
        outputs.append((state * c_t[:, None, None, :]).sum(-1))
    return torch.stack(outputs, 1)


def _check_shapes(x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, chunk_size: int) -> None:
    if x.dim() != 4 or x.shape[1] == 0:
        raise ValueError(f"x has shape {tuple(x.shape)}; expected (sequences, steps, heads, width) with a step or more")
    if dt.shape != x.shape[:3] or a.shape != x.shape[2:3] or b.shape != c.shape or b.shape[:2] != x.shape[:2]:
        raise ValueError(
            f"dt {tuple(dt.shape)}, a {tuple(a.shape)}, b {tuple(b.shape)}, c {tuple(c.shape)} do not fit x "
            f"{tuple(x.shape)}; expected dt (S,T,H), a (H), b and c (S,T,N) for x (S,T,H,P)"
        )
    if chunk_size < 1:
        raise ValueError(f"chunk_size is {chunk_size}; expected 1 or more steps")
