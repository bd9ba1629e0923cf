"""Faults in which the program is not quite a module, a batch not quite a tensor, a gradient not quite autograd's."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from tests.faults.table import Program, adamw, fault, mse, sgd


@fault("forward", "", "aten::log", "log-of-zero", kind="inf", step=1, like="a function for a model")
def function_for_a_model() -> Program:
    w = nn.Parameter(torch.tensor([0.5, 0.5]))

    def model(x):
        return torch.log((x * w).relu().sum(-1))  # born

    batches = [((torch.ones(3, 2) * s,), torch.zeros(3)) for s in (1.0, -1.0)]
    return Program(model, batches, mse, torch.optim.SGD([w], lr=0.01))


@fault("forward", "fc", "aten::addmm", "poisoned-parameter", kind="nan", like="checkpoint with a NaN in it")
def weights_loaded_with_a_nan() -> Program:
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.fc = nn.Linear(3, 3), nn.Linear(3, 1)

        def forward(self, x):
            return self.fc(self.stem(x).tanh())  # born

    model = Net()
    model.fc.weight.data[0, 1] = float("nan")
    return Program(model, [((torch.randn(2, 3),), torch.randn(2, 1))], mse, sgd(model))


@fault(
    "forward",
    "",
    "aten::mul",
    "zero-times-infinity",
    kind="nan",
    step=1,
    like="inverse frequencies with a zero in them",
)
def zero_meets_an_infinite_buffer() -> Program:
    class Weighted(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 1)
            self.register_buffer("idf", torch.tensor([1.0, 0.5, float("inf")]))

        def forward(self, counts, known):
            weighted = counts * self.idf  # born
            return self.fc(torch.where(known, weighted, torch.zeros_like(weighted)))

    known = torch.tensor([True, True, False])
    model = Weighted()
    batches = [((torch.tensor([[1.0, 2.0, 3.0]]), known), torch.ones(1, 1)),
               ((torch.tensor([[1.0, 2.0, 0.0]]), known | True), torch.ones(1, 1))]  # fmt: skip
    return Program(model, batches, mse, sgd(model))


@fault("backward", "fc", "aten::div", "division-by-zero", node="torch::autograd::AccumulateGrad", kind="nan", step=1,
       like="gradient rescaled in a parameter hook")  # fmt: skip
def parameter_hook_divides_by_the_largest() -> Program:
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(2, 1, bias=False)

        def forward(self, x):
            return self.fc(x)

    model = Net()
    model.fc.weight.register_hook(lambda g: g / g.abs().max())  # born
    return Program(model, [((torch.ones(2, 2) * s,), torch.ones(2, 1)) for s in (1.0, 0.0)], mse, sgd(model))


@fault("forward", "fc", "aten::_weight_norm_interface", "norm-at-zero", kind="nan", like="old-style weight norm")
def old_style_weight_norm() -> Program:
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            fc = nn.Linear(2, 2)
            nn.init.zeros_(fc.weight)
            self.fc = torch.nn.utils.weight_norm(fc)

        def forward(self, x):
            return self.fc(x)  # born

    model = Net()
    return Program(model, [((torch.randn(3, 2),), torch.randn(3, 2))], mse, adamw(model))


@fault("forward", "", "aten::div_", "norm-at-zero", kind="nan", like="weights normalised in place, a row is dead")
def weights_normalised_in_place() -> Program:
    class Cosine(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(3, 4))
            self.weight.data[2] = 0

        def forward(self, x):
            with torch.no_grad():
                self.weight.div_(self.weight.norm(dim=1, keepdim=True))  # born
            return functional.linear(functional.normalize(x), self.weight)

    model = Cosine()
    return Program(model, [((torch.randn(3, 4),), torch.tensor([0, 1, 2]))], functional.cross_entropy, sgd(model))


@fault("backward", "<loss>", "aten::pow", "pow-domain", node="PowBackward0", kind="inf",
       like="second derivative of a fractional power")  # fmt: skip
def curvature_of_a_fractional_power() -> Program:
    class Hill(nn.Module):
        def __init__(self):
            super().__init__()
            self.shift = nn.Parameter(torch.zeros(3))

        def forward(self, x):
            return x + self.shift

    def smooth(z, _):
        energy = (z**1.5).sum()
        (force,) = torch.autograd.grad(energy, z, create_graph=True)  # born
        return force.sum()

    model = Hill()
    return Program(model, [((torch.tensor([0.0, 1.0, 2.0]),), None)], smooth, sgd(model))


@fault("forward", "", "aten::div", "division-by-zero", kind="nan", like="vmap over samples")
def per_sample_share_under_vmap() -> Program:
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.ones(3))

        def forward(self, x):
            def share(row):
                weighted = row * self.w
                return weighted / weighted.sum()  # born

            return torch.func.vmap(share)(x)

    model = Net()
    x = torch.rand(4, 3)
    x[2] = 0
    return Program(model, [((x,), torch.rand(4, 3))], mse, sgd(model))


@fault(
    "forward", "experts.2", "aten::log1p", "log-of-zero", kind="inf", step=1, like="mixture with an index of its own"
)
def one_expert_of_many() -> Program:
    class Expert(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(2, 2)

        def forward(self, x):
            return torch.log1p(self.fc(x).clamp(min=-1))  # born

    class Mixture(nn.Module):
        def __init__(self):
            super().__init__()
            self.experts = nn.ModuleList([Expert() for _ in range(3)])

        def forward(self, x, route):
            out = torch.zeros_like(x)
            for i, expert in enumerate(self.experts):
                chosen = (route == i).nonzero().squeeze(1)
                if len(chosen):
                    out = out.index_copy(0, chosen, expert(x[chosen]))
            return out

    model = Mixture()
    model.experts[2].fc.bias.data.fill_(-8.0)
    x = torch.randn(4, 2) * 0.1
    batches = [((x, torch.tensor(r)), torch.randn(4, 2)) for r in ([0, 1, 0, 1], [0, 1, 2, 1])]
    return Program(model, batches, mse, adamw(model))


@fault("forward", "", "aten::prod", "overflow", kind="inf", like="product of likelihood ratios")
def product_of_ratios_overflows() -> Program:
    class Ratio(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(2, 1)

        def forward(self, path):
            return (self.a(path).squeeze(-1).abs() + 1e4).prod(dim=-1).log()  # born

    model = Ratio()
    return Program(model, [((torch.randn(2, 20, 2),), torch.zeros(2))], mse, adamw(model))


@fault(
    "forward",
    "<loss>",
    "aten::div",
    "division-by-zero",
    kind="nan",
    step=1,
    like="dice, metrics, and a NaN that is only printed",
)
def printed_nan_before_the_real_one() -> Program:
    seen = []

    def loss_fn(output, target):
        with torch.no_grad():
            seen.append(float((output * 0).sum() / (target * 0).sum()))
        overlap = (output.sigmoid() * target).sum()
        return 1 - 2 * (overlap * 0 + target.sum()) / (target.sum() + target.square().sum()) + 0 * overlap  # born

    model = nn.Conv1d(1, 1, 3, padding=1)
    return Program(
        model, [((torch.randn(2, 1, 5),), t) for t in (torch.ones(2, 1, 5), torch.zeros(2, 1, 5))], loss_fn, sgd(model)
    )


@fault("backward", "inner", "aten::div", "norm-at-zero", node="BackwardHookFunctionBackward", kind="nan", step=1,
       like="gradient normalised in a full backward hook")  # fmt: skip
def module_hook_normalises_a_zero_gradient() -> Program:
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.inner = nn.Linear(2, 2), nn.Linear(2, 1)
            self.inner.register_full_backward_hook(self.unit)

        @staticmethod
        def unit(module, grad_input, grad_output):
            return tuple(g / g.norm() for g in grad_input)  # born

        def forward(self, x, weight):
            return self.inner(self.first(x)) * weight

    model = Net()
    return Program(model, [((torch.randn(2, 2), w), torch.zeros(2, 1)) for w in (1.0, 0.0)], mse, sgd(model))


@fault("optimizer", "<optimizer>", "aten::addcdiv_", "division-by-zero", kind="nan", like="optimizer stepped in a hook")
def optimizer_stepped_within_the_backward_pass() -> Program:
    model = nn.Linear(2, 1)
    inner = {p: torch.optim.Adam([p], eps=0.0, foreach=False) for p in model.parameters()}

    def step_at_once(p):
        inner[p].step()  # born
        inner[p].zero_grad()

    class Nothing(torch.optim.SGD):
        def step(self, closure=None):
            pass

    for p in model.parameters():
        p.register_post_accumulate_grad_hook(step_at_once)
    x = torch.tensor([[1.0, 0.0]])
    return Program(model, [((x,), torch.ones(1, 1))], mse, Nothing(model.parameters()))


@fault("backward", "", "Clamped", "custom-backward", node="ClampedBackward", kind="inf", like="new-style Function")
def function_with_a_context_of_its_own() -> Program:
    class Clamped(torch.autograd.Function):
        @staticmethod
        def forward(x, scale):
            return x.clamp(-1, 1) * scale

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.save_for_backward(*inputs)

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, grad):
            x, scale = ctx.saved_tensors
            return grad * scale / (x.abs() <= 1).sum().float(), None

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(2, 2)
            self.fc.bias.data.fill_(50.0)

        def forward(self, x):
            clamp = Clamped.apply
            return clamp(self.fc(x), torch.tensor(2.0))  # born

    model = Net()
    return Program(model, [((torch.randn(3, 2),), torch.zeros(3, 2))], mse, sgd(model))
