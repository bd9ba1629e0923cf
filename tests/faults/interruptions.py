"""Faults that show as an exception, and numbers that travel through types, loaders, counts and schedules."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from tests.faults.table import Program, adamw, fault, mse, sgd


@fault("forward", "policy", "aten::div", "division-by-zero", kind="inf", like="multinomial refuses")
def sampling_refuses_probabilities() -> Program:
    class Policy(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 4)
            self.register_buffer("temperature", torch.tensor(0.0))

        def forward(self, obs):
            return (self.fc(obs) / self.temperature).softmax(-1)  # born

    class Agent(nn.Module):
        def __init__(self):
            super().__init__()
            self.policy = Policy()

        def forward(self, obs):
            p = self.policy(obs)
            action = torch.multinomial(p, 1)
            return p.gather(1, action).clamp_min(1e-9).log()

    model = Agent()
    return Program(model, [((torch.randn(4, 3),), None)], lambda logp, _: -logp.mean(), adamw(model))


@fault("forward", "", "aten::div", "division-by-zero", kind="nan", step=1, like="index made of a NaN")
def position_made_of_a_nan() -> Program:
    class TimeEmbedding(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(10, 3)

        def forward(self, t):
            relative = t / t.amax(-1, keepdim=True)  # born
            return self.table((relative * 9).long()).sum((1, 2))

    model = TimeEmbedding()
    batches = [((t,), torch.zeros(2)) for t in (torch.rand(2, 4) + 0.1, torch.zeros(2, 4))]
    return Program(model, batches, mse, adamw(model))


@fault("forward", "attend", "aten::div", "mean-of-nothing", kind="nan", step=1, like="binary cross entropy refuses")
def cross_entropy_refuses() -> Program:
    class Attend(nn.Module):
        def forward(self, h, mask):
            return (h * mask).sum(1) / mask.sum(1)  # born

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.attend, self.fc = Attend(), nn.Linear(2, 1)

        def forward(self, h, mask):
            return torch.sigmoid(self.fc(self.attend(h, mask[..., None].float()))).squeeze(-1)

    def bce(p, y):
        return functional.binary_cross_entropy(p, y)

    model = Net()
    masks = [torch.ones(2, 3, dtype=torch.long), torch.tensor([[1, 1, 0], [0, 0, 0]])]
    batches = [((torch.randn(2, 3, 2), m), torch.tensor([0.0, 1.0])) for m in masks]
    return Program(model, batches, bce, sgd(model))


@fault("forward", "<loss>", "aten::log", "log-of-zero", kind="inf", like="a guard that raises")
def guard_in_the_loss_raises() -> Program:
    def guarded(output, target):
        ratio = torch.log(output.relu() / target)  # born
        loss = ratio.square().mean()
        if not torch.isfinite(loss):
            raise FloatingPointError(f"loss is {loss.item()}")
        return loss

    model = nn.Linear(2, 1)
    model.bias.data.fill_(-30.0)
    return Program(model, [((torch.randn(3, 2),), torch.ones(3, 1))], guarded, adamw(model))


@fault("forward", "", "aten::rsqrt", "division-by-zero", kind="inf",
       like="clip_grad_norm_ with error_if_nonfinite")  # fmt: skip
def clipping_refuses_gradients() -> Program:
    class Strict(torch.optim.AdamW):
        def step(self, closure=None):
            nn.utils.clip_grad_norm_(self.param_groups[0]["params"], 1.0, error_if_nonfinite=True)
            return super().step(closure)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.tensor([1.0, 0.0, 2.0]))

        def forward(self, x):
            inverse = torch.rsqrt(self.w)  # born
            return x * torch.where(self.w > 0, inverse, self.w)

    model = Net()
    return Program(model, [((torch.randn(4, 3),), torch.randn(4, 3))], mse, Strict(model.parameters()))


@fault("forward", "", "aten::_to_copy", "cast-overflow", kind="inf", step=1, like="double features cast to float")
def double_precision_features() -> Program:
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(2, 1)

        def forward(self, x):
            return self.fc(x.to(self.fc.weight.dtype)).squeeze(1)  # born

    wild = torch.randn(3, 2, dtype=torch.float64)
    wild[1, 1] = 1e200
    model = Net()
    batches = [((x,), torch.randn(3)) for x in (torch.randn(3, 2, dtype=torch.float64), wild)]
    return Program(model, batches, mse, sgd(model))


@fault(
    "forward",
    "<loss>",
    "aten::reciprocal",
    "division-by-zero",
    kind="inf",
    like="inverse class frequency, a class is absent",
)
def inverse_frequency_of_an_absent_class() -> Program:
    def smooth(logits, y):
        weight = 1.0 / torch.bincount(y, minlength=4)  # born
        return functional.cross_entropy(logits, y, weight=weight, label_smoothing=0.1)

    model = nn.Linear(3, 4)
    return Program(model, [((torch.randn(5, 3),), torch.tensor([0, 1, 1, 3, 0]))], smooth, sgd(model))


@fault("forward", "<loss>", "aten::div", "mean-of-nothing", kind="nan", step=1, like="average over a missing channel")
def average_over_a_missing_channel() -> Program:
    def known_only(output, target):
        known = ~target.isnan()
        error = (output - torch.where(known, target, output.detach())) ** 2 * known
        return (error.sum(0) / known.sum(0)).sum()  # born

    one_gap, no_channel = torch.randn(4, 2), torch.randn(4, 2)
    one_gap[0, 0] = float("nan")
    no_channel[:, 1] = float("nan")
    model = nn.Linear(3, 2)
    return Program(model, [((torch.randn(4, 3),), t) for t in (one_gap, no_channel)], known_only, sgd(model))


@fault("data", "<input>", "data", "bad-input", kind="nan", step=1, like="padding of NaN times a mask of zeros")
def padding_of_nan_times_zero() -> Program:
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(2, 1)

        def forward(self, x, mask):
            return self.fc((x * mask[..., None]).sum(1)).squeeze(-1)

    features, masks, labels = torch.randn(4, 3, 2), torch.ones(4, 3), torch.randn(4)
    features[3, 2], masks[3, 2] = float("nan"), 0.0
    loader = DataLoader(
        TensorDataset(features, masks, labels), batch_size=2,
        collate_fn=lambda rows: ((torch.stack([r[0] for r in rows]), torch.stack([r[1] for r in rows])),
                                 torch.stack([r[2] for r in rows])),
    )  # fmt: skip
    model = Net()
    return Program(model, loader, mse, adamw(model))


@fault("optimizer", "<optimizer>", "aten::addcdiv_", "learning-rate-not-finite", kind="nan", step=2,
       like="LambdaLR divides zero by zero")  # fmt: skip
def schedule_gives_nan() -> Program:
    import numpy as np

    model = nn.Linear(2, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    with np.errstate(all="ignore"):
        factors = np.array([1.0, 1.0, 0.0]) / np.array([1.0, 2.0, 0.0])
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: float(factors[min(epoch, 2)]))
    optimizer.register_step_post_hook(lambda *_: scheduler.step())
    return Program(model, [((torch.randn(4, 2),), torch.randn(4, 1)) for _ in range(4)], mse, optimizer)


@fault("optimizer", "<optimizer>", "aten::mul_", "learning-rate-not-finite", kind="inf", like="infinite weight decay")
def weight_decay_of_infinity() -> Program:
    model = nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=float("inf"))
    return Program(model, [((torch.randn(4, 2),), torch.randn(4, 1))], mse, optimizer)


@fault(
    "optimizer",
    "<optimizer>",
    "aten::reciprocal",
    "division-by-zero",
    kind="inf",
    step=1,
    like="SAM: perturbation of a zero gradient",
)
def sharpness_aware_step_on_a_plateau() -> Program:
    class SAM(torch.optim.SGD):
        @torch.no_grad()
        def step(self, closure=None):
            params = [p for p in self.param_groups[0]["params"] if p.grad is not None]
            norm = torch.norm(torch.stack([p.grad.norm(p=2) for p in params]), p=2)
            scale = 0.05 / norm  # born
            offsets = [p.grad * scale for p in params]
            torch._foreach_add_(params, offsets)
            super().step()

    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    targets = model[2].bias.detach().clone()
    batches = [((torch.randn(3, 2),), torch.randn(3, 1)), ((torch.randn(3, 2) * 0 - 1e6,), targets.expand(3, 1))]
    hinge = lambda o, t: torch.relu((o - t).abs() - 1e9 * (t.std() < 1e-12)).mean()  # noqa: E731
    return Program(model, batches, hinge, SAM(model.parameters(), lr=0.01))


@fault("optimizer", "<optimizer>", "aten::pow", "overflow", kind="inf", step=1, like="SparseAdam, giant gradient")
def sparse_second_moment_overflows() -> Program:
    class Bag(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(6, 2, sparse=True)

        def forward(self, ids, weight):
            return (self.table(ids) * weight).sum(-1)

    model = Bag()
    ids = torch.tensor([1, 2, 4])
    batches = [((ids, w), torch.zeros(3)) for w in (1.0, 1e22)]
    return Program(model, batches, lambda o, _: o.mean(), torch.optim.SparseAdam(model.parameters()))


@fault("optimizer", "<optimizer>", "aten::div", "division-by-zero", kind="inf", step=1,
       like="an optimizer keeps a bad number to itself for two steps")  # fmt: skip
def delayed_update_of_a_bad_average() -> Program:
    class Delayed(torch.optim.Optimizer):
        def __init__(self, params):
            super().__init__(params, {"lr": 1e-2})
            self.waiting = []

        @torch.no_grad()
        def step(self, closure=None):
            params = self.param_groups[0]["params"]
            self.waiting.append([torch.ones_like(p) / p.grad.abs().amax() for p in params])  # born
            if len(self.waiting) > 2:
                for p, g in zip(params, self.waiting.pop(0), strict=True):
                    p.sub_(g, alpha=1e-3)

    model = nn.Linear(2, 1)
    batches = [((torch.randn(3, 2),), scale) for scale in (1.0, 0.0, 1.0, 1.0, 1.0)]
    return Program(model, batches, lambda o, scale: o.square().mean() * scale, Delayed(model.parameters()))


@fault(
    "forward",
    "norm",
    "aten::sqrt",
    "sqrt-of-negative",
    kind="nan",
    step=2,
    like="running variance with a momentum above one",
)
def running_variance_turns_negative() -> Program:
    class Norm(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("var", torch.ones(2))

        def forward(self, x):
            y = x / torch.sqrt(self.var + 1e-5)  # born
            with torch.no_grad():
                self.var += 1.5 * (x.var(0) - self.var)
            return y

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.fc = Norm(), nn.Linear(2, 1)

        def forward(self, x):
            return self.fc(self.norm(x))

    model = Net()
    batches = [((torch.randn(6, 2) * s,), torch.randn(6, 1)) for s in (10.0, 0.1, 1.0, 1.0)]
    return Program(model, batches, mse, adamw(model))


@fault("forward", "<loss>", "aten::sum", "overflow", kind="inf", like="sum over a batch in half")
def summed_loss_in_half() -> Program:
    def total(output, target):
        error = (output - target) ** 2
        return error.sum() / error.numel()  # born

    model = nn.Linear(2, 300).half()
    model.bias.data.fill_(20.0)
    return Program(model, [((torch.randn(4, 2).half(),), torch.zeros(4, 300).half())], total, sgd(model))


@fault("forward", "head", "aten::addmm", "overflow", kind="inf", like="autocast to float16")
def autocast_linear_overflows() -> Program:
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Linear(4, 8), nn.Linear(8, 2)
            self.head.weight.data.fill_(100.0)
            self.body.bias.data.fill_(500.0)

        def forward(self, x):
            with torch.autocast("cpu", dtype=torch.float16):
                h = self.body(x)
                y = self.head(h)  # born
            return y.float()

    model = Net()
    return Program(model, [((torch.randn(3, 4),), torch.tensor([0, 1, 1]))], functional.cross_entropy, adamw(model))


@fault("forward", "<loss>", "aten::exp", "exp-overflow", kind="inf", step=1, like="Poisson likelihood with a log rate")
def poisson_with_a_large_log_rate() -> Program:
    def nll(log_rate, counts):
        return functional.poisson_nll_loss(log_rate, counts, log_input=True)  # born

    model = nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(1.0)
    batches = [((torch.full((3, 1), v),), torch.ones(3, 1)) for v in (1.0, 95.0)]
    return Program(model, batches, nll, sgd(model))
