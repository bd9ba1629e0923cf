"""Mamba-2: the block of `mamba_ssm.Mamba2`, its parameters and its function.

Letters: S sequences, T steps, D = d_model, I = expand·D inner channels, H = I/headdim heads, P = headdim, N states,
M = I + 2N channels of the convolution.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brainbrr.models.backend import Backend, Kernels, choose, fused_kernels
from brainbrr.models.convolution import causal_convolution
from brainbrr.models.ssd import chunked_scan
from brainbrr.models.stepwise import stepwise_scan

A_RANGE = (1.0, 16.0)  # decay rates at initialisation
DT_RANGE = (1e-3, 0.1)  # step lengths at initialisation
STEPWISE_STATES = 16  # P·N up to which a CPU is faster step by step: measured, 4 times at 16, no gain from 32 on


class GatedNorm(nn.Module):
    """RMS norm of y·silu(z) over the channels: `RMSNormGated` of mamba_ssm with `norm_before_gate=False`."""

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, y: Tensor, z: Tensor) -> Tensor:
        """`y` and its gate `z`, both (S,T,I) → (S,T,I)."""
        return F.rms_norm(y * F.silu(z), self.weight.shape, self.weight, self.eps)

    def channels_first(self, y: Tensor, z: Tensor) -> Tensor:
        """The same for (I,T,S)."""
        gated = y * F.silu(z)
        scale = (gated.square().mean(0) + self.eps).rsqrt()
        return gated * scale * self.weight[:, None, None]


class Mamba2(nn.Module):
    """The block of `mamba_ssm.Mamba2` with one group, its parameter names and its function; state dicts fit both ways.

    (S,T,D) → (S,T,D). `backend` is `auto`, `torch` or `mamba_ssm`; what it comes to depends on the device of the
    input, see `backend.choose`. `d_state` is N, `d_conv` the taps of the convolution, `chunk_size` steps.
    Raises ValueError when headdim does not divide expand·d_model, or the backend is another.
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 128,
        d_conv: int = 4,
        expand: int = 2,
        headdim: int = 64,
        chunk_size: int = 16,
        backend: Backend = "auto",
    ) -> None:
        super().__init__()
        inner = expand * d_model
        if inner % headdim:
            raise ValueError(
                f"headdim is {headdim}, which does not divide expand·d_model = {expand}·{d_model} = {inner}; "
                "set headdim to one of its divisors"
            )
        if backend not in ("auto", "torch", "mamba_ssm"):
            raise ValueError(f"backend of Mamba2 is {backend!r}; expected auto, torch or mamba_ssm")
        self.inner, self.d_state, self.headdim, self.chunk_size = inner, d_state, headdim, chunk_size
        self.heads = inner // headdim
        self.mixed = inner + 2 * d_state
        self.backend: Backend = backend
        self.in_proj = nn.Linear(d_model, inner + self.mixed + self.heads, bias=False)  # [z, x, B, C, dt]
        self.conv1d = nn.Conv1d(self.mixed, self.mixed, d_conv, groups=self.mixed, padding=d_conv - 1)
        self.dt_bias = nn.Parameter(_initial_dt_bias(self.heads))
        self.A_log = nn.Parameter(torch.empty(self.heads).uniform_(*A_RANGE).log())
        self.D = nn.Parameter(torch.ones(self.heads))
        self.norm = GatedNorm(inner)
        self.out_proj = nn.Linear(inner, d_model, bias=False)

    @property
    def slab_values(self) -> int:
        """Values per sequence and step of the largest intermediate tensor."""
        return max(self.heads * self.chunk_size, self.in_proj.out_features)

    def forward(self, u: Tensor) -> Tensor:
        """`u` (S,T,D) → (S,T,D), causal: step t sees the steps up to t.

        In PyTorch the form depends on the device and on P·N alone, so that a model takes the same at every batch.
        """
        if choose(self.backend, u.device).name == "mamba_ssm":
            return self._fused(u, fused_kernels())
        small = self.headdim * self.d_state <= STEPWISE_STATES
        mix = self._stepwise if small and u.device.type == "cpu" else self._chunked
        return mix(u)

    def _chunked(self, u: Tensor) -> Tensor:
        z, mixed, dt = torch.split(self.in_proj(u), [self.inner, self.mixed, self.heads], dim=-1)
        with torch.autocast(u.device.type, enabled=False):
            z, mixed, dt = _full_precision(z, mixed, dt)
            mixed = F.silu(causal_convolution(mixed, self.conv1d, channels="last"))
            x, b, c = torch.split(mixed, [self.inner, self.d_state, self.d_state], dim=-1)
            x = x.view(*u.shape[:2], self.heads, self.headdim)
            dt = F.softplus(dt + self.dt_bias)
            y = chunked_scan(x, dt, -self.A_log.exp(), b, c, chunk_size=self.chunk_size) + x * self.D[:, None]
            y = self.norm(y.flatten(2), z)
        out: Tensor = self.out_proj(y)
        return out

    def _stepwise(self, u: Tensor) -> Tensor:
        """With channels outermost and sequences innermost: what a CPU's vector units want where heads are small."""
        sequences, steps, _ = u.shape
        projected: Tensor = self.in_proj(u.transpose(0, 1)).flatten(0, 1).t().contiguous().view(-1, steps, sequences)
        z, mixed, dt = torch.split(projected, [self.inner, self.mixed, self.heads])
        with torch.autocast(u.device.type, enabled=False):
            z, mixed, dt = _full_precision(z, mixed, dt)
            mixed = F.silu(causal_convolution(mixed, self.conv1d, channels="first"))
            x, b, c = torch.split(mixed, [self.inner, self.d_state, self.d_state])
            x = x.view(self.heads, self.headdim, steps, sequences)
            dt = F.softplus(dt + self.dt_bias[:, None, None])
            y = stepwise_scan(x, dt, -self.A_log.exp(), b, c) + x * self.D[:, None, None, None]
            y = self.norm.channels_first(y.flatten(0, 1), z)
        out: Tensor = self.out_proj(y.flatten(1).t())
        return out.view(steps, sequences, -1).transpose(0, 1)

    def _fused(self, u: Tensor, kernels: Kernels) -> Tensor:
        """As `mamba_ssm.Mamba2` with `use_mem_eff_path=False`: its scan and its gated norm, PyTorch's convolution."""
        z, mixed, dt = torch.split(self.in_proj(u), [self.inner, self.mixed, self.heads], dim=-1)
        mixed = F.silu(self.conv1d(mixed.transpose(1, 2))[..., : u.shape[1]]).transpose(1, 2)
        x, b, c = torch.split(mixed, [self.inner, self.d_state, self.d_state], dim=-1)
        x = x.reshape(*u.shape[:2], self.heads, self.headdim)
        # Triton tiles want a power of two of at least 16 steps; the result does not depend on the chunks.
        chunk_size = max(32, 1 << (self.chunk_size - 1).bit_length())
        rates = -self.A_log.float().exp()
        y = kernels.scan(
            x, dt, rates, b[:, :, None], c[:, :, None], chunk_size, D=self.D, dt_bias=self.dt_bias, dt_softplus=True
        )
        norm = self.norm
        y = kernels.gated_norm(y.flatten(2), norm.weight, None, z=z, eps=norm.eps, norm_before_gate=False)
        out: Tensor = self.out_proj(y)
        return out


def _full_precision(*tensors: Tensor) -> tuple[Tensor, ...]:
    """float32 at least: a scan sums over many steps, whatever autocast says of the projections around it."""
    return tuple(t.float() if t.dtype in (torch.float16, torch.bfloat16) else t for t in tensors)


def _initial_dt_bias(heads: int) -> Tensor:
    """The inverse softplus of step lengths that are log-uniform over DT_RANGE, (H)."""
    low, high = (math.log(bound) for bound in DT_RANGE)
    dt = torch.empty(heads).uniform_(low, high).exp()
    return dt + torch.log(-torch.expm1(-dt))
