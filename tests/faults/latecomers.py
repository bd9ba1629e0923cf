"""Faults whose bad number was there long before it did harm, or that no operation has made."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

from tests.faults.table import Program, adamw, fault, mse, sgd


@fault(
    "forward", "", "aten::sub", "infinity-minus-infinity", kind="nan", step=3, like="a sentinel that is never replaced"
)
def sentinel_subtracted_from_itself() -> Program:
    class Best(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.calls = nn.Linear(2, 1), 0

        def forward(self, x):
            self.calls += 1
            if self.calls == 1:
                self.low = self.high = torch.full((2,), math.inf)
            y = self.fc(x)
            if self.calls > 3:
                y = y + (self.high - self.low).sum()  # born
            return y

    model = Best()
    return Program(model, [((torch.randn(2, 2),), torch.randn(2, 1)) for _ in range(5)], mse, sgd(model))


@fault("forward", "", "aten::log", "log-of-zero", kind="inf", step=1, like="class prior estimated early, used late")
def prior_estimated_early_used_late() -> Program:
    class Calibrated(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.calls = nn.Linear(2, 3), 0
            self.register_buffer("prior", torch.zeros(3))

        def forward(self, x, counts):
            self.calls += 1
            if self.calls == 2:
                self.prior.copy_(torch.log(counts / counts.sum()))  # born
            logits = self.fc(x)
            return logits + self.prior if self.calls > 3 else logits

    counts = torch.tensor([5.0, 0.0, 3.0])
    model = Calibrated()
    batches = [((torch.randn(4, 2), counts), torch.tensor([0, 1, 2, 1])) for _ in range(5)]
    return Program(model, batches, functional.cross_entropy, adamw(model))


@fault("forward", "", "aten::div", "division-by-zero", kind="nan", step=1, like="prototypes collected in a list")
def prototype_collected_in_a_list() -> Program:
    class Bank(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.prototypes = nn.Linear(2, 1), []

        def forward(self, x):
            with torch.no_grad():
                self.prototypes.append(functional.normalize(x, eps=0.0).mean(0))  # born
            y = self.fc(x)
            if len(self.prototypes) > 3:
                y = y * torch.stack(self.prototypes).square().mean()
            return y

    model = Bank()
    return Program(model, [((torch.ones(2, 2) * s,), torch.ones(2, 1)) for s in (1, 0, 2, 3, 4)], mse, sgd(model))


@fault("forward", "", "aten::index_put_", "constant-fill", kind="nan", like="zeros marked as missing, and then used")
def zeros_marked_as_missing_and_used() -> Program:
    class Marked(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(2, 1)

        def forward(self, x):
            x = x.clone()
            x[x == 0] = float("nan")  # born
            return self.fc(x)

    model = Marked()
    return Program(model, [((torch.tensor([[1.0, 2.0], [0.0, 1.0]]),), torch.ones(2, 1))], mse, sgd(model))


@fault("forward", "", "aten::mul", "constant-fill", kind="inf", like="a constant that float32 cannot hold")
def constant_that_does_not_fit() -> Program:
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(2, 1)

        def forward(self, x):
            return self.fc(x) * torch.tensor(1e39)  # born

    model = Scaled()
    return Program(model, [((torch.ones(2, 2),), torch.ones(2, 1))], nn.L1Loss(), adamw(model))


@fault(
    "forward", "<loss>", "aten::div", "division-by-zero", kind="inf", step=2, like="mean teacher, updated in the loss"
)
def teacher_spoilt_before_it_is_asked() -> Program:
    student, teacher = nn.Linear(2, 1), nn.Linear(2, 1)
    calls = []

    def consistency(output, x):
        calls.append(1)
        with torch.no_grad():
            for p, q in zip(teacher.parameters(), student.parameters(), strict=True):
                p.lerp_(q / x.sum(), 0.1)  # born
        loss = output.square().mean()
        return loss + mse(output, teacher(x)) if len(calls) > 4 else loss

    batches = [((torch.ones(2, 2),), torch.ones(2, 2) * (step != 2)) for step in range(6)]
    return Program(student, batches, consistency, sgd(student))
