"""The temporal convolution network: lengths, reach, stride, norm and bias."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from brainbrr import config
from brainbrr.models.tcn import TCN, early_stride


def build(*, norm: bool = True, bias: bool = True, **changes: Any) -> TCN:
    values: dict[str, Any] = {"num_layers": 3, "channels": (6, 10), "stride_down": 8}
    return TCN(config.TCN(**(values | changes)), norm=norm, bias=bias).eval()


@pytest.mark.parametrize("stride_down", [1, 2, 7, 16, 32, 48, 63, 64, 512])
def test_every_stride_gives_one_vector_per_step(stride_down: int) -> None:
    tcn = build(stride_down=stride_down)
    assert tcn(torch.randn(2, 19, 3 * stride_down)).shape == (2, 6, 3)
    assert tcn.width == 6


def test_channels_are_cycled_and_dilation_doubles() -> None:
    tcn = build(num_layers=5)
    convolutions = [block.conv for block in tcn.blocks]
    assert [conv.out_channels for conv in convolutions] == [6, 10, 6, 10, 6]  # type: ignore[union-attr]
    assert [conv.dilation for conv in convolutions] == [(1,), (2,), (4,), (8,), (16,)]  # type: ignore[union-attr]


def test_the_first_block_strides_only_where_steps_are_coarse() -> None:
    strides = {stride: early_stride(stride) for stride in (1, 16, 31, 32, 48, 50, 64, 128, 256, 257, 512)}
    assert strides == {1: 1, 16: 1, 31: 1, 32: 2, 48: 3, 50: 2, 64: 4, 128: 4, 256: 4, 257: 1, 512: 4}


def test_the_full_network_keeps_the_rate_of_the_samples_through_all_layers() -> None:
    tcn = TCN(config.TCN(), norm=True, bias=True)
    lengths: list[int] = []
    for block in tcn.blocks:
        block.register_forward_hook(lambda module, inputs, output: lengths.append(output.shape[-1]))
    assert tcn(torch.randn(1, 19, 64)).shape == (1, 512, 4)
    assert lengths == [64] * 8


def test_a_sample_reaches_both_directions_as_far_as_the_dilations_say() -> None:
    tcn = build(norm=False, stride_down=1)
    x = torch.randn(1, 19, 101)
    changed = x.clone()
    changed[..., 50] += 1
    moved = (tcn(changed) - tcn(x)).abs().amax(1)[0] > 0
    reach = 3 * (1 + 2 + 4)
    assert moved.nonzero().flatten().tolist() == list(range(50 - reach, 50 + reach + 1))


def test_norm_and_bias_switch_what_they_name() -> None:
    assert any(isinstance(module, nn.GroupNorm) for module in build().modules())
    assert not any(isinstance(module, nn.GroupNorm) for module in build(norm=False).modules())
    assert not [name for name, _ in build(norm=False, bias=False).named_parameters() if name.endswith("bias")]


def test_without_norm_and_bias_silence_is_exactly_zero() -> None:
    tcn = build(norm=False, bias=False)
    assert (tcn(torch.zeros(1, 19, 64)) == 0).all()
    assert (build()(torch.zeros(1, 19, 64)) != 0).any()


def test_dropout_drops_whole_channels_in_training_only() -> None:
    tcn = build(dropout=0.5, stride_down=1, num_layers=1)
    x = torch.randn(1, 19, 40)
    assert torch.equal(tcn(x), tcn(x))
    tcn.train()
    assert not torch.equal(tcn(x), tcn(x))
    block = tcn.blocks[0]
    block.skip = nn.Conv1d(19, 6, 1, bias=False)
    nn.init.zeros_(block.skip.weight)
    channels = (block(x) == 0).all(-1)[0]
    assert ((block(x) == 0).float().mean(-1)[0] % 1 == 0).all()
    assert channels.shape == (6,)
