"""Faults that sleep: in a buffer, a queue, a hidden state, an optimizer; and faults that come two at a time."""

from __future__ import annotations

import collections

import torch
from torch import nn
from torch.nn import functional

from tests.faults.table import Program, adamw, fault, mse, sgd


@fault("forward", "quantizer", "aten::div", "division-by-zero", kind="nan", like="EdoardoBotta/RQ-VAE-Recommender#27")
def codebook_entry_that_nobody_chose() -> Program:
    class Quantizer(nn.Module):
        def __init__(self, k=4, d=3):
            super().__init__()
            self.register_buffer("codebook", torch.randn(k, d))
            self.codebook[3] = 100.0

        def forward(self, z):
            index = torch.cdist(z.detach(), self.codebook).argmin(-1)
            hot = functional.one_hot(index, len(self.codebook)).float()
            q = self.codebook[index]
            with torch.no_grad():
                mean = (hot.t() @ z) / hot.sum(0)[:, None]  # born
                self.codebook.copy_(mean)
            return z + (q - z).detach()

    class VQ(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.decoder = nn.Linear(5, 3), nn.Linear(3, 5)
            self.quantizer = Quantizer()

        def forward(self, x):
            return self.decoder(self.quantizer(self.encoder(x)))

    model = VQ()
    x = torch.randn(16, 5)
    return Program(model, [((x,), x), ((x,), x)], mse, adamw(model))


@fault("forward", "memory", "aten::div", "norm-at-zero", kind="nan", step=1,
       like="momentum contrast: a key without length in the queue")  # fmt: skip
def key_without_length_waits_in_the_queue() -> Program:
    class Memory(nn.Module):
        def __init__(self):
            super().__init__()
            self.keys = collections.deque([torch.randn(2, 4) for _ in range(3)], maxlen=3)

        def forward(self, q, raw):
            negatives = self.keys[0]
            with torch.no_grad():
                self.keys.append(raw / raw.norm(dim=-1, keepdim=True))  # born
            return q @ negatives.t()

    class Contrast(nn.Module):
        def __init__(self):
            super().__init__()
            self.query = nn.Linear(4, 4)
            self.memory = Memory()

        def forward(self, x, key):
            return self.memory(functional.normalize(self.query(x), dim=-1), key)

    batches = []
    for step in range(7):
        key = torch.randn(2, 4)
        if step == 1:
            key[1] = 0
        batches.append(((torch.randn(3, 4), key), torch.zeros(3, dtype=torch.long)))
    model = Contrast()
    return Program(model, batches, functional.cross_entropy, sgd(model))


@fault("forward", "", "aten::mul", "overflow", kind="inf", step=1, like="hidden state carried from batch to batch")
def reservoir_state_overflows_unseen() -> Program:
    class Reservoir(nn.Module):
        def __init__(self):
            super().__init__()
            self.readout = nn.Linear(3, 1)
            self.state = torch.ones(3)

        def forward(self, x, gain):
            self.state = self.state * gain  # born
            seen = torch.tanh(self.state)  # an infinity looks like a one
            if gain < 1:
                seen = self.state - self.state.mean()
            return self.readout(x + seen).squeeze(-1)

    model = Reservoir()
    batches = [((torch.randn(2, 3), gain), torch.zeros(2)) for gain in (2e25, 1e25, 1.0, 0.5)]
    return Program(model, batches, mse, adamw(model))


@fault("forward", "", "aten::reciprocal", "division-by-zero", kind="inf", like="moving average with a decay of 1 - 1/n")
def decay_of_the_first_average() -> Program:
    class Tracker(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(2, 2)
            self.register_buffer("n", torch.tensor(0.0))
            self.register_buffer("mean", torch.zeros(2))

        @torch.no_grad()
        def track(self, h):
            rate = 1 / self.n  # born
            self.mean.lerp_(h.mean(0), rate.item())
            self.n += 1

        def forward(self, x):
            h = self.fc(x)
            self.track(h)
            return h

    model = Tracker()
    return Program(model, [((torch.randn(3, 2),), torch.randn(3, 2)) for _ in range(3)], mse, sgd(model))


@fault(
    "data", "<input>", "data", "bad-input", kind="nan", step=2, like="loader divides by the deviation of a dead sensor"
)
def loader_standardises_a_dead_sensor() -> Program:
    def loader():
        for step in range(4):
            raw = torch.randn(6, 3)
            if step == 2:
                raw[:, 1] = 4.0
            yield ((raw - raw.mean(0)) / raw.std(0),), torch.randn(6)

    class Regressor(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleDict({"hidden": nn.Linear(3, 4), "out": nn.Linear(4, 1)})

        def forward(self, x):
            return self.layers["out"](functional.gelu(self.layers["hidden"](x))).squeeze(-1)

    model = Regressor()
    return Program(model, loader(), mse, adamw(model))


@fault("data", "<target>", "data", "bad-target", kind="nan", step=1, like="comparison with NaN is always true")
def mask_by_comparison_with_nan() -> Program:
    def masked(output, target):
        valid = target != float("nan")
        return (output[valid] - target[valid]).abs().mean()

    model = nn.Linear(3, 2)
    holes = torch.randn(4, 2)
    holes[2, 0] = float("nan")
    x = torch.randn(4, 3)
    return Program(model, [((x,), torch.randn(4, 2)), ((x,), holes)], masked, sgd(model))


@fault(
    "data", "<target>", "data", "bad-target", kind="inf", step=1, like="missing inputs are harmless, the label is not"
)
def hole_in_the_input_and_infinite_label() -> Program:
    class Imputer(nn.Module):
        def __init__(self):
            super().__init__()
            self.fill = nn.Parameter(torch.zeros(3))
            self.fc = nn.Linear(3, 1)

        def forward(self, x):
            x = torch.where(torch.isnan(x), self.fill, x)
            return self.fc(x).squeeze(-1)

    x = torch.randn(4, 3)
    x[0, 1] = float("nan")
    bad = torch.randn(4)
    bad[3] = float("inf")
    model = Imputer()
    return Program(model, [((x,), torch.randn(4)), ((x,), bad)], mse, adamw(model))


@fault("data", "<input>", "data", "bad-input", kind="inf", like="half precision features overflow in the loader")
def features_stored_in_half() -> Program:
    stored = torch.randn(5, 4) * 10
    stored[2, 2] = 1e6
    features = stored.half()

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.LayerNorm(4)
            self.fc = nn.Linear(4, 2)

        def forward(self, batch):
            tokens, length = batch
            return self.fc(self.norm(tokens.float())) / length

    model = Net()
    return Program(model, [(((features, 2.0),), torch.randint(2, (5,)))], nn.CrossEntropyLoss(), adamw(model))


@fault("backward", "b", "aten::sqrt", "sqrt-at-zero", node="SqrtBackward0", kind="inf",
       like="two branches, of which one hides its logarithm well")  # fmt: skip
def safe_logarithm_beside_an_unsafe_root() -> Program:
    class A(nn.Module):
        def forward(self, x):
            p = x.clamp(min=0)
            safe = torch.where(p > 0, p, torch.ones_like(p))
            return torch.where(p > 0, torch.log(safe), torch.log(p.detach()).clamp(min=-5.0))

    class B(nn.Module):
        def forward(self, x):
            return torch.sqrt(x.square())  # born

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Linear(3, 4)
            self.a, self.b = A(), B()

        def forward(self, x):
            h = self.stem(x) * (x.sum(-1, keepdim=True) > 0)
            return self.a(h).sum(-1) + self.b(h).sum(-1)

    model = Two()
    return Program(model, [((torch.randn(4, 3),), torch.randn(4))], mse, sgd(model))


@fault("forward", "<loss>", "aten::div", "mean-of-nothing", kind="nan", step=1,
       like="infinite sentinel in a minimum, then an empty average")  # fmt: skip
def sentinel_minimum_before_an_empty_average() -> Program:
    def hardest(distance, same):
        positive = distance.masked_fill(~same, -float("inf")).amax(1)
        negative = distance.masked_fill(same, float("inf")).amin(1)
        loss = torch.relu(positive - negative + 0.2)
        active = loss > 1e-16
        return (loss * active).sum() / active.sum()  # born

    class Pairs(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 2)

        def forward(self, x):
            e = self.fc(x)
            return ((e[:, None] - e[None]).square().sum(-1) + 1e-9).sqrt()

    same = torch.tensor([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]).bool()
    easy = torch.tensor([[1e4, 0, 0], [1e4, 0, 0], [0, -1e4, 0], [0, -1e4, 0]])
    model = Pairs()
    return Program(model, [((torch.randn(4, 3),), same), ((easy,), same)], hardest, adamw(model))


@fault(
    "forward",
    "",
    "aten::div_",
    "variance-of-constant",
    kind="nan",
    like="in-place standardisation of a constant channel",
)
def in_place_standardisation_of_a_constant_channel() -> Program:
    class Standardise(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(5, 2)

        def forward(self, x):
            x = x.clone()
            x.sub_(x.mean(1, keepdim=True))
            x.div_(x.std(1, keepdim=True))  # born
            return self.fc(x)

    x = torch.randn(3, 5)
    x[0] = 1.0
    model = Standardise()
    return Program(model, [((x,), torch.tensor([0, 1, 1]))], nn.CrossEntropyLoss(), sgd(model))


@fault("forward", "", "Exp1", "exp-overflow", kind="inf", like="custom Function without a clamp")
def custom_exponential_overflows() -> Program:
    class Exp1(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            y = x.exp()
            ctx.save_for_backward(y)
            return y

        @staticmethod
        def backward(ctx, g):
            (y,) = ctx.saved_tensors
            return g * y.clamp(max=1e6)

    class Density(nn.Module):
        def __init__(self):
            super().__init__()
            self.sigma = nn.Linear(2, 1)

        def forward(self, x):
            return Exp1.apply(self.sigma(x))  # born

    model = Density()
    model.sigma.weight.data.fill_(1.0)
    return Program(model, [((torch.full((3, 2), 500.0),), torch.ones(3, 1))], mse, sgd(model))


@fault("backward", "", "Average", "custom-backward", node="AverageBackward", kind="nan", step=1,
       like="custom gradient divided by a count")  # fmt: skip
def custom_gradient_divided_by_an_empty_count() -> Program:
    class Average(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, mask):
            ctx.save_for_backward(mask)
            return (x * mask).sum() / mask.sum().clamp(min=1)

        @staticmethod
        def backward(ctx, grad):
            (mask,) = ctx.saved_tensors
            return grad * mask / mask.sum(), None

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 1)

        def forward(self, x, mask):
            return Average.apply(self.fc(x).squeeze(-1), mask)  # born

    model = Net()
    batches = [((torch.randn(4, 3), m), torch.tensor(1.0)) for m in (torch.ones(4), torch.zeros(4))]
    return Program(model, batches, mse, adamw(model))
