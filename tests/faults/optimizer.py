"""Faults born in the optimizer's step: loss and gradients are finite."""

from __future__ import annotations

import torch
from torch import nn

from tests.faults.table import Program, fault, mse, vectors


def _dead_unit() -> nn.Module:
    """A half-precision model whose bias of index 1 never gets a gradient."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(5, 4, dtype=torch.float16)

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return self.table(tokens).float().mean(-1)

    return Net()


def _tokens(steps: int) -> list[tuple[tuple[torch.Tensor, ...], torch.Tensor]]:
    return [((torch.tensor([0, 1, 3]),), torch.randn(3)) for _ in range(steps)]


@fault("optimizer", "<optimizer>", "aten::addcdiv_", "optimizer-epsilon-underflow", kind="nan",
       like="NVIDIA/apex#240")  # fmt: skip
def adam_epsilon_vanishes_in_half_precision() -> Program:
    model = _dead_unit()
    return Program(model, _tokens(2), mse, torch.optim.Adam(model.parameters(), lr=1e-3, foreach=False))


@fault("optimizer", "<optimizer>", "aten::_foreach_addcdiv_", "optimizer-epsilon-underflow", kind="nan",
       like="afiaka87/glide-finetune#5")  # fmt: skip
def foreach_adam_epsilon_vanishes() -> Program:
    model = _dead_unit()
    return Program(model, _tokens(2), mse, torch.optim.AdamW(model.parameters(), lr=1e-3, foreach=True))


@fault("optimizer", "<optimizer>", "aten::sqrt_", "sqrt-of-negative", kind="nan", like="CanReader/FastNN#12")
def centred_rmsprop_loses_its_variance() -> Program:
    model = nn.Linear(4, 1, bias=False)
    optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-3, centered=True, foreach=False)
    with torch.no_grad():
        for parameter in model.parameters():
            state = optimizer.state[parameter]
            state["step"] = torch.tensor(5.0)
            state["square_avg"] = torch.full_like(parameter, 1.0)
            state["grad_avg"] = torch.full_like(parameter, 1.01)
    return Program(model, [((torch.zeros(3, 4),), torch.zeros(3))], mse, optimizer)


@fault("optimizer", "<optimizer>", "aten::addcdiv_", "division-by-zero", kind="nan", like="Adagrad without epsilon")
def adagrad_without_epsilon() -> Program:
    model = nn.Linear(4, 1)
    optimizer = torch.optim.Adagrad(model.parameters(), lr=1e-2, eps=0.0, foreach=False)
    batches = vectors(1, 6, 4)
    batches[0][0][0][:, 2] = 0
    return Program(model, batches, lambda out, target: mse(out.squeeze(-1), target), optimizer)


@fault("optimizer", "<optimizer>", "aten::div", "norm-at-zero", kind="nan", step=1,
       like="stockeh/mlx-optimizers#36")  # fmt: skip
def trust_ratio_of_a_zero_layer() -> Program:
    class Lamb(torch.optim.Optimizer):
        def __init__(self, parameters) -> None:
            super().__init__(parameters, {"lr": 1e-2})

        @torch.no_grad()
        def step(self, closure=None) -> None:
            for group in self.param_groups:
                for p in group["params"]:
                    trust = p.grad / p.grad.norm()  # born
                    p.add_(trust, alpha=-group["lr"])

    model = nn.Linear(4, 1, bias=False)
    batches = vectors(2, 6, 4)
    batches[1] = ((torch.zeros(6, 4),), torch.zeros(6))
    return Program(model, batches, lambda out, target: mse(out.squeeze(-1), target), Lamb(model.parameters()))


@fault("optimizer", "<optimizer>", "aten::add_", "learning-rate-not-finite", kind="nan", step=2,
       like="schedule divides by its length")  # fmt: skip
def schedule_gives_no_number() -> Program:
    class Decaying(torch.optim.SGD):
        def step(self, closure=None):
            for group in self.param_groups:
                left = group.setdefault("left", 2)
                if left == 0:
                    group["lr"] = float("nan")
                group["left"] = left - 1
            return super().step(closure)  # born

    model = nn.Linear(4, 1)
    optimizer = Decaying(model.parameters(), lr=1e-2, foreach=False)
    return Program(model, vectors(4, 6, 4), lambda out, target: mse(out.squeeze(-1), target), optimizer)


@fault("optimizer", "<optimizer>", "aten::div_", "norm-at-zero", kind="nan", step=1, like="NVIDIA-NeMo clip of nothing")
def clipping_without_epsilon() -> Program:
    class Clipped(torch.optim.SGD):
        def step(self, closure=None):
            gradients = [p.grad for group in self.param_groups for p in group["params"]]
            total = torch.stack([g.norm() for g in gradients]).norm()
            for gradient in gradients:
                gradient.div_(total)  # born
            return super().step(closure)

    model = nn.Linear(4, 1, bias=False)
    batches = vectors(2, 6, 4)
    batches[1] = ((torch.zeros(6, 4),), torch.zeros(6))
    optimizer = Clipped(model.parameters(), lr=1e-2)
    return Program(model, batches, lambda out, target: mse(out.squeeze(-1), target), optimizer)


@fault("optimizer", "<optimizer>", "aten::addcmul_", "overflow", kind="inf", like="second moment of a huge gradient")
def second_moment_overflows() -> Program:
    model = nn.Linear(4, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, foreach=False)
    return Program(model, vectors(1, 6, 4), lambda out, target: out.sum() * 1e21, optimizer)


@fault("optimizer", "<optimizer>", "aten::sqrt", "poisoned-state", kind="nan", like="resumed with a negative moment")
def resumed_with_a_negative_second_moment() -> Program:
    model = nn.Linear(4, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, foreach=False)
    for parameter in model.parameters():
        optimizer.state[parameter] = {
            "step": torch.tensor(3.0),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.full_like(parameter, -1.0),
        }
    return Program(model, vectors(1, 6, 4), lambda out, target: mse(out.squeeze(-1), target), optimizer)


@fault("optimizer", "<optimizer>", "aten::lerp_", "poisoned-state", kind="nan", like="resumed with a bad moment")
def resumed_with_a_bad_first_moment() -> Program:
    model = nn.Linear(4, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, foreach=False)
    for parameter in model.parameters():
        optimizer.state[parameter] = {
            "step": torch.tensor(3.0),
            "exp_avg": torch.full_like(parameter, float("nan")),
            "exp_avg_sq": torch.ones_like(parameter),
        }
    return Program(model, vectors(1, 6, 4), lambda out, target: mse(out.squeeze(-1), target), optimizer)


@fault("optimizer", "<optimizer>", "aten::add_", "overflow", kind="inf", like="half-precision weight overflows")
def half_precision_weight_overflows() -> Program:
    model = nn.Linear(4, 1, bias=False).half()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e3, foreach=False)

    def loss_fn(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return output.float().sum() * 10

    return Program(model, [((torch.full((32, 4), 1.0).half(),), torch.zeros(6))], loss_fn, optimizer)


@fault("optimizer", "<optimizer>", "aten::_fused_adamw_", "overflow", kind="inf", like="fused AdamW")
def fused_second_moment_overflows() -> Program:
    model = nn.Linear(4, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    return Program(model, vectors(1, 6, 4), lambda out, target: out.sum() * 1e21, optimizer)


def _sum_error(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return mse(output.sum(-1), target)


@fault("optimizer", "<optimizer>", "aten::div", "division-by-zero", kind="nan", like="Adafactor of a zero gradient")
def factored_second_moment_of_nothing() -> Program:
    class Factored(torch.optim.Optimizer):
        def __init__(self, parameters) -> None:
            super().__init__(parameters, {"lr": 1e-2})

        @torch.no_grad()
        def step(self, closure=None) -> None:
            for p in (p for group in self.param_groups for p in group["params"]):
                square = p.grad.square()
                rows, columns = square.mean(-1), square.mean(-2)
                scale = rows / rows.mean()  # born
                p.sub_(1e-2 * p.grad / (scale[:, None] * columns[None, :]).sqrt().add(1e-8))

    model = nn.Linear(4, 2, bias=False)
    return Program(model, [((torch.zeros(6, 4),), torch.randn(6))], _sum_error, Factored(model.parameters()))
