"""Faults of optimizers, schedules and of gradients on their way to them."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from tests.faults.table import Program, fault, mse


def idle_row(dtype: torch.dtype = torch.float32) -> tuple[nn.Module, list]:
    """An embedding of which row 3 is never looked up, hence has a zero gradient."""
    model = nn.Sequential(nn.Embedding(4, 3), nn.Flatten(), nn.Linear(6, 1)).to(dtype)
    batches = [((torch.randint(3, (5, 2)),), torch.randn(5, 1).to(dtype)) for _ in range(3)]
    return model, batches


@fault("optimizer", "<optimizer>", "aten::addcdiv_", "division-by-zero", kind="nan", like="Adagrad with epsilon zero")
def adagrad_on_a_row_never_looked_up() -> Program:
    model, batches = idle_row()
    return Program(model, batches, mse, torch.optim.Adagrad(model.parameters(), lr=0.1, eps=0.0))


@fault("optimizer", "<optimizer>", "aten::div_", "division-by-zero", kind="nan", like="Adadelta with epsilon zero")
def adadelta_without_epsilon() -> Program:
    model, batches = idle_row()
    return Program(model, batches, mse, torch.optim.Adadelta(model.parameters(), eps=0.0))


@fault("optimizer", "<optimizer>", "aten::addcdiv_", "division-by-zero", kind="nan", like="Adamax with epsilon zero")
def adamax_without_epsilon() -> Program:
    model, batches = idle_row()
    return Program(model, batches, mse, torch.optim.Adamax(model.parameters(), eps=0.0, foreach=False))


@fault("optimizer", "<optimizer>", "aten::_fused_adamw_", "division-by-zero", kind="nan", like="fused AdamW, epsilon 0")
def fused_adamw_without_epsilon() -> Program:
    model, batches = idle_row()
    return Program(model, batches, mse, torch.optim.AdamW(model.parameters(), eps=0.0, fused=True))


@fault("optimizer", "<optimizer>", "aten::_foreach_addcdiv_", "optimizer-epsilon-underflow", kind="nan",
       like="afiaka87/glide-finetune#5")  # fmt: skip
def foreach_adam_in_half() -> Program:
    model, batches = idle_row(torch.float16)
    return Program(
        model, batches, lambda o, t: (o.float() - t.float()).square().mean(),
        torch.optim.Adam(model.parameters(), lr=1e-3, foreach=True),
    )  # fmt: skip


@fault("optimizer", "<optimizer>", "aten::addcmul_", "overflow", kind="inf", step=1,
       like="squared gradient overflows the second moment")  # fmt: skip
def squared_gradient_of_a_giant_batch() -> Program:
    model = nn.Linear(2, 1)
    batches = [((torch.randn(4, 2) * s,), torch.randn(4, 1)) for s in (1.0, 1e21, 1.0)]
    return Program(model, batches, lambda o, t: (o - t).abs().mean(), torch.optim.AdamW(model.parameters()))


@fault("optimizer", "<optimizer>", "aten::reciprocal", "division-by-zero", kind="inf", step=2,
       like="warm-up divides by the remaining steps")  # fmt: skip
def schedule_divides_by_the_steps_that_remain() -> Program:
    class Scheduled:
        """An optimizer that steps its schedule itself, as fairseq's do."""

        def __init__(self, inner, total):
            self.inner, self.total, self.n = inner, total, 0
            self.param_groups = inner.param_groups
            self.state = inner.state

        def zero_grad(self, set_to_none=True):
            self.inner.zero_grad(set_to_none)

        def state_dict(self):
            return {"inner": self.inner.state_dict(), "n": self.n}

        def load_state_dict(self, d):
            self.inner.load_state_dict(d["inner"])
            self.n = d["n"]

        def step(self):
            for group in self.param_groups:
                left = torch.tensor(float(self.total - self.n))
                group["lr"] = float(0.01 / left)  # born
            self.inner.step()
            self.n += 1

    model = nn.Linear(3, 1)
    batches = [((torch.rand(4, 3) + 1,), torch.zeros(4, 1)) for _ in range(4)]
    return Program(model, batches, mse, Scheduled(torch.optim.SGD(model.parameters(), lr=0.01), 2))


@fault("optimizer", "<optimizer>", "aten::div", "norm-at-zero", kind="nan", like="LAMB: zero weight, zero update")
def trust_ratio_of_an_idle_layer() -> Program:
    class Lamb(torch.optim.Optimizer):
        def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-6):
            super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})

        @torch.no_grad()
        def step(self, closure=None):
            for group in self.param_groups:
                b1, b2 = group["betas"]
                for p in group["params"]:
                    if p.grad is None:
                        continue
                    s = self.state[p]
                    if not s:
                        s["m"], s["v"] = torch.zeros_like(p), torch.zeros_like(p)
                    s["m"].mul_(b1).add_(p.grad, alpha=1 - b1)
                    s["v"].mul_(b2).addcmul_(p.grad, p.grad, value=1 - b2)
                    update = s["m"] / (s["v"].sqrt() + group["eps"])
                    ratio = p.norm() / update.norm()  # born
                    p.add_(update * ratio, alpha=-group["lr"])

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.used = nn.Linear(3, 2)
            self.dead = nn.Linear(3, 2)
            nn.init.zeros_(self.dead.weight)
            nn.init.constant_(self.dead.bias, -1.0)

        def forward(self, x):
            return self.used(x) + torch.relu(self.dead(x))

    model = Net()
    return Program(model, [((torch.randn(4, 3),), torch.randn(4, 2))], mse, Lamb(model.parameters()))


@fault("optimizer", "<optimizer>", "aten::div_", "norm-at-zero", kind="nan", step=1,
       like="WeiChengTseng/Pytorch-PCGrad#7")  # fmt: skip
def normalised_descent_on_a_plateau() -> Program:
    class NormalisedSGD(torch.optim.SGD):
        @torch.no_grad()
        def step(self, closure=None):
            for group in self.param_groups:
                for p in group["params"]:
                    p.grad.div_(p.grad.norm())  # born
            return super().step(closure)

    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1, bias=False))
    far = torch.full((3, 2), -1e4)
    model[0].weight.data.abs_()
    batches = [((torch.rand(3, 2) + 1,), torch.randn(3, 1)), ((far,), torch.randn(3, 1))]
    return Program(model, batches, mse, NormalisedSGD(model.parameters(), lr=1e-3))


@fault("backward", "", "aten::_to_copy", "cast-overflow", node="ToCopyBackward0", kind="inf",
       like="static loss scale of 2**24 with half weights")  # fmt: skip
def static_loss_scale_too_large() -> Program:
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 2).half()

        def forward(self, x):
            y = self.fc(x.half())
            return y.float()  # born

    class Unscale(torch.optim.SGD):
        def step(self, closure=None):
            for p in self.param_groups[0]["params"]:
                p.grad = p.grad / 2**24
            super().step(closure)

    model = Half()
    loss = lambda o, t: functional.mse_loss(o, t) * 2**24  # noqa: E731
    return Program(model, [((torch.randn(3, 4),), torch.randn(3, 2))], loss, Unscale(model.parameters(), lr=0.1))


@fault("forward", "<loss>", "aten::mse_loss", "overflow", kind="inf", step=10, like="learning rate far too large")
def divergence_under_a_large_learning_rate() -> Program:
    model = nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(1.0)
    x = torch.ones(4, 1)
    batches = [((x,), torch.zeros(4, 1)) for _ in range(40)]
    return Program(model, batches, nn.MSELoss(), torch.optim.SGD(model.parameters(), lr=50.5))


@fault("forward", "", "aten::exp", "exp-overflow", kind="inf", step=2, like="log scale under a large learning rate")
def exponentiated_parameter_runs_away() -> Program:
    class Scales(nn.Module):
        def __init__(self):
            super().__init__()
            self.log_scales = nn.ParameterList([nn.Parameter(torch.zeros(2)) for _ in range(3)])

        def forward(self, x):
            gains = torch.stack([p.exp() for p in self.log_scales])  # born
            return -(x * gains).sum((1, 2))

    model = Scales()
    batches = [((torch.ones(1, 3, 2),), torch.zeros(1)) for _ in range(5)]
    return Program(model, batches, lambda o, _: o.mean(), torch.optim.SGD(model.parameters(), lr=4.6))


@fault("optimizer", "<optimizer>", "aten::reciprocal", "optimizer-epsilon-underflow", kind="inf", step=5,
       like="RAdam in half precision")  # fmt: skip
def rectified_adam_in_half() -> Program:
    model = nn.Linear(2, 1).half()
    x = torch.tensor([[1.0, 0.0]]).half()
    batches = [((x,), torch.ones(1, 1).half()) for _ in range(8)]
    return Program(model, batches, lambda o, _: o.float().mean(), torch.optim.RAdam(model.parameters()))
