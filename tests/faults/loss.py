"""Faults born in the loss."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from tests.faults.table import Program, adamw, fault, mse, sgd, vectors


@fault("forward", "<loss>", "aten::nll_loss_forward", "target-index-out-of-use", kind="nan", step=1,
       like="pytorch/pytorch#75181")  # fmt: skip
def every_label_ignored() -> Program:
    model = nn.Linear(4, 3)
    labels = [torch.randint(3, (6,)), torch.full((6,), -100)]
    batches = [((torch.randn(6, 4),), label) for label in labels]
    return Program(model, batches, nn.CrossEntropyLoss(), sgd(model))


@fault("forward", "<loss>", "aten::log", "log-of-zero", kind="inf", like="hand-written cross entropy")
def hand_written_binary_cross_entropy() -> Program:
    def loss_fn(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        p = torch.sigmoid(output).squeeze(-1)
        positive = target * torch.log(p)  # born
        return -(positive + (1 - target) * torch.log1p(-p * 0.999)).mean()

    model = nn.Linear(4, 1)
    batches = [((torch.randn(6, 4) * 1e4,), torch.ones(6))]
    return Program(model, batches, loss_fn, sgd(model))


@fault("forward", "<loss>", "aten::div", "division-by-zero", kind="nan", step=2, like="dice loss of an empty mask")
def dice_of_an_empty_mask() -> Program:
    def dice(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        p = torch.relu(output - 1e6) * target
        return 1 - 2 * p.sum() / (p.sum() + target.sum())  # born

    model = nn.Linear(4, 4)
    batches = [((torch.randn(6, 4),), torch.full((6, 4), float(n))) for n in (1, 1, 0)]
    return Program(model, batches, dice, sgd(model))


@fault("forward", "<loss>", "aten::_ctc_loss", "impossible-alignment", kind="inf", like="pytorch/pytorch#31682")
def target_longer_than_its_input() -> Program:
    def loss_fn(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        frames = functional.log_softmax(output, -1).transpose(0, 1)
        lengths = torch.full((2,), 4), torch.tensor([3, 6])
        return functional.ctc_loss(frames, target, *lengths)  # born

    model = nn.Linear(5, 7)
    batches = [((torch.randn(2, 4, 5),), torch.randint(1, 7, (2, 6)))]
    return Program(model, batches, loss_fn, adamw(model))


@fault("forward", "<loss>", "aten::pow", "overflow", kind="inf", like="divergence")
def squared_error_overflows() -> Program:
    def loss_fn(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return ((output.squeeze(-1) - target) ** 2).mean()  # born

    model = nn.Linear(4, 1)
    batches = [((torch.randn(6, 4),), torch.full((6,), 1e30))]
    return Program(model, batches, loss_fn, sgd(model))


@fault("backward", "<loss>", "aten::sqrt", "sqrt-at-zero", node="SqrtBackward0", kind="inf", step=1,
       like="root mean square error of a perfect prediction")  # fmt: skip
def rmse_of_a_perfect_prediction() -> Program:
    def rmse(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return torch.sqrt(functional.mse_loss(output, target))  # born

    model = nn.Linear(4, 4, bias=False)
    batches = vectors(3, 6, 4, target=(6, 4))
    batches[1] = ((torch.zeros(6, 4),), torch.zeros(6, 4))
    return Program(model, batches, rmse, sgd(model))


@fault("backward", "<loss>", "aten::sqrt", "sqrt-at-zero", node="SqrtBackward0", kind="inf", like="gradient penalty")
def gradient_penalty_of_a_flat_critic() -> Program:
    class Critic(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            x = x.requires_grad_()
            return x, torch.relu(self.linear(x) - 1e3).sum(-1)

    def penalty(output: tuple[torch.Tensor, torch.Tensor], target: torch.Tensor) -> torch.Tensor:
        x, score = output
        (slope,) = torch.autograd.grad(score.sum(), x, create_graph=True)
        length = torch.sqrt(slope.square().sum(-1))  # born
        return score.mean() + (length - 1).square().mean()

    model = Critic()
    return Program(model, vectors(1, 6, 4), penalty, sgd(model))


@fault("forward", "<loss>", "aten::log", "log-of-zero", kind="inf", like="one of two loss terms")
def auxiliary_loss_inside_a_module_loss() -> Program:
    class Entropy(nn.Module):
        def forward(self, p: torch.Tensor) -> torch.Tensor:
            return -(p * torch.log(p)).sum(-1).mean()  # born

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.entropy = Entropy()

        def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            return mse(output.mean(-1), target) + self.entropy(torch.softmax(output * 1e4, -1))

    model = nn.Linear(4, 4)
    return Program(model, vectors(1, 6, 4), Both(), sgd(model))
