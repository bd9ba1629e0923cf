"""Faults and controls in programs that go by unusual ways: autocast, vmap, sparse gradients, functional transforms."""

from __future__ import annotations

import torch
from torch import nn

from tests.faults.table import Program, adamw, control, fault, mse, sgd, vectors


def _one_empty_row(steps: int) -> list[tuple[tuple[torch.Tensor, ...], torch.Tensor]]:
    batches = vectors(steps, 6, 4)
    batches[-1][0][0][2] = 0
    return batches


@fault("forward", "first", "aten::_to_copy", "cast-overflow", kind="inf", step=1, like="autocast casts the input")
def autocast_casts_an_outlier() -> Program:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.autocast("cpu", dtype=torch.float16):
                y = self.first(x)  # born
                return self.second(torch.relu(y)).float().squeeze(-1)

    model = Net()
    batches = vectors(2, 6, 4)
    batches[1][0][0][0] = 1e5
    return Program(model, batches, mse, sgd(model))


@fault("forward", "", "aten::bmm", "overflow", kind="inf", step=1, like="attention scores under autocast")
def autocast_scores_overflow() -> Program:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query, self.key = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.autocast("cpu", dtype=torch.float16):
                scores = self.query(x) @ self.key(x).transpose(-1, -2)  # born
                return scores.softmax(-1).float().square().sum((-1, -2))

    model = Net()
    batches = [((torch.randn(2, 5, 8) * scale,), torch.randn(2)) for scale in (1, 1000)]
    return Program(model, batches, mse, sgd(model))


@fault("forward", "", "aten::div", "division-by-zero", kind="nan", step=1, like="torch.vmap")
def inside_vmap() -> Program:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            def share(row: torch.Tensor) -> torch.Tensor:
                return (row / row.abs().amax()).mean()  # born

            return torch.vmap(share)(self.linear(x))

    model = Net()
    return Program(model, _one_empty_row(2), mse, sgd(model))


@fault("backward", "", "aten::sqrt", "sqrt-at-zero", kind="inf", node="SqrtBackward0", step=1, like="torch.func.grad")
def inside_a_functional_gradient() -> Program:
    class Forces(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            def energy(positions: torch.Tensor) -> torch.Tensor:
                return positions.square().sum(-1).sqrt().sum()  # born

            return self.linear(torch.func.grad(energy)(x)).mean(-1)

    model = Forces()
    return Program(model, _one_empty_row(2), mse, sgd(model))


@fault("backward", "", "aten::sqrt", "sqrt-at-zero", kind="inf", node="SqrtBackward0", like="sparse embedding")
def through_a_sparse_gradient() -> Program:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(10, 4, sparse=True)

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            x = self.table(tokens)
            return (x - x.detach()).square().sum(-1).sqrt()  # born

    model = Net()
    batches = [((torch.randint(10, (5,)),), torch.randn(5))]
    return Program(model, batches, mse, torch.optim.SparseAdam(list(model.parameters())))


@fault("backward", "", "aten::sqrt", "sqrt-at-zero", kind="inf", node="SqrtBackward0", step=1, like="anomaly mode on")
def while_anomaly_mode_raises() -> Program:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(x).square().sum(-1).sqrt()  # born

    def raising(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        loss = mse(output, target)
        with torch.autograd.detect_anomaly(check_nan=True):
            torch.autograd.grad(loss, output, retain_graph=True)
        if not torch.isfinite(torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)[0]).all():
            raise FloatingPointError("the gradient is not finite")
        return loss

    model = Net()
    return Program(model, _one_empty_row(2), raising, sgd(model))


@fault("backward", "", "aten::sqrt", "sqrt-at-zero", kind="inf", node="SqrtBackward0", step=1,
       like="clip_grad_norm_ spreads a NaN")  # fmt: skip
def clipping_spreads_a_bad_gradient() -> Program:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.scale = nn.Linear(4, 4, bias=False), nn.Parameter(torch.ones(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(x).square().sum(-1).sqrt() * self.scale  # born

    class Clipped(torch.optim.AdamW):
        def step(self, closure=None):
            nn.utils.clip_grad_norm_([p for group in self.param_groups for p in group["params"]], 1.0)
            return super().step(closure)

    model = Net()
    return Program(model, _one_empty_row(2), mse, Clipped(model.parameters(), lr=1e-3))


@fault("forward", "", "aten::mean", "mean-of-nothing", kind="nan", step=1, like="missing values, an empty row")
def a_mask_of_missing_values_keeps_nothing() -> Program:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(1, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen = ~torch.isnan(x)
            rows = [row[keep].mean() for row, keep in zip(x, seen, strict=True)]  # born
            return self.linear(torch.stack(rows)[:, None]).squeeze(-1)

    model = Net()
    batches = vectors(2, 6, 4)
    batches[1][0][0][2], batches[1][0][0][3, 1] = float("nan"), float("nan")
    return Program(model, batches, mse, sgd(model))


@fault("forward", "", "aten::empty", "uninitialised-memory", kind="nan", like="a column that nobody wrote")
def a_column_that_nobody_wrote() -> Program:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.linear(x)
            torch.use_deterministic_algorithms(True)  # fills fresh memory with NaN
            try:
                padded = torch.empty(6, 5)  # born
                padded[:, :4] = y
            finally:
                torch.use_deterministic_algorithms(False)
            return padded.mean(-1)

    model = Net()
    return Program(model, vectors(1, 6, 4), mse, sgd(model))


@fault("forward", "", "aten::masked_fill", "constant-fill", kind="inf", like="label smoothing over masked classes")
def label_smoothing_over_masked_classes() -> Program:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            retired = torch.tensor([False, False, False, True])
            return self.linear(x).masked_fill(retired, float("-inf"))  # born

    model = Net()
    batches = [((torch.randn(6, 4),), torch.randint(3, (6,)))]
    return Program(model, batches, nn.CrossEntropyLoss(label_smoothing=0.1), sgd(model))


@fault("optimizer", "<optimizer>", "aten::add_", "learning-rate-not-finite", kind="inf", like="infinite learning rate")
def infinite_learning_rate() -> Program:
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=float("inf"), foreach=False)
    return Program(model, vectors(2, 6, 4), lambda out, target: mse(out.squeeze(-1), target), optimizer)


@fault("forward", "0.parametrizations.weight.0", "aten::_weight_norm_interface", "norm-at-zero", kind="nan",
       like="google/flax#1671")  # fmt: skip
def weight_norm_of_a_zero_row() -> Program:
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 1)), nn.Flatten(0))
    with torch.no_grad():
        model[0].parametrizations.weight.original1.zero_()
    return Program(model, vectors(1, 6, 4), mse, sgd(model))


@control
def loss_scaler_discards_a_gradient() -> Program:
    model = nn.Linear(4, 1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)

    class Scaled:
        def __init__(self) -> None:
            self.inner = adamw(model)

        def zero_grad(self) -> None:
            self.inner.zero_grad()

        def step(self) -> None:
            scaler.step(self.inner)
            scaler.update()

    def loss_fn(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return scaler.scale(mse(output.squeeze(-1) * 1e-3, target) * 1e-2)

    return Program(model, vectors(5, 6, 4), loss_fn, Scaled())


@control
def bad_gradient_behind_a_relu() -> Program:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(self.linear(x)).sqrt().mean(-1)

    model = Net()
    return Program(model, vectors(2, 6, 4), mse, sgd(model))


@control
def unused_row_of_an_embedding() -> Program:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(5, 4)
            with torch.no_grad():
                self.table.weight[4] = float("nan")

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return self.table(tokens).mean(-1)

    model = Net()
    return Program(model, [((torch.randint(4, (6,)),), torch.randn(6)) for _ in range(3)], mse, adamw(model))
