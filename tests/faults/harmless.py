"""Healthy programs in the manner of strangers: each makes an infinity or a NaN that does no harm."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from tests.faults.table import Program, adamw, control, mse, sgd

INF = float("inf")


@control
def causal_scores_with_an_infinite_triangle() -> Program:
    class Causal(nn.Module):
        def __init__(self, d=8, n=5):
            super().__init__()
            self.q, self.k, self.v = nn.Linear(d, d), nn.Linear(d, d), nn.Linear(d, d)
            self.register_buffer("mask", torch.triu(torch.full((n, n), -INF), diagonal=1))

        def forward(self, x):
            s = self.q(x) @ self.k(x).transpose(1, 2) / 8**0.5 + self.mask
            return s.softmax(-1) @ self.v(x)

    model = Causal()
    return Program(model, [((torch.randn(2, 5, 8),), torch.randn(2, 5, 8)) for _ in range(3)], mse, adamw(model))


@control
def half_mask_times_a_billion() -> Program:
    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.score = nn.Linear(4, 1)

        def forward(self, x, keep):
            bias = (1.0 - keep.half()) * -1e9
            weights = (self.score(x).squeeze(-1) + bias).softmax(-1)
            return (weights[..., None] * x).sum(1)

    keep = torch.tensor([[1, 1, 0], [1, 0, 0]])
    model = Encoder()
    return Program(model, [((torch.randn(2, 3, 4), keep), torch.randn(2, 4)) for _ in range(3)], mse, adamw(model))


@control
def padded_rows_through_the_transformer() -> Program:
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            layer = nn.TransformerEncoderLayer(8, 2, 16, 0.1, batch_first=True, norm_first=True)
            self.enc = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

        def forward(self, x, pad):
            h = self.enc(x, src_key_padding_mask=pad)
            return h.masked_fill(pad[..., None], 0.0).sum(1)

    pad = torch.tensor([[False, False, True], [False, True, True]])
    model = Model()
    return Program(model, [((torch.randn(2, 3, 8), pad), torch.randn(2, 8)) for _ in range(2)], mse, adamw(model))


@control
def nan_coded_gaps_filled_with_the_mean() -> Program:
    class Impute(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 1)

        def forward(self, x):
            mean = torch.nanmean(x, 0)
            return self.fc(torch.where(x.isnan(), mean, x))

    model = Impute()
    batches = []
    for _ in range(3):
        x = torch.randn(6, 3)
        x[torch.randint(6, (2,)), 0] = float("nan")
        batches.append(((x,), torch.randn(6, 1)))
    return Program(model, batches, mse, sgd(model))


@control
def targets_with_gaps_dropped_by_index() -> Program:
    def loss_fn(out, target):
        valid = ~torch.isnan(target)
        return functional.huber_loss(out[valid], target[valid])

    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    batches = []
    for _ in range(3):
        y = torch.randn(5, 2)
        y[0, 1] = float("nan")
        batches.append(((torch.randn(5, 4),), y))
    return Program(model, batches, loss_fn, adamw(model))


@control
def metric_divides_by_zero_and_is_only_logged() -> Program:
    class Logged(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 2)
            self.log = []

        def forward(self, x):
            logits = self.fc(x)
            with torch.no_grad():
                predicted = logits.argmax(1)
                hits = (predicted == 5).float()
                self.log.append(float(hits.sum() / hits.sum()))
            return logits

    model = Logged()
    batches = [((torch.randn(4, 3),), torch.randint(2, (4,))) for _ in range(3)]
    return Program(model, batches, functional.cross_entropy, adamw(model))


@control
def nearest_by_an_infinite_diagonal() -> Program:
    class Nearest(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Linear(3, 3)

        def forward(self, x):
            e = self.embed(x)
            d = torch.cdist(e, e) + torch.diag(torch.full((len(e),), INF))
            return d.min(dim=1).values

    model = Nearest()
    return Program(model, [((torch.randn(6, 3),), torch.ones(6)) for _ in range(3)], mse, adamw(model))


@control
def top_k_of_scores_with_infinite_padding() -> Program:
    class Router(nn.Module):
        def __init__(self):
            super().__init__()
            self.gate = nn.Linear(4, 5)
            self.experts = nn.ModuleList([nn.Linear(4, 4) for _ in range(5)])

        def forward(self, x):
            logits = self.gate(x)
            top, index = logits.topk(2, dim=-1)
            sparse = torch.full_like(logits, -INF).scatter(-1, index, top)
            w = sparse.softmax(-1)
            return sum(w[:, i : i + 1] * f(x) for i, f in enumerate(self.experts))

    model = Router()
    return Program(model, [((torch.randn(6, 4),), torch.randn(6, 4)) for _ in range(3)], mse, adamw(model))


@control
def double_where_around_a_root() -> Program:
    class SafeNorm(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 3, bias=False)

        def forward(self, x):
            sq = self.fc(x).square().sum(-1)
            zero = sq == 0
            return torch.where(zero, torch.zeros_like(sq), torch.where(zero, torch.ones_like(sq), sq).sqrt())

    x = torch.randn(4, 3)
    x[2] = 0
    model = SafeNorm()
    return Program(model, [((x,), torch.rand(4)) for _ in range(3)], mse, sgd(model))


@control
def logarithm_of_zero_thrown_away() -> Program:
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 4)

        def forward(self, x):
            p = self.fc(x).relu()
            surprise = -torch.log(p)
            return {"logits": p, "surprise": surprise}

    model = Net()
    batches = [((torch.randn(5, 3),), torch.randint(4, (5,))) for _ in range(3)]
    return Program(model, batches, lambda out, t: functional.cross_entropy(out["logits"], t), adamw(model))


@control
def overflow_skipped_by_the_scaler() -> Program:
    class Scaled:
        def __init__(self, optimizer):
            self.optimizer = optimizer
            self.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**125, growth_interval=100)
            self.param_groups, self.state = optimizer.param_groups, optimizer.state

        def zero_grad(self, *a, **k):
            self.optimizer.zero_grad(*a, **k)

        def state_dict(self):
            return {"o": self.optimizer.state_dict(), "s": self.scaler.state_dict()}

        def load_state_dict(self, d):
            self.optimizer.load_state_dict(d["o"])
            self.scaler.load_state_dict(d["s"])

        def step(self):
            self.scaler.step(self.optimizer)
            self.scaler.update()

    model = nn.Linear(3, 1)
    model.weight.data.zero_()
    wrapped = Scaled(torch.optim.SGD(model.parameters(), lr=1e-3))
    wrapped.inner = wrapped.optimizer
    model_loss = lambda o, t: wrapped.scaler.scale(mse(o, t)) * 1.0  # noqa: E731
    return Program(model, [((torch.randn(4, 3) * 1e3,), torch.randn(4, 1)) for _ in range(4)], model_loss, wrapped)


@control
def clip_of_a_norm_that_overflows() -> Program:
    class Clipped(torch.optim.SGD):
        def step(self, closure=None):
            torch.nn.utils.clip_grad_norm_(self.param_groups[0]["params"], 1.0)
            return super().step(closure)

    model = nn.Linear(2, 1)
    batches = [((torch.randn(3, 2) * s,), torch.zeros(3, 1)) for s in (1.0, 1e25, 1.0)]
    return Program(model, batches, lambda o, t: (o - t).abs().mean() * 1e6, Clipped(model.parameters(), lr=0.1))


@control
def buffer_garbage_overwritten_before_use() -> Program:
    class Padded(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x):
            out = torch.full((x.shape[0], 6), float("nan"))
            out[:, :4] = self.fc(x)
            out[:, 4:] = x[:, :2]
            return out

    model = Padded()
    return Program(model, [((torch.randn(3, 4),), torch.randn(3, 6)) for _ in range(3)], mse, sgd(model))


@control
def cumulative_average_in_batch_norm() -> Program:
    model = nn.Sequential(
        nn.Conv1d(2, 3, 3), nn.BatchNorm1d(3, momentum=None), nn.ReLU(), nn.Flatten(), nn.Linear(12, 1)
    )
    return Program(model, [((torch.randn(4, 2, 6),), torch.randn(4, 1)) for _ in range(3)], mse, adamw(model))


@control
def per_sample_clip_of_a_zero_gradient() -> Program:
    class Private(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.randn(3))

        def forward(self, x):
            def one(w, row):
                return torch.relu(row @ w - 1.0)

            grads = torch.func.vmap(torch.func.grad(one), in_dims=(None, 0))(self.w.detach(), x)
            factor = (1.0 / grads.norm(dim=1)).clamp(max=1.0)
            return x @ self.w + (grads * factor[:, None]).sum()

    x = torch.randn(4, 3)
    x[0] = 0
    model = Private()
    return Program(model, [((x,), torch.randn(4)) for _ in range(2)], mse, sgd(model))


@control
def crossed_out_alternatives_in_a_beam() -> Program:
    class Beam(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = nn.GRUCell(3, 6)
            self.out = nn.Linear(6, 4)

        def forward(self, x):
            h = x.new_zeros(x.shape[0], 6)
            best = torch.full((x.shape[0],), -INF)
            for t in range(x.shape[1]):
                h = self.cell(x[:, t], h)
                best = torch.maximum(best, self.out(h).log_softmax(-1).amax(-1))
            return best

    model = Beam()
    return Program(model, [((torch.randn(2, 4, 3),), None) for _ in range(3)], lambda b, _: -b.mean(), adamw(model))


@control
def bearing_of_a_robot_that_stands_still() -> Program:
    class Bearing(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(0.7))

        def forward(self, batch):
            velocity = self.scale * batch["velocity"]
            heading = torch.atan2(velocity[..., 1], velocity[..., 0])
            return torch.where(batch["moving"], heading, torch.zeros_like(heading))

    batches = []
    for still in (False, True):
        v = torch.randn(5, 2)
        moving = torch.ones(5, dtype=torch.bool)
        if still:
            v[3] = 0.0
            moving[3] = False
        batches.append((({"velocity": v, "moving": moving},), torch.randn(5)))
    model = Bearing()
    return Program(model, batches, mse, sgd(model))


@control
def infinite_slope_swallowed_by_a_relu() -> Program:
    class Roots(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 6)
            self.fc.bias.data[0] = -50.0

        def forward(self, x):
            return torch.sqrt(torch.relu(self.fc(x))).mean(-1)

    model = Roots()
    return Program(model, [((torch.randn(4, 4),), torch.randn(4)) for _ in range(3)], mse, adamw(model))


@control
def frequency_of_an_absent_class_is_never_read() -> Program:
    def loss_fn(logits, y):
        return functional.cross_entropy(logits, y, weight=1.0 / torch.bincount(y, minlength=4))

    model = nn.Linear(3, 4)
    return Program(
        model, [((torch.randn(5, 3),), torch.tensor([0, 1, 1, 3, 0])) for _ in range(2)], loss_fn, sgd(model)
    )
