"""Faults behind something harmless that is not finite either, and that comes first."""

from __future__ import annotations

import torch
from torch import nn

from tests.faults.table import Program, adamw, fault, mse, sgd, vectors


@fault("forward", "pool", "aten::div", "mean-of-nothing", kind="nan", like="missing values, then an empty row")
def missing_values_handled_but_a_row_is_empty() -> Program:
    class Pool(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen = ~torch.isnan(x)
            filled = torch.where(seen, x, torch.zeros_like(x))
            return filled.sum(-1) / seen.sum(-1)  # born

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pool, self.scale = Pool(), nn.Parameter(torch.ones(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.pool(x) * self.scale

    model = Net()
    batches = vectors(1, 6, 4)
    batches[0][0][0][1, 2] = float("nan")
    batches[0][0][0][4] = float("nan")
    return Program(model, batches, mse, sgd(model))


@fault("backward", "norm", "aten::sqrt", "sqrt-at-zero", node="SqrtBackward0", kind="inf",
       like="causal mask before the real fault")  # fmt: skip
def causal_mask_before_a_square_root() -> Program:
    class Norm(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.square().sum(-1).sqrt()  # born

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.norm = nn.Linear(4, 4, bias=False), Norm()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.linear(x)
            causal = torch.full((5, 5), float("-inf")).triu(1)
            weights = torch.softmax(y @ y.transpose(-1, -2) + causal, -1)
            return self.norm(weights @ y).mean(-1)

    model = Net()
    batches = vectors(1, 3, 5, 4, target=(3,))
    batches[0][0][0][1, 0] = 0
    return Program(model, batches, mse, adamw(model))


@fault("forward", "head", "aten::log", "log-of-zero", kind="inf", step=1, like="a metric divides by zero first")
def a_metric_is_not_a_number_first() -> Program:
    class Head(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.log(torch.relu(x)).mean(-1)  # born

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.head = nn.Linear(4, 4), Head()
            self.metric = 0.0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                hits = torch.zeros(())
                self.metric = float(hits / hits)
            return self.head(self.linear(x) + 10)

    model = Net()
    batches = vectors(2, 6, 4)
    batches[1][0][0][2] = -100 * model.linear.weight.detach()[1].sign()
    return Program(model, batches, mse, sgd(model))


@fault("forward", "decoder", "aten::div", "division-by-zero", kind="nan", like="dropped rows before the real fault")
def bad_rows_are_dropped_before_the_fault() -> Program:
    class Decoder(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x / x.abs().sum(-1, keepdim=True)  # born

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.decoder = nn.Linear(4, 4, bias=False), Decoder()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                scaled = x / x[:, :1]
            keep = torch.isfinite(scaled).all(-1)
            return self.decoder(self.linear(torch.where(keep[:, None], x, x * 0))).mean(-1)

    model = Net()
    batches = vectors(1, 6, 4)
    batches[0][0][0][2, 0] = 0
    return Program(model, batches, mse, sgd(model))


@fault("forward", "late", "aten::div", "division-by-zero", kind="nan", like="another element of the same tensor")
def the_fault_is_in_a_tensor_that_is_bad_elsewhere() -> Program:
    class Late(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x / x.abs().amax(-1, keepdim=True)  # born

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.late, self.linear = Late(), nn.Linear(4, 1)

        def forward(self, x: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
            y = self.late(x)
            return self.linear(y[real]).squeeze(-1)

    model = Net()
    x = torch.randn(6, 4)
    x[5] = float("nan")
    x[1] = 0
    real = torch.arange(5)
    return Program(model, [((x, real), torch.randn(5))], mse, sgd(model))


@fault("backward", "branch", "aten::sqrt", "sqrt-at-zero", node="SqrtBackward0", kind="inf",
       like="infinite start of a running minimum")  # fmt: skip
def infinite_start_of_a_minimum() -> Program:
    class Branch(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            best = torch.full((x.shape[0],), float("inf"))
            for column in x.unbind(-1):
                best = torch.minimum(best, column.square())
            return best.sqrt()  # born

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.branch = nn.Linear(4, 4, bias=False), Branch()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.branch(self.linear(x))

    model = Net()
    batches = vectors(1, 6, 4)
    batches[0][0][0][3] = 0
    return Program(model, batches, mse, sgd(model))


@fault("optimizer", "<optimizer>", "aten::addcdiv_", "optimizer-epsilon-underflow", kind="nan",
       like="logits masked, then the optimizer fails")  # fmt: skip
def masked_logits_before_the_optimizer_fails() -> Program:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(5, 4, dtype=torch.float16)

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            logits = self.table(tokens).float()
            logits = torch.cat([logits[:, :3], torch.full_like(logits[:, 3:], float("-inf"))], -1)
            return torch.softmax(logits, -1).square().sum(-1)

    model = Net()
    batches = [((torch.tensor([0, 1, 3]),), torch.randn(3))]
    return Program(model, batches, mse, torch.optim.Adam(model.parameters(), lr=1e-3, foreach=False))
