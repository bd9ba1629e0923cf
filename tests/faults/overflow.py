"""Faults born where a finite result does not fit."""

from __future__ import annotations

import torch
from torch import nn

from tests.faults.table import Program, fault, mse, sgd, vectors


@fault("forward", "decoder", "aten::exp", "exp-overflow", kind="inf", step=1, like="AntixK/PyTorch-VAE#21")
def exp_of_log_variance() -> Program:
    class Decoder(nn.Module):
        def forward(self, mean: torch.Tensor, log_variance: torch.Tensor) -> torch.Tensor:
            spread = torch.exp(log_variance)  # born
            return (mean * spread).sum(-1)

    class Autoencoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mean, self.log_variance, self.decoder = nn.Linear(4, 2), nn.Linear(4, 2), Decoder()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.decoder(self.mean(x), self.log_variance(x))

    model = Autoencoder()
    batches = vectors(3, 8, 4)
    batches[1][0][0][3] *= 1e4
    return Program(model, batches, mse, sgd(model))


@fault("forward", "activation", "aten::exp", "exp-overflow", kind="inf", like="pytorch/pytorch#17455")
def hand_written_softplus() -> Program:
    class Softplus(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.log(1 + torch.exp(x))  # born

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.activation = nn.Linear(4, 1), Softplus()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.activation(self.linear(x) * 1000).mean(-1)

    model = Net()
    return Program(model, vectors(1, 16, 4), mse, sgd(model))


@fault("forward", "mix", "aten::mm", "overflow", kind="inf", like="apex#963")
def half_precision_product_overflows() -> Program:
    class Mix(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            scores = x @ x.T  # born
            return torch.softmax(scores, -1) @ x

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.mix = nn.Linear(8, 8).half(), Mix()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.mix(self.linear(x)).float().mean(-1)

    model = Net()
    batches = [((torch.full((4, 8), 400.0, dtype=torch.float16),), torch.randn(4))]
    return Program(model, batches, mse, sgd(model))


@fault("forward", "head", "aten::_to_copy", "cast-overflow", kind="inf", step=1, like="NVIDIA/apex#240")
def cast_to_half_overflows() -> Program:
    class Head(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = x.half()  # born
            return (y - y.mean(-1, keepdim=True)).float().mean(-1)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.head = nn.Linear(4, 4), Head()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.linear(x))

    model = Net()
    batches = vectors(2, 3, 4)
    batches[1][0][0][0] = 1e6
    return Program(model, batches, mse, sgd(model))


@fault("forward", "pool", "aten::sum", "overflow", kind="inf", like="pytorch/pytorch fp16 sum")
def half_precision_sum_overflows() -> Program:
    class Pool(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.sum(1) / x.shape[1]  # born

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.pool = nn.Linear(4, 4), Pool()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.pool((self.linear(x).abs() + 100).half()).float().mean(-1)

    model = Net()
    return Program(model, vectors(1, 2, 1000, 4), mse, sgd(model))


@fault("forward", "cells.cell", "aten::addmm", "overflow", kind="inf", like="recurrent explosion")
def recurrence_explodes() -> Program:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cells = nn.ModuleDict({"cell": nn.Linear(6, 6)})
            nn.init.constant_(self.cells["cell"].weight, 4.0)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for _ in range(40):
                x = self.cells["cell"](x)  # born
            return torch.tanh(x - x.mean(-1, keepdim=True)).mean(-1)

    model = Recurrent()
    return Program(model, [((torch.rand(3, 6),), torch.randn(3))], mse, sgd(model))


@fault("forward", "norm", "aten::native_layer_norm", "overflow", kind="nan", like="NUMERICS 4i")
def layer_norm_of_huge_numbers() -> Program:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.norm = nn.Linear(4, 4), nn.LayerNorm(4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.norm(self.linear(x) * 1e25).mean(-1)  # born

    model = Net()
    return Program(model, vectors(1, 4, 4), mse, sgd(model))


@fault("forward", "norm", "aten::native_batch_norm", "overflow", kind="inf", like="pytorch/pytorch#1206")
def running_variance_overflows_with_a_finite_loss() -> Program:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                self.norm(x * 1e25)  # born
            return self.linear(x).mean(-1)

    model = Net()
    return Program(model, vectors(1, 6, 4), mse, sgd(model))


@fault("forward", "masked", "aten::exp", "exp-overflow", kind="inf", like="pytorch/pytorch#68425")
def where_hides_an_overflow() -> Program:
    class Masked(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.where(x <= 0, torch.exp(x), 1 + x)  # born

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.masked = nn.Linear(4, 4), Masked()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.masked(1e3 * self.linear(x)).mean(-1)

    model = Net()
    return Program(model, vectors(1, 6, 4), mse, sgd(model))
