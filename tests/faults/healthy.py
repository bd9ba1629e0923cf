"""Healthy controls: infinities and NaNs that do no harm. Nothing may be said about them."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from tests.faults.table import Program, adamw, control, mse, sgd, vectors


class _Net(nn.Module):
    """A linear layer, a function of its output, and the mean over what is left."""

    def __init__(self, then, width: int = 4) -> None:
        super().__init__()
        self.linear = nn.Linear(4, width)
        self.then = then

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.then(self.linear(x))


@control
def causal_attention() -> Program:
    def attend(y: torch.Tensor) -> torch.Tensor:
        causal = torch.full((5, 5), float("-inf")).triu(1)
        return (torch.softmax(y @ y.transpose(-1, -2) + causal, -1) @ y).mean((1, 2))

    model = _Net(attend)
    return Program(model, vectors(3, 2, 5, 4, target=(2,)), mse, adamw(model))


@control
def attention_with_a_boolean_mask_and_an_empty_row() -> Program:
    def attend(y: torch.Tensor) -> torch.Tensor:
        keep = torch.ones(5, 5, dtype=torch.bool)
        keep[2] = False
        return functional.scaled_dot_product_attention(y, y, y, attn_mask=keep).mean((1, 2))

    model = _Net(attend)
    return Program(model, vectors(3, 2, 5, 4, target=(2,)), mse, adamw(model))


@control
def missing_values_replaced_at_the_entrance() -> Program:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(8, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen = ~torch.isnan(x)
            return self.linear(torch.cat([torch.where(seen, x, 0.0), seen.float()], -1)).squeeze(-1)

    model = Net()
    batches = vectors(3, 6, 4)
    for batch in batches:
        batch[0][0][1, 2] = float("nan")
    return Program(model, batches, mse, adamw(model))


@control
def targets_with_missing_values_are_selected() -> Program:
    def loss_fn(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        known = torch.isfinite(target)
        return mse(output[known], target[known])

    model = _Net(lambda y: y.mean(-1))
    batches = vectors(3, 6, 4)
    for batch in batches:
        batch[1][0] = float("nan")
    return Program(model, batches, loss_fn, sgd(model))


@control
def loss_scaling_discards_a_gradient() -> Program:
    class Scaled:
        """Scales the loss, and skips a step whose gradients overflowed."""

        def __init__(self, inner: torch.optim.Optimizer) -> None:
            self.inner, self.scale, self.skipped, self.last = inner, 2.0**18, 0, torch.zeros(())

        def zero_grad(self) -> None:
            self.inner.zero_grad()

        def step(self) -> None:
            gradients = [p.grad for group in self.inner.param_groups for p in group["params"]]
            self.last = torch.stack([g.float().norm() for g in gradients]).norm()
            if not torch.isfinite(self.last):
                self.scale, self.skipped = self.scale / 2, self.skipped + 1
                return
            for gradient in gradients:
                gradient.div_(self.scale)
            self.inner.step()

    model = nn.Linear(4, 1).half()
    optimizer = Scaled(sgd(model))
    batches = [((torch.randn(6, 4).half() * 10,), torch.randn(6)) for _ in range(8)]
    return Program(model, batches, lambda o, t: mse(o.float().squeeze(-1), t) * optimizer.scale, optimizer)


@control
def gradient_scaler_of_a_fused_optimizer() -> Program:
    class Quarantined(torch.optim.AdamW):
        def step(self, closure=None):
            gradients = [p.grad for group in self.param_groups for p in group["params"]]
            total = torch.stack([g.norm() for g in gradients]).norm()
            self.found_inf = (~torch.isfinite(total)).float()
            self.grad_scale = torch.ones(())
            return super().step(closure)

    model = nn.Linear(4, 1)
    optimizer = Quarantined(model.parameters(), lr=1e-3, fused=True)
    batches = vectors(3, 6, 4)
    return Program(model, batches, lambda o, t: (o * 1e38).mean() + 0 * t.mean() - 9e37 * o.sum(), optimizer)


@control
def a_metric_that_nobody_uses() -> Program:
    class Net(_Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = super().forward(x)
            with torch.no_grad():
                self.metric = (y * 0).sum() / (y * 0).sum()
            return y

    model = Net(lambda y: y.mean(-1))
    return Program(model, vectors(3, 6, 4), mse, sgd(model))


@control
def an_unused_branch_of_the_output() -> Program:
    class Net(_Net):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            y = self.linear(x)
            return {"main": y.mean(-1), "auxiliary": torch.log(-y.abs())}

    model = Net(None)
    return Program(model, vectors(3, 6, 4), lambda out, target: mse(out["main"], target), sgd(model))


@control
def running_minimum_that_starts_at_infinity() -> Program:
    class Net(_Net):
        def __init__(self) -> None:
            super().__init__(lambda y: y.mean(-1))
            self.register_buffer("lowest", torch.tensor(float("inf")))
            self.register_buffer("mask", torch.full((4, 4), float("-inf")).triu(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.linear(x)
            self.lowest = torch.minimum(self.lowest, y.detach().amin())
            return (torch.softmax(self.mask, -1) @ y.unsqueeze(-1)).mean((1, 2))

    model = Net()
    return Program(model, vectors(3, 6, 4), mse, adamw(model))


@control
def mask_buffer_written_in_the_first_step() -> Program:
    class Net(_Net):
        def __init__(self) -> None:
            super().__init__(None)
            self.register_buffer("mask", torch.zeros(4, 4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.linear(x)
            self.mask.fill_(float("-inf")).triu_(1)
            return (torch.softmax(self.mask + y.unsqueeze(-1) * 0, -1) @ y.unsqueeze(-1)).mean((1, 2))

    model = Net()
    return Program(model, vectors(3, 6, 4), mse, adamw(model))


@control
def a_buffer_that_is_only_written() -> Program:
    class Net(_Net):
        def __init__(self) -> None:
            super().__init__(lambda y: y.mean(-1))
            self.register_buffer("seen", torch.zeros(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.linear(x)
            self.seen.copy_(torch.log(-y.detach().abs().amax(0)))
            return y.mean(-1)

    model = Net()
    return Program(model, vectors(3, 6, 4), mse, adamw(model))


@control
def logarithm_guarded_before_and_after() -> Program:
    def guarded(y: torch.Tensor) -> torch.Tensor:
        positive = y > 0
        safe = torch.where(positive, y, torch.ones_like(y))
        return torch.where(positive, torch.log(safe), torch.zeros_like(y)).mean(-1)

    model = _Net(guarded)
    return Program(model, vectors(3, 6, 4), mse, sgd(model))


@control
def log_of_a_mask_as_additive_bias() -> Program:
    def attend(y: torch.Tensor) -> torch.Tensor:
        keep = torch.ones(4).index_fill(0, torch.tensor([2]), 0.0)
        return (torch.softmax(y + torch.log(keep), -1) * y).sum(-1)

    model = _Net(attend)
    return Program(model, vectors(3, 6, 4), mse, sgd(model))


@control
def finite_numbers_whose_sum_overflows() -> Program:
    class Net(_Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.linear(x)
            self.total = (y.detach().abs() * 1e38 + 3e38).sum()
            return y.mean(-1)

    model = Net(None)
    return Program(model, vectors(3, 6, 4), mse, sgd(model))


@control
def uninitialised_memory_that_is_overwritten() -> Program:
    class Net(_Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.linear(x)
            scratch = torch.empty(y.shape).fill_(float("nan"))
            scratch = scratch.copy_(y) if not y.requires_grad else scratch.lerp(y, 1.0).nan_to_num() * 0 + y
            return scratch.mean(-1)

    model = Net(None)
    return Program(model, vectors(2, 6, 4), mse, sgd(model))


@control
def integers_booleans_and_empty_tensors() -> Program:
    class Net(_Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.linear(x)
            none = y[:0].sum() + y.new_zeros(0, 4).sum()
            order = y.argsort(-1)
            return y.gather(-1, order).mean(-1) + none + (order > 1).float().mean(-1)

    model = Net(None)
    return Program(model, vectors(3, 6, 4), mse, sgd(model))


@control
def rows_with_missing_values_are_dropped() -> Program:
    class Net(_Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            whole = torch.isfinite(x).all(-1)
            return self.linear(x[whole]).mean().expand(x.shape[0])

    model = Net(None)
    batches = vectors(3, 6, 4)
    for batch in batches:
        batch[0][0][2] = float("nan")
    return Program(model, batches, mse, sgd(model))


@control
def max_pooling_over_padding() -> Program:
    def pool(y: torch.Tensor) -> torch.Tensor:
        pad = torch.zeros(6, 4, dtype=torch.bool)
        pad[:, 3] = True
        return y.masked_fill(pad, float("-inf")).amax(-1)

    model = _Net(pool)
    return Program(model, vectors(3, 6, 4), mse, sgd(model))


@control
def frozen_parameter_that_is_not_finite() -> Program:
    class Net(_Net):
        def __init__(self) -> None:
            super().__init__(lambda y: y.mean(-1))
            self.bias = nn.Parameter(torch.tensor([0.0, 0.0, float("-inf"), 0.0]), requires_grad=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.linear(x)
            return (torch.softmax(y + self.bias, -1) * y).sum(-1)

    model = Net()
    return Program(model, vectors(3, 6, 4), mse, sgd(model))
