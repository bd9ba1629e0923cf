"""Faults that arrive with the batch."""

from __future__ import annotations

import torch
from torch import nn

from tests.faults.table import Program, adamw, fault, mse, sgd, vectors


@fault("data", "<input>", "data", "bad-input", kind="nan", step=2, like="prs-eth/Marigold#111")
def missing_value_in_the_input() -> Program:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1), nn.Flatten(0))
    batches = vectors(4, 6, 4)
    batches[2][0][0][3, 1] = float("nan")
    return Program(model, batches, mse, adamw(model))


@fault("data", "<input>", "data", "bad-input", kind="inf", step=1, like="division in the preprocessing")
def infinite_feature() -> Program:
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 1), nn.Flatten(0))
    batches = vectors(2, 6, 4)
    batches[1][0][0][0, 0] = float("inf")
    return Program(model, batches, mse, sgd(model))


@fault("data", "<target>", "data", "bad-target", kind="nan", step=1, like="shenghanlin/SeismicFoundationModel#6")
def missing_value_in_the_target() -> Program:
    model = nn.Sequential(nn.Linear(4, 1), nn.Flatten(0))
    batches = vectors(3, 6, 4)
    batches[1][1][5] = float("nan")
    return Program(model, batches, nn.MSELoss(), sgd(model))


@fault("data", "<input>", "data", "bad-input", kind="nan", like="second of two inputs, in a dictionary")
def bad_value_in_a_nested_input() -> Program:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 1)

        def forward(self, x: torch.Tensor, extra: dict[str, torch.Tensor]) -> torch.Tensor:
            return self.linear(x + extra["offset"]).squeeze(-1)

    model = Net()
    offset = torch.zeros(4)
    offset[1] = float("nan")
    return Program(model, [((torch.randn(6, 4), {"offset": offset}), torch.randn(6))], mse, sgd(model))


@fault("data", "<input>", "data", "bad-input", kind="nan", step=1, like="LinAlgError on NaN input")
def bad_input_makes_a_decomposition_raise() -> Program:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.linalg.eigvalsh(x @ x.T * self.scale)

    model = Net()
    batches = vectors(2, 4, 6)
    batches[1][0][0][0, 0] = float("nan")
    return Program(model, batches, mse, sgd(model))


@fault("data", "<target>", "data", "bad-target", kind="inf", like="log of a zero price in the targets")
def target_minus_infinity_among_the_weights() -> Program:
    model = nn.Sequential(nn.Linear(4, 2))

    def loss_fn(output: torch.Tensor, target: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        values, weights = target
        return ((output - values).abs() * weights).mean()

    target = (torch.randn(6, 2), torch.rand(6, 2))
    target[0][2, 0] = float("-inf")
    return Program(model, [((torch.randn(6, 4),), target)], loss_fn, sgd(model))


@fault("data", "<input>", "data", "bad-input", kind="nan", step=1, like="padding multiplied instead of selected")
def missing_values_multiplied_by_their_mask() -> Program:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 1)

        def forward(self, x: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
            return self.linear(x * keep).squeeze(-1)

    model = Net()
    batches = [((torch.randn(6, 4), torch.ones(6, 4)), torch.randn(6)) for _ in range(2)]
    batches[1][0][0][2, 2], batches[1][0][1][2, 2] = float("nan"), 0.0
    return Program(model, batches, mse, sgd(model))
