"""Mamba2: parameters of mamba_ssm, the same function in both forms, causality, backends."""

from __future__ import annotations

import importlib.util
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from brainbrr.models import mamba
from brainbrr.models.backend import BackendError, choose
from brainbrr.models.bimamba import BiMamba2, BiMamba2Stack, ConvolutionStandIn, LayerOptions
from brainbrr.models.convolution import causal_convolution
from brainbrr.models.mamba import A_RANGE, DT_RANGE, Mamba2
from brainbrr.models.ssd import recurrence

SMALL: dict[str, Any] = {"d_state": 3, "headdim": 4, "chunk_size": 4, "backend": "torch"}  # P·N = 12: step by step
LARGE: dict[str, Any] = {"d_state": 6, "headdim": 4, "chunk_size": 4, "backend": "torch"}  # P·N = 24: chunked


def textbook(layer: Mamba2, u: Tensor) -> Tensor:
    """The block as its paper has it: plain convolution, plain recurrence."""
    z, mixed, dt = layer.in_proj(u).split((layer.inner, layer.mixed, layer.heads), dim=-1)
    mixed = F.silu(layer.conv1d(mixed.transpose(1, 2))[..., : u.shape[1]].transpose(1, 2))
    x, b, c = mixed.split((layer.inner, layer.d_state, layer.d_state), dim=-1)
    x = x.unflatten(-1, (layer.heads, layer.headdim))
    y = recurrence(x, F.softplus(dt + layer.dt_bias), -layer.A_log.exp(), b, c) + x * layer.D[:, None]
    gated = y.flatten(2) * F.silu(z)
    return layer.out_proj(gated * (gated.square().mean(-1, keepdim=True) + 1e-5).rsqrt() * layer.norm.weight)


@pytest.mark.parametrize("sizes", [SMALL, LARGE], ids=["stepwise", "chunked"])
@pytest.mark.parametrize("steps", [1, 2, 3, 11])
def test_the_block_is_the_textbook_block_forward_and_backward(sizes: dict[str, Any], steps: int) -> None:
    layer = Mamba2(8, **sizes).double()
    u = torch.randn(3, steps, 8, dtype=torch.float64, requires_grad=True)
    wanted = (u, *layer.parameters())
    expected = textbook(layer, u)
    upstream = torch.randn_like(expected)
    gradients = torch.autograd.grad(expected, wanted, upstream)
    found = layer(u)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    for mine, theirs in zip(torch.autograd.grad(found, wanted, upstream), gradients, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-10)


def test_both_forms_are_reached_by_size_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    reached: list[str] = []
    monkeypatch.setattr(Mamba2, "_chunked", lambda self, u: reached.append("chunked"))
    monkeypatch.setattr(Mamba2, "_stepwise", lambda self, u: reached.append("stepwise"))
    for sizes in (SMALL, LARGE):
        Mamba2(8, **sizes)(torch.zeros(1, 2, 8))
    assert reached == ["stepwise", "chunked"]


def test_gradcheck_of_the_block() -> None:
    for sizes in (SMALL, LARGE):
        layer = Mamba2(4, **(sizes | {"headdim": 4})).double()
        u = torch.randn(2, 5, 4, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(layer, (u,))


def test_state_dict_has_the_names_and_shapes_of_mamba_ssm() -> None:
    layer = Mamba2(64, d_state=16, d_conv=4, headdim=8)
    assert {name: tuple(tensor.shape) for name, tensor in layer.state_dict().items()} == {
        "dt_bias": (16,),
        "A_log": (16,),
        "D": (16,),
        "in_proj.weight": (304, 64),
        "conv1d.weight": (160, 1, 4),
        "conv1d.bias": (160,),
        "norm.weight": (128,),
        "out_proj.weight": (64, 128),
    }
    assert sum(parameter.numel() for parameter in layer.parameters()) == 28624


def test_initial_rates_and_step_lengths_lie_in_their_ranges() -> None:
    layer = Mamba2(64, headdim=1)
    rates, steps = layer.A_log.exp(), F.softplus(layer.dt_bias)
    assert A_RANGE[0] <= rates.min() and rates.max() <= A_RANGE[1]
    assert DT_RANGE[0] * 0.999 <= steps.min() and steps.max() <= DT_RANGE[1] * 1.001
    assert abs(steps.log().mean() - (math.log(1e-3) + math.log(0.1)) / 2) < 0.5


@pytest.mark.parametrize("sizes", [SMALL, LARGE], ids=["stepwise", "chunked"])
def test_a_step_sees_the_past_and_not_the_future(sizes: dict[str, Any]) -> None:
    layer = Mamba2(8, **sizes)
    u = torch.randn(1, 12, 8)
    changed = u.clone()
    changed[:, 6] += 1
    difference = (layer(changed) - layer(u)).abs().amax(-1)[0]
    assert (difference[:6] == 0).all()
    assert (difference[6:] > 0).all()


@pytest.mark.parametrize("sizes", [SMALL, LARGE], ids=["stepwise", "chunked"])
def test_a_step_of_zeros_leaves_zeros_whatever_came_before(sizes: dict[str, Any]) -> None:
    # The gate z has no bias: silu(0) closes it. This is how a flat stretch stays exactly zero in a bias-free network.
    u = torch.randn(1, 9, 8)
    u[:, 5] = 0
    assert (Mamba2(8, **sizes)(u)[:, 5] == 0).all()


def test_half_precision_autocast_keeps_the_scan_in_float32() -> None:
    layer = Mamba2(8, **LARGE)
    u = torch.randn(2, 9, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = layer(u)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), layer(u), rtol=0.05, atol=0.02)


def test_headdim_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match=r"headdim is 5, which does not divide expand·d_model = 2·8 = 16"):
        Mamba2(8, headdim=5)


@pytest.mark.parametrize("layout", ["first", "last"])
@pytest.mark.parametrize("steps", [1, 3, 9])
def test_the_convolution_is_that_of_pytorch(layout: Any, steps: int) -> None:
    conv = torch.nn.Conv1d(5, 5, 4, groups=5, padding=3).double()
    x = torch.randn(2, steps, 5, dtype=torch.float64)
    expected = conv(x.transpose(1, 2))[..., :steps].transpose(1, 2)
    turned = x.permute(2, 1, 0).contiguous() if layout == "first" else x
    found = causal_convolution(turned, conv, channels=layout)
    torch.testing.assert_close(found.permute(2, 1, 0) if layout == "first" else found, expected)
    turned = turned.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x, w, b: torch.func.functional_call(
            _Convolution(conv, layout), {"conv.weight": w, "conv.bias": b}, (x,)
        ),
        (turned, conv.weight, conv.bias),
    )


class _Convolution(torch.nn.Module):
    def __init__(self, conv: torch.nn.Conv1d, layout: Any) -> None:
        super().__init__()
        self.conv, self.layout = conv, layout

    def forward(self, x: Tensor) -> Tensor:
        return causal_convolution(x, self.conv, channels=self.layout)


def options(**changes: Any) -> LayerOptions:
    values: dict[str, Any] = {
        "d_model": 8, "d_state": 4, "d_conv": 4, "headdim": 4, "chunk_size": 4,
        "backend": "torch", "dropout": 0.0, "norm": True, "bias": True,
    }  # fmt: skip
    return LayerOptions(**(values | changes))


def test_a_bidirectional_layer_sees_past_and_future() -> None:
    layer = BiMamba2(options())
    x = torch.randn(1, 12, 8)
    changed = x.clone()
    changed[:, 6] += torch.randn(8)
    assert ((layer(changed) - layer(x)).abs().amax(-1)[0] > 0).all()


def test_the_directions_are_two_independent_blocks_on_time_and_its_mirror() -> None:
    layer = BiMamba2(options(norm=False))
    x = torch.randn(2, 7, 8)
    fused = layer.fuse(torch.cat((layer.ahead(x), layer.back(x.flip(1)).flip(1)), -1))
    torch.testing.assert_close(layer(x), x + fused)
    assert not torch.equal(layer.ahead.in_proj.weight, layer.back.in_proj.weight)


def test_norm_and_bias_switch_the_parameters_they_name() -> None:
    def names(**changes: Any) -> set[str]:
        return {
            name for name, _ in BiMamba2Stack(options(**changes), 1, checkpoint_activations=False).named_parameters()
        }

    assert names() - names(norm=False) == {"layers.0.norm.weight", "layers.0.norm.bias", "norm.weight", "norm.bias"}
    assert names() - names(bias=False) == {"layers.0.fuse.bias"}


def test_recomputing_changes_no_output_and_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("brainbrr.models.bimamba.SLAB_VALUES", 2 * 9 * 64)  # slabs of a few sequences
    plain = BiMamba2Stack(options(dropout=0.3), 2, checkpoint_activations=False).double()
    frugal = BiMamba2Stack(options(dropout=0.3), 2, checkpoint_activations=True).double()
    frugal.load_state_dict(plain.state_dict())
    plain.eval(), frugal.eval()
    x = torch.randn(7, 9, 8, dtype=torch.float64)
    for stack in (plain, frugal):
        stack(x).square().sum().backward()
    torch.testing.assert_close(frugal(x), plain(x))
    for mine, theirs in zip(frugal.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)
    frugal.train()
    frugal(x).square().sum().backward()  # dropout is drawn again as it was: the shapes and the counts fit


def test_recomputing_keeps_less() -> None:
    kept: dict[bool, int] = {}
    for recompute in (False, True):
        stack = BiMamba2Stack(options(), 2, checkpoint_activations=recompute)
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, s=sizes: s.append(t.numel()) or t, lambda t: t):
            stack(torch.randn(4, 32, 8))
        kept[recompute] = sum(sizes)
    assert kept[True] * 10 < kept[False]


def test_auto_is_the_torch_scan_on_a_cpu_and_says_so() -> None:
    choice = choose("auto", torch.device("cpu"))
    assert choice.name == "torch"
    assert choice.note is not None and "no fused kernels on cpu" in choice.note
    assert choose("torch", torch.device("cpu")).note is None


def test_auto_on_cuda_without_the_kernels_is_an_error_that_names_the_way_out() -> None:
    if importlib.util.find_spec("mamba_ssm") is not None:
        pytest.skip("mamba_ssm is installed here")
    for backend in ("auto", "mamba_ssm"):
        with pytest.raises(BackendError, match=r"mamba_ssm cannot be used .* set model\.mamba\.backend to torch"):
            choose(backend, torch.device("cuda"))  # type: ignore[arg-type]
    choice = choose("torch", torch.device("cuda"))
    assert choice.note is not None and "portable scan runs on a GPU" in choice.note


def test_kernels_asked_for_on_a_cpu_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(BackendError, match=r"mamba\.backend is mamba_ssm on cpu; expected a CUDA device"):
        Mamba2(8, headdim=4, backend="mamba_ssm")(torch.zeros(1, 2, 8))


def test_the_kernels_are_called_as_mamba_ssm_calls_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in with the kernels' documented semantics: the layouts and options handed over must give the block."""

    def scan(x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, chunk: int, **options: Any) -> Tensor:
        assert chunk == 32 and options["dt_softplus"] and b.shape[2] == c.shape[2] == 1
        dt = F.softplus(dt + options["dt_bias"])
        return recurrence(x, dt, a, b[:, :, 0], c[:, :, 0]) + x * options["D"][:, None]

    def norm(x: Tensor, weight: Tensor, bias: None, *, z: Tensor, eps: float, norm_before_gate: bool) -> Tensor:
        assert bias is None and not norm_before_gate
        return F.rms_norm(x * F.silu(z), weight.shape, weight, eps)

    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr("brainbrr.models.backend.fused_kernels", lambda: None)
    monkeypatch.setattr(mamba, "fused_kernels", lambda: mamba.Kernels(scan=scan, gated_norm=norm))
    layer = Mamba2(8, **(LARGE | {"backend": "mamba_ssm"}))
    u = torch.randn(2, 9, 8)
    torch.testing.assert_close(layer(u), textbook(layer, u), rtol=1e-4, atol=1e-5)


def test_the_stand_in_comes_only_when_asked_for_and_is_another_function() -> None:
    layer = BiMamba2(options(backend="conv1d"))
    assert isinstance(layer.ahead, ConvolutionStandIn)
    assert layer(torch.randn(2, 5, 8)).shape == (2, 5, 8)
    note = choose("conv1d", torch.device("cpu")).note
    assert note is not None and "stands in for Mamba-2" in note
    with pytest.raises(ValueError, match="backend of Mamba2 is 'conv1d'"):
        Mamba2(8, headdim=4, backend="conv1d")
