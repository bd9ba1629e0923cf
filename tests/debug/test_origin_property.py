"""Planted at random among harmless infinities and NaNs, a fault is still found where it was planted."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from brainbrr_debug.origin import diagnose

Function = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def causal(x: torch.Tensor, trigger: torch.Tensor) -> torch.Tensor:
    mask = torch.full((x.shape[-1],) * 2, float("-inf")).triu(1)
    return x + torch.softmax(mask + 0 * x.unsqueeze(-1), -1).sum(-1)


def guarded_log(x: torch.Tensor, trigger: torch.Tensor) -> torch.Tensor:
    return x + torch.where(x > 0, torch.log(torch.where(x > 0, x, 1.0)), 0.0)


def lost_metric(x: torch.Tensor, trigger: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        _ = (x * 0) / (x * 0)
    return x


def relu_mask(x: torch.Tensor, trigger: torch.Tensor) -> torch.Tensor:
    return x + torch.relu(x - 1e9).sqrt()


def minimum_from_infinity(x: torch.Tensor, trigger: torch.Tensor) -> torch.Tensor:
    return x + torch.minimum(torch.full_like(x, float("inf")), x)


HARMLESS: list[Function] = [causal, guarded_log, lost_metric, relu_mask, minimum_from_infinity]
# The trigger is 1 in healthy steps and 0 in the failing one.
FAULTY: dict[str, tuple[str, str, Function]] = {
    "quotient": ("forward", "aten::div", lambda x, t: (x * t) / (x * t).sum(-1, keepdim=True)),
    "logarithm": ("forward", "aten::log", lambda x, t: torch.log(x.square() * t + 0)),
    "overflow": ("forward", "aten::exp", lambda x, t: torch.exp(x + (1 - t) * 200) * 1e-3),
    "root": ("backward", "aten::sqrt", lambda x, t: (x.square() * t).sqrt()),
    "deviation": (
        "forward",
        "aten::rsqrt",
        lambda x, t: x * torch.rsqrt((x - x.mean(-1, keepdim=True)).square().mean() * t),
    ),
    "eigenvectors": (
        "backward",
        "aten::_linalg_eigh",
        lambda x, t: x @ torch.linalg.eigh(t * x.T @ x + torch.diag(t * torch.arange(4.0)))[1],
    ),
}


class Block(nn.Module):
    def __init__(self, function: Function) -> None:
        super().__init__()
        self.linear, self.function = nn.Linear(4, 4), function

    def forward(self, x: torch.Tensor, trigger: torch.Tensor) -> torch.Tensor:
        return self.function(torch.tanh(self.linear(x)) + 2, trigger)


class Net(nn.Module):
    def __init__(self, functions: list[Function]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(function) for function in functions)

    def forward(self, x: torch.Tensor, trigger: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x, trigger)
        return x.mean(-1)


def batches(steps: int, failing: int) -> list[tuple[tuple[torch.Tensor, ...], torch.Tensor]]:
    return [
        ((torch.randn(5, 4), torch.tensor(0.0 if step == failing else 1.0)), torch.randn(5)) for step in range(steps)
    ]


def loss_fn(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return (torch.tanh(output) - target).abs().mean()


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=20, derandomize=True)
@given(
    before=st.lists(st.sampled_from(HARMLESS), max_size=2),
    after=st.lists(st.sampled_from(HARMLESS), max_size=2),
    name=st.sampled_from(sorted(FAULTY)),
    failing=st.integers(0, 2),
)
def test_a_planted_fault_is_found(before: list[Function], after: list[Function], name: str, failing: int) -> None:
    torch.manual_seed(0)
    phase, op, faulty = FAULTY[name]
    model = Net([*before, faulty, *after])
    origin = diagnose(model, batches(3, failing), loss_fn, torch.optim.SGD(model.parameters(), lr=1e-3))
    found = (origin.phase, origin.module, origin.op, origin.step)
    assert found == (phase, f"blocks.{len(before)}", op, failing), origin.explanation
    assert origin.proof == "healed"


@settings(max_examples=8, derandomize=True)
@given(functions=st.lists(st.sampled_from(HARMLESS), min_size=1, max_size=4))
def test_harmless_blocks_alone_are_healthy(functions: list[Function]) -> None:
    torch.manual_seed(0)
    model = Net(functions)
    assert diagnose(model, batches(2, 0), loss_fn, torch.optim.AdamW(model.parameters())).healthy
