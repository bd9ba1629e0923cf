"""Faults in programs of unusual build: compiled, wrapped, hooked, functional, checkpointed, closed over."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

from tests.faults.table import Program, adamw, fault, mse, sgd


class Lambda(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@fault("forward", "_orig_mod.head", "aten::log", "log-of-zero", kind="inf", step=1, like="torch.compile, eager backend")
def compiled_model() -> Program:
    class Head(nn.Module):
        def forward(self, x):
            return torch.log(torch.relu(x))  # born

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(2, 2)
            self.fc.weight.data.abs_()
            self.fc.bias.data.abs_()
            self.head = Head()

        def forward(self, x):
            return self.head(self.fc(x))

    model = torch.compile(Net(), backend="eager")
    batches = [((torch.rand(3, 2) * s,), torch.zeros(3, 2)) for s in (1.0, -100.0)]
    return Program(model, batches, mse, sgd(model))


@fault("backward", "<loss>", "aten::sqrt", "sqrt-at-zero", node="SqrtBackward0", kind="inf", like="compiled criterion")
def compiled_loss() -> Program:
    @torch.compile(backend="eager")
    def rmse(output, target):
        return torch.sqrt(((output - target) ** 2).mean())  # born

    model = nn.Linear(3, 3, bias=False)
    nn.init.eye_(model.weight)
    x = torch.randn(4, 3)
    return Program(model, [((x,), x)], rmse, adamw(model))


@fault("forward", "module.scale", "aten::div", "division-by-zero", kind="inf", like="DataParallel on a CPU")
def data_parallel_wrapper() -> Program:
    class Temperature(nn.Module):
        def __init__(self):
            super().__init__()
            self.t = nn.Parameter(torch.zeros(1))

        def forward(self, logits):
            return logits / self.t  # born

    net = nn.Module()
    net.fc, net.scale = nn.Linear(3, 2), Temperature()
    net.forward = lambda x: net.scale(net.fc(x))
    model = nn.DataParallel(net)
    return Program(model, [((torch.randn(4, 3),), torch.randint(2, (4,)))], nn.CrossEntropyLoss(), sgd(model))


@fault("backward", "blocks.0", "aten::sqrt", "sqrt-at-zero", node="SqrtBackward0", kind="inf",
       like="reentrant activation checkpointing")  # fmt: skip
def reentrant_checkpoint() -> Program:
    class Block(nn.Module):
        def __init__(self, root):
            super().__init__()
            self.lin, self.root = nn.Linear(4, 4), root

        def forward(self, x):
            y = self.lin(x) ** 2
            return torch.sqrt(y) if self.root else y  # born

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.inp = nn.Linear(4, 4)
            self.blocks = nn.ModuleList([Block(True), Block(False)])

        def forward(self, x):
            x = self.inp(x)
            for block in self.blocks:
                x = checkpoint(block, x, use_reentrant=True)
            return x

    model = Net()
    nn.init.zeros_(model.blocks[0].lin.weight[1])
    nn.init.zeros_(model.blocks[0].lin.bias)
    return Program(model, [((torch.randn(3, 4),), torch.randn(3, 4))], mse, sgd(model))


@fault("forward", "2", "aten::exp", "exp-overflow", kind="inf", like="checkpoint_sequential over lambdas")
def checkpointed_sequence_of_lambdas() -> Program:
    net = nn.Sequential(
        nn.Linear(3, 3),
        nn.Tanh(),
        Lambda(lambda x: torch.exp(200 * x)),  # born
        nn.Linear(3, 1),
    )
    nn.init.constant_(net[0].bias, 5.0)

    class Runner(nn.Sequential):
        def forward(self, x):
            return checkpoint_sequential(list(self), 2, x, use_reentrant=False)

    model = Runner(*net)
    return Program(model, [((torch.randn(4, 3),), torch.randn(4, 1))], nn.L1Loss(), adamw(model))


@fault("forward", "encoder.norm", "aten::rsqrt", "division-by-zero", kind="inf", like="one norm under two names")
def shared_norm_is_called_by_its_first_name() -> Program:
    class Norm(nn.Module):
        def forward(self, x):
            return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True))  # born

    class Part(nn.Module):
        def __init__(self, norm):
            super().__init__()
            self.fc, self.norm = nn.Linear(3, 3), norm

        def forward(self, x):
            return self.norm(torch.relu(self.fc(x)))

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            norm = Norm()
            self.encoder, self.decoder = Part(norm), Part(norm)

        def forward(self, x):
            return self.decoder(self.encoder(x))

    model = Net()
    model.encoder.fc.bias.data.fill_(3.0)
    model.decoder.fc.bias.data.fill_(-9.0)
    return Program(model, [((torch.randn(4, 3) * 0.1,), torch.randn(4, 3))], mse, sgd(model))


@fault(
    "backward",
    "a",
    "aten::div",
    "norm-at-zero",
    node="AddmmBackward0",
    kind="nan",
    step=1,
    like="gradient normalised in a tensor hook",
)
def hook_normalises_a_zero_gradient() -> Program:
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 1)

        def forward(self, x, weight):
            h = self.a(x)
            h.register_hook(lambda g: g / g.norm())  # born
            return self.b(h).squeeze(-1) * weight

    model = Net()
    batches = [((torch.randn(2, 3), w), torch.zeros(2)) for w in (torch.ones(2), torch.zeros(2))]
    return Program(model, batches, mse, sgd(model))


@fault("forward", "net.1", "aten::reciprocal", "division-by-zero", kind="inf", like="MAML: functional call in the loss")
def adapted_weights_called_in_the_loss() -> Program:
    class Inverse(nn.Module):
        def forward(self, x):
            return torch.reciprocal(x)  # born

    class Learner(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(1, 1, bias=False), Inverse())
            self.net[0].weight.data.fill_(0.5)

        def forward(self, x):
            return self.net(x)

    model = Learner()

    def outer(support, query):
        x, y = query
        weights = dict(model.named_parameters())
        grads = torch.autograd.grad((support - 2).square().sum(), list(weights.values()), create_graph=True)
        fast = {k: w - 0.0 * g for (k, w), g in zip(weights.items(), grads, strict=True)}
        return mse(torch.func.functional_call(model, fast, (x,)), y)

    query = (torch.tensor([[1.0], [0.0]]), torch.ones(2, 1))
    return Program(model, [((torch.ones(2, 1),), query)], outer, sgd(model))


@fault("forward", "<loss>", "aten::log", "log-of-zero", kind="inf", like="teacher held in a closure")
def frozen_teacher_in_a_closure() -> Program:
    student = nn.Linear(3, 4)
    logarithm = Lambda(lambda p: p.log())  # born
    teacher = copy.deepcopy(nn.Sequential(student, nn.Softmax(-1), logarithm)).requires_grad_(False)
    teacher[0].weight.data *= 400

    def distil(output, x):
        with torch.no_grad():
            soft = teacher(x)
        return (output.log_softmax(-1) - soft).square().mean()

    x = torch.randn(5, 3)
    return Program(student, [((x,), x)], distil, sgd(student))


@fault("forward", "", "aten::div", "division-by-zero", kind="nan", like="modules in a plain list")
def modules_in_a_plain_list() -> Program:
    class Share(nn.Module):
        def forward(self, x):
            return x / x.sum(-1, keepdim=True)  # born

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 3)
            self.tail = [Share(), nn.Identity()]

        def forward(self, x):
            x = torch.relu(self.fc(x))
            for part in self.tail:
                x = part(x)
            return x

    model = Net()
    model.fc.bias.data.fill_(-20.0)
    return Program(model, [((torch.randn(3, 3),), torch.randn(3, 3))], mse, adamw(model))


@fault("backward", "", "aten::sqrt_", "sqrt-at-zero", node="torch::autograd::CopySlices", kind="inf",
       like="in-place root of one column")  # fmt: skip
def root_in_place_of_a_column() -> Program:
    class Columns(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(2, 3)
            self.fc.weight.data[1] = 0
            self.fc.bias.data[1] = 0

        def forward(self, x):
            y = self.fc(x) * 1.0
            y[:, 1].sqrt_()  # born
            return y

    model = Columns()
    return Program(model, [((torch.randn(3, 2),), torch.randn(3, 3))], mse, sgd(model))


@fault("forward", "", "aten::exp_", "exp-overflow", kind="inf", step=1, like="YOLO: width and height, in place")
def box_sizes_in_place() -> Program:
    class Decode(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(2, 4, 1)

        def forward(self, x):
            p = self.conv(x).flatten(2).transpose(1, 2).contiguous()
            p[..., 2:4].exp_()  # born
            return p

    model = Decode()
    model.conv.weight.data.abs_()
    batches = [((torch.rand(1, 2, 2, 2) * s,), torch.rand(1, 4, 4)) for s in (0.1, 1e4)]
    return Program(model, batches, nn.L1Loss(), adamw(model))


@fault("backward", "<loss>", "aten::sqrt", "sqrt-at-zero", node="SqrtBackward0", kind="inf",
       like="physics-informed network at the boundary")  # fmt: skip
def derivative_in_the_loss_at_the_boundary() -> Program:
    class U(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))

        def forward(self, x):
            return x, self.net(x)

    def residual(output, _):
        x, u = output
        ansatz = u * torch.sqrt(x)  # born
        (slope,) = torch.autograd.grad(ansatz.sum(), x, create_graph=True)
        return (slope + ansatz).square().mean()

    model = U()
    x = torch.linspace(0, 1, 5)[:, None].requires_grad_(True)
    return Program(model, [((x,), None)], residual, adamw(model))


@fault(
    "forward",
    "filter",
    "aten::reciprocal",
    "division-by-zero",
    kind="nan",
    like="complex frequency response, pole on the circle",
)
def pole_on_the_unit_circle() -> Program:
    class Resonator(nn.Module):
        def __init__(self):
            super().__init__()
            self.pole = nn.Parameter(torch.tensor(1.0))

        def forward(self, spectrum):
            omega = torch.linspace(0, 3.0, spectrum.shape[-1])
            z = torch.polar(torch.ones_like(omega), -omega)
            return spectrum * torch.reciprocal(1 - self.pole * z)  # born

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.filter = Resonator()

        def forward(self, wave):
            return torch.fft.irfft(self.filter(torch.fft.rfft(wave)))

    model = Net()
    return Program(model, [((torch.randn(2, 8),), torch.randn(2, 8))], mse, sgd(model))


@fault("forward", "", "aten::div_", "division-by-zero", kind="nan", like="timm: stochastic depth that drops everything")
def stochastic_depth_that_drops_everything() -> Program:
    def drop_path(x, p, training):
        if not training:
            return x
        keep = 1 - p
        mask = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(keep)
        mask.div_(keep)  # born
        return x * mask

    class Net(nn.Module):
        def __init__(self, depth=3):
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(4, 4) for _ in range(depth)])
            self.rates = [float(r) for r in torch.linspace(0, 1.0, depth)]

        def forward(self, x):
            for layer, rate in zip(self.layers, self.rates, strict=True):
                x = x + drop_path(functional.gelu(layer(x)), rate, self.training)
            return x

    model = Net()
    return Program(model, [((torch.randn(5, 4),), torch.randn(5, 4))], mse, adamw(model))


@fault("forward", "", "aten::div", "division-by-zero", kind="inf", step=2, like="Gumbel softmax annealed to zero")
def temperature_annealed_to_zero() -> Program:
    class Sampler(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.tau = nn.Linear(3, 4), 1.0

        def forward(self, x):
            y = functional.gumbel_softmax(self.fc(x), tau=self.tau)  # born
            self.tau = max(self.tau - 0.5, 0.0)
            return y

    model = Sampler()
    return Program(model, [((torch.randn(3, 3),), torch.rand(3, 4)) for _ in range(4)], mse, sgd(model))
