"""Faults born in an earlier step than the one that shows them, in state that nobody registered."""

from __future__ import annotations

import torch
from torch import nn

from tests.faults.table import Program, fault, mse, sgd, vectors


@fault("forward", "memory", "aten::div", "division-by-zero", kind="nan", step=1, like="hidden state carried along")
def hidden_state_poisoned_a_step_before() -> Program:
    class Memory(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.state = torch.zeros(4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = x + self.state
            with torch.no_grad():
                self.state = x.mean(0) / x.abs().sum()  # born
            return y

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.memory, self.head = Memory(), nn.Linear(4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.memory(x)).squeeze(-1)

    model = Net()
    batches = vectors(4, 6, 4)
    batches[1][0][0].zero_()
    return Program(model, batches, mse, sgd(model))


@fault("backward", "root", "aten::sqrt", "sqrt-at-zero", node="SqrtBackward0", kind="inf", step=1,
       like="gradient accumulation in a wrapper")  # fmt: skip
def bad_gradient_accumulated_two_steps_before_the_update() -> Program:
    class Root(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.square().sum(-1).sqrt()  # born

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.root = nn.Linear(4, 4, bias=False), Root()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.root(self.linear(x))

    class EveryFourth:
        def __init__(self, inner: torch.optim.Optimizer) -> None:
            self.inner, self.calls = inner, 0

        def zero_grad(self) -> None:
            if self.calls % 4 == 0:
                self.inner.zero_grad()

        def step(self) -> None:
            self.calls += 1
            if self.calls % 4 == 0:
                self.inner.step()

    model = Net()
    batches = vectors(5, 6, 4)
    batches[1][0][0][3] = 0
    return Program(model, batches, mse, EveryFourth(sgd(model)))


@fault("forward", "", "aten::log_", "log-of-zero", kind="inf", step=0, like="dataset changed in place")
def the_model_changes_the_dataset() -> Program:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.linear(x.clone()).squeeze(-1)
            x.log_()  # born
            return y

    model = Net()
    x = torch.rand(6, 4) + 0.5
    x[2, 2] = 0
    return Program(model, [((x,), torch.randn(6))] * 3, mse, sgd(model))
