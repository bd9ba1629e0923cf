"""Faults in the forward pass of programs with an awkward shape: shared, checkpointed, custom, raising."""

from __future__ import annotations

import dataclasses

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from tests.faults.table import Program, fault, mse, sgd, vectors


@fault("forward", "encoder.block", "aten::div", "division-by-zero", like="torch.utils.checkpoint", step=1)
def inside_a_checkpointed_block() -> Program:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(x) / x.abs().amax(-1, keepdim=True)  # born

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = Block()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return checkpoint(self.block, x, use_reentrant=False)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.head = Encoder(), nn.Linear(4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.encoder(x)).squeeze(-1)

    model = Net()
    batches = vectors(2, 3, 4)
    batches[1][0][0][0] = 0
    return Program(model, batches, mse, sgd(model))


@fault("forward", "", "SafeLog", "log-of-zero", kind="inf", like="custom autograd Function")
def custom_function_in_the_forward_pass() -> Program:
    class SafeLog(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return torch.log(x)

        @staticmethod
        def backward(ctx, gradient):
            (x,) = ctx.saved_tensors
            return gradient / x.clamp_min(1e-6)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = torch.relu(self.linear(x))
            return SafeLog.apply(y).mean(-1)  # born

    model = Net()
    return Program(model, vectors(1, 6, 4), mse, sgd(model))


@fault("forward", "first", "aten::div_", "division-by-zero", kind="nan", like="shared module, in-place")
def shared_module_divides_in_place() -> Program:
    class InPlace(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = x.clone()
            y /= x.sum(-1, keepdim=True)  # born
            return y

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = InPlace()
            self.linear = nn.Linear(4, 4, bias=False)
            self.second = self.first

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(self.linear(self.first(x.abs() + 1)) * 0).mean(-1)

    model = Net()
    return Program(model, vectors(1, 6, 4), mse, sgd(model))


@dataclasses.dataclass
class Output:
    score: torch.Tensor
    extra: dict[str, torch.Tensor]


@fault("forward", "branch", "aten::reciprocal", "division-by-zero", kind="inf", like="ModelOutput, kwargs")
def dataclass_output_and_keywords() -> Program:
    class Branch(nn.Module):
        def forward(self, *, features: dict[str, torch.Tensor]) -> Output:
            return Output(score=features["x"].reciprocal(), extra=features)  # born

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.branch = nn.Linear(4, 4), Branch()

        def forward(self, x: torch.Tensor) -> Output:
            return self.branch(features={"x": torch.relu(self.linear(x))})

    model = Net()
    return Program(model, vectors(1, 6, 4), lambda out, target: mse(out.score.mean(-1), target), sgd(model))


@fault("forward", "phase", "aten::div", "division-by-zero", kind="nan", like="complex unit phasor")
def complex_phase_of_zero() -> Program:
    class Phase(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            z = torch.fft.fft(x)
            return z / z.abs()  # born

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.phase = nn.Linear(4, 4, bias=False), Phase()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.phase(self.linear(x)).real.mean(-1)

    model = Net()
    batches = vectors(1, 6, 4)
    batches[0][0][0][2] = 0
    return Program(model, batches, mse, sgd(model))


@fault("forward", "head", "aten::addmm", "poisoned-parameter", kind="nan", like="kohya-ss/sd-scripts#2116")
def checkpoint_with_a_bad_weight() -> Program:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(4, 4), nn.Linear(4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(torch.relu(self.body(x))).squeeze(-1)  # born

    model = Net()
    with torch.no_grad():
        model.head.weight[0, 2] = float("nan")
    return Program(model, vectors(1, 6, 4), mse, sgd(model))


@fault("forward", "norm", "aten::native_batch_norm", "sqrt-of-negative", kind="nan", like="negative running_var")
def negative_running_variance() -> Program:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.norm(self.linear(x)).mean(-1)  # born

    model = Net()
    model.norm.eval()
    model.norm.running_var[1] = -0.01
    return Program(model, vectors(1, 6, 4), mse, sgd(model))


@fault("forward", "spectrum", "aten::div", "division-by-zero", kind="nan", step=1, like="LinAlgError on NaN input")
def eigenvalues_of_a_broken_matrix_raise() -> Program:
    class Spectrum(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            adjacency = x @ x.T
            adjacency = adjacency / adjacency.sum(-1, keepdim=True)  # born
            return torch.linalg.eigvalsh(adjacency + adjacency.T)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.spectrum = nn.Linear(4, 4, bias=False), Spectrum()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.spectrum(self.linear(x))

    model = Net()
    batches = vectors(2, 5, 4)
    batches[1][0][0][3] = 0
    return Program(model, batches, mse, sgd(model))


@fault("forward", "policy", "aten::log", "log-of-negative", like="distribution validation raises", kind="nan")
def distribution_refuses_its_parameters() -> Program:
    class Policy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            logits = torch.log(self.linear(x))  # born
            return torch.distributions.Categorical(logits=logits).entropy()

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.policy = Policy()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.policy(x)

    model = Net()
    return Program(model, vectors(1, 6, 4), mse, sgd(model))


@fault("forward", "decode", "aten::linalg_inv_ex", "singular-matrix", kind="nan", like="pytorch inv_ex unchecked")
def unchecked_inverse_of_a_singular_matrix() -> Program:
    class Decode(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            inverse, _ = torch.linalg.inv_ex(x)  # born
            return inverse.sum((-1, -2))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.decode = nn.Linear(4, 1), Decode()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.linear(x).relu().squeeze(-1)
            return self.decode(torch.diag_embed(torch.stack([y, y], -1)))

    model = Net()
    return Program(model, vectors(1, 6, 4), mse, sgd(model))


@fault("forward", "tracker", "aten::div", "division-by-zero", kind="nan", step=1, like="running statistic poisoned")
def running_statistic_poisoned_with_a_finite_loss() -> Program:
    class Tracker(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("usage", torch.ones(3))

        def forward(self, counts: torch.Tensor) -> None:
            self.usage.mul_(0.9).add_(counts / counts.sum(), alpha=0.1)  # born

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.tracker = nn.Linear(4, 1), Tracker()

        def forward(self, x: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
            self.tracker(counts)
            return self.linear(x).squeeze(-1)

    model = Net()
    batches = [((torch.randn(6, 4), torch.full((3,), float(n))), torch.randn(6)) for n in (2, 0, 2)]
    return Program(model, batches, mse, sgd(model))


@fault("forward", "gated", "aten::div", "division-by-zero", kind="nan", like="NUMERICS 4i")
def sanitised_output_poisons_the_gradient() -> Program:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            ratio = x / x.sum(-1, keepdim=True)  # born
            return torch.nan_to_num(ratio * self.weight)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gated = Gated()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.gated(x).sum(-1)

    model = Net()
    batches = vectors(1, 6, 4)
    batches[0][0][0][0] = 0
    return Program(model, batches, mse, sgd(model))
