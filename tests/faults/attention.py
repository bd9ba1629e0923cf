"""Faults born in attention and other softmaxes."""

from __future__ import annotations

import torch
from torch import nn

from tests.faults.table import Program, adamw, fault, mse, sgd, vectors


class Attention(nn.Module):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
        scores = self.query(x) @ self.key(x).transpose(-1, -2)
        scores = scores.masked_fill(padding[:, None, :], float("-inf"))
        weights = torch.softmax(scores, dim=-1)
        return weights @ x


SOFTMAX_LINE = f"{__file__}:{Attention.forward.__code__.co_firstlineno + 3}"


def _padded(steps: int, empty_at: int) -> list[tuple[tuple[torch.Tensor, ...], torch.Tensor]]:
    """Batches of two sequences of five; in step `empty_at` the second one is all padding."""
    batches = []
    for step in range(steps):
        padding = torch.zeros(2, 5, dtype=torch.bool)
        padding[0, 3:] = True
        padding[1] = step == empty_at
        batches.append(((torch.randn(2, 5, 8), padding), torch.randn(2)))
    return batches


@fault("forward", "attention", "aten::_softmax", "fully-masked-softmax", step=2, line=SOFTMAX_LINE,
       like="pytorch/pytorch#41508")  # fmt: skip
def softmax_over_padding_only() -> Program:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = Attention()

        def forward(self, x: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
            return self.attention(x, padding).mean((1, 2))

    model = Net()
    return Program(model, _padded(4, empty_at=2), mse, sgd(model))


@fault("forward", "layers.0", "aten::_softmax", "fully-masked-softmax", line=SOFTMAX_LINE,
       like="pytorch/pytorch#40932")  # fmt: skip
def two_layers_fail_together() -> Program:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([Attention(), Attention()])

        def forward(self, x: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
            for layer in self.layers:
                x = layer(x, padding)
            return x.mean((1, 2))

    model = Net()
    return Program(model, _padded(2, empty_at=0), mse, sgd(model))


@fault("forward", "encoder.attention", "aten::_softmax", "fully-masked-softmax", like="pytorch/pytorch#41508")
def multihead_attention_over_padding_only() -> Program:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Module()
            self.encoder.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
            found, _ = self.encoder.attention(x, x, x, key_padding_mask=padding)  # born
            return found.mean((1, 2))

    model = Net()
    return Program(model, _padded(1, empty_at=0), mse, adamw(model))


@fault("forward", "attention", "aten::add", "overflow", kind="inf", like="huggingface/transformers#17937")
def two_smallest_numbers_as_masks() -> Program:
    class MaskedTwice(nn.Module):
        def forward(self, scores: torch.Tensor, causal: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
            scores = scores + causal
            scores = scores + padding  # born
            return torch.softmax(scores, -1)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.attention = nn.Linear(4, 4), MaskedTwice()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            lowest = torch.finfo(torch.float32).min
            causal = torch.full((4, 4), lowest).triu(1)
            padding = torch.full((1, 4), lowest)
            return self.attention(self.linear(x) - 1e32, causal, padding).mean(-1)

    model = Net()
    return Program(model, vectors(1, 4, 4), mse, sgd(model))


@fault("forward", "attention", "aten::mul", "zero-times-infinity", kind="nan", like="google/jax#5698")
def mask_multiplied_by_minus_infinity() -> Program:
    class AdditiveMask(nn.Module):
        def forward(self, scores: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
            bias = (1.0 - keep) * float("-inf")  # born
            return torch.softmax(scores + bias, -1)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.attention = nn.Linear(4, 4), AdditiveMask()

        def forward(self, x: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
            return self.attention(self.linear(x), keep).mean(-1)

    model = Net()
    keep = torch.tensor([1.0, 1.0, 0.0, 0.0])
    return Program(model, [((torch.randn(3, 4), keep), torch.randn(3))], mse, sgd(model))


@fault("forward", "sharpen", "aten::div", "division-by-zero", kind="inf", like="temperature annealed to zero", step=1)
def temperature_zero() -> Program:
    class Sharpen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("temperature", torch.tensor(1.0))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = torch.softmax(x / self.temperature, -1)  # born
            self.temperature = self.temperature - 1.0
            return y

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.sharpen = nn.Linear(4, 4), Sharpen()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.sharpen(self.linear(x)).square().sum(-1)

    model = Net()
    return Program(model, vectors(3, 6, 4), mse, sgd(model))
