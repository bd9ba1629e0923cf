"""Healthy programs, continued: non-finite numbers in gradients, states and branches that nobody needs."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

from tests.faults.table import Program, adamw, control, mse, sgd

NAN, INF = float("nan"), float("inf")


@control
def an_optimizer_that_skips_bad_gradients() -> Program:
    class Careful(torch.optim.Adam):
        def step(self, closure=None):
            params = [p for g in self.param_groups for p in g["params"] if p.grad is not None]
            if all(torch.isfinite(p.grad).all() for p in params):
                return super().step(closure)
            return None

    model = nn.Linear(3, 1)
    loss_fn = lambda o, t: torch.where(t > 0, (o - t).abs(), torch.sqrt(torch.zeros_like(o) * o)).mean()  # noqa: E731
    batches = [((torch.randn(4, 3),), t) for t in (torch.ones(4, 1), -torch.ones(4, 1), torch.ones(4, 1))]
    return Program(model, batches, loss_fn, Careful(model.parameters()))


@control
def placeholder_buffer_of_nan() -> Program:
    class Lazy(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(2, 2)
            self.register_buffer("statistics", torch.full((2,), NAN))
            self.register_buffer("best", torch.tensor(INF))

        def forward(self, x):
            y = self.fc(x)
            self.best = torch.minimum(self.best, y.detach().abs().mean())
            return y

    model = Lazy()
    return Program(model, [((torch.randn(3, 2),), torch.randn(3, 2)) for _ in range(3)], mse, adamw(model))


@control
def best_loss_starts_at_infinity() -> Program:
    class Plateau(torch.optim.SGD):
        def __init__(self, params):
            super().__init__(params, lr=1e-2)
            self.best, self.history = INF, torch.full((4,), INF)
            self.count = 0

        def step(self, closure=None):
            norm = math.sqrt(sum(float(p.grad.square().sum()) for p in self.param_groups[0]["params"]))
            self.history[self.count % 4] = norm
            self.best = min(self.best, float(self.history.min()))
            self.count += 1
            return super().step(closure)

    model = nn.Linear(2, 1)
    return Program(
        model, [((torch.randn(3, 2),), torch.randn(3, 1)) for _ in range(3)], mse, Plateau(model.parameters())
    )


@control
def gradient_of_the_input_is_nobodys() -> Program:
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(2, 1)

        def forward(self, x):
            offset = torch.sqrt((x * 0).sum(-1, keepdim=True))
            return self.fc(x.detach()) + offset

    model = Net()
    batches = [((torch.randn(3, 2).requires_grad_(),), torch.randn(3, 1)) for _ in range(2)]
    return Program(model, batches, mse, sgd(model))


@control
def impossible_alignments_are_zeroed() -> Program:
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 4)
            self.ctc = nn.CTCLoss(zero_infinity=True)

        def forward(self, x):
            return self.fc(x).log_softmax(-1)

    model = Net()

    def loss_fn(log_probs, text):
        n = torch.full((2,), log_probs.shape[0])
        return model.ctc(log_probs, text, n, torch.tensor([text.shape[1], 1]))

    batches = [((torch.randn(3, 2, 3),), torch.randint(1, 4, (2, k))) for k in (2, 6, 1)]
    return Program(model, batches, loss_fn, adamw(model))


@control
def auxiliary_loss_of_nothing_is_left_out() -> Program:
    def loss_fn(out, target):
        chosen = out[target > 5]
        auxiliary = chosen.mean()
        total = mse(out, target)
        return total + auxiliary if len(chosen) else total

    model = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1), nn.Flatten(0))
    return Program(model, [((torch.randn(3, 2),), torch.randn(3)) for _ in range(3)], loss_fn, adamw(model))


@control
def clip_to_an_infinite_norm() -> Program:
    class Clip(torch.optim.AdamW):
        def step(self, closure=None):
            nn.utils.clip_grad_norm_(self.param_groups[0]["params"], max_norm=INF)
            return super().step(closure)

    model = nn.GRUCell(2, 3)
    return Program(model, [((torch.randn(4, 2),), torch.randn(4, 3)) for _ in range(3)], mse, Clip(model.parameters()))


@control
def compiled_with_an_infinite_mask() -> Program:
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x):
            s = (self.fc(x) @ x.mT).masked_fill(torch.ones(3, 3).triu(1).bool(), -INF)
            return s.softmax(-1) @ x

    model = torch.compile(Net(), backend="eager")
    return Program(model, [((torch.randn(2, 3, 4),), torch.randn(2, 3, 4)) for _ in range(2)], mse, adamw(model))


@control
def low_precision_with_room_to_spare() -> Program:
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 2)

        def forward(self, x):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return self.b(functional.silu(self.a(x)))

    model = Net()
    loss_fn = lambda o, t: functional.cross_entropy(o.float(), t)  # noqa: E731
    return Program(model, [((torch.randn(3, 4),), torch.tensor([0, 1, 1])) for _ in range(3)], loss_fn, adamw(model))


@control
def divergence_that_allows_zeros() -> Program:
    def loss_fn(out, target):
        return functional.kl_div(out.log_softmax(-1), target, reduction="sum") + torch.xlogy(target, target).sum() * 0

    model = nn.Linear(2, 3)
    target = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0]])
    return Program(model, [((torch.randn(2, 2),), target) for _ in range(3)], loss_fn, sgd(model))


@control
def empty_bags_and_empty_batches() -> Program:
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.bag = nn.EmbeddingBag(5, 3, mode="mean")
            self.fc = nn.Linear(3, 1)

        def forward(self, ids, offsets):
            extra = self.fc(torch.zeros(0, 3)).sum()
            return self.fc(self.bag(ids, offsets)).squeeze(-1) + extra

    model = Net()
    batch = ((torch.tensor([1, 2, 3]), torch.tensor([0, 2, 2])), torch.randn(3))
    return Program(model, [batch, batch], mse, adamw(model))


@control
def log_sum_over_an_empty_set() -> Program:
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 4)

        def forward(self, x, allowed):
            scores = self.fc(x).masked_fill(~allowed, -INF)
            total = scores.detach().logsumexp(-1)
            return self.fc(x).sum(-1) * total.exp().clamp(max=1.0)

    allowed = torch.tensor([[True, True, False, False], [False] * 4])
    model = Net()
    return Program(model, [((torch.randn(2, 3), allowed), torch.randn(2)) for _ in range(2)], mse, sgd(model))
