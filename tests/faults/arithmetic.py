"""Faults born at the edge of an operation's domain, in the forward pass of a module."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from tests.faults.table import Program, adamw, fault, mse, sgd, vectors


@fault("forward", "", "aten::log", "log-of-zero", kind="inf", like="pytorch/pytorch#40497")
def log_of_underflown_softmax() -> Program:
    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            probabilities = torch.softmax(1000 * self.head(x), dim=-1)
            return torch.log(probabilities)  # born

    model = Classifier()
    batches = [((torch.randn(8, 4),), torch.randint(3, (8,)))]
    return Program(model, batches, nn.NLLLoss(), sgd(model))


@fault("forward", "scale", "aten::div", "norm-at-zero", kind="nan", step=1, like="facebookresearch/fairseq#1863")
def unit_vector_of_silence() -> Program:
    class Normalise(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x / x.norm(dim=-1, keepdim=True)  # born

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale, self.head = Normalise(), nn.Linear(6, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.scale(x)).squeeze(-1)

    model = Net()
    batches = vectors(3, 4, 6)
    batches[1][0][0][2] = 0
    return Program(model, batches, mse, adamw(model))


@fault("forward", "", "aten::div", "cosine-at-zero", kind="nan", like="NUMERICS 4e")
def cosine_written_out() -> Program:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            a, b = self.left(x), self.right(x)
            return (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1))  # born

    model = Net()
    batches = vectors(1, 4, 4)
    batches[0][0][0][0] = 0
    return Program(model, batches, mse, sgd(model))


@fault("forward", "standardise", "aten::div", "variance-of-constant", kind="nan", like="evandowning/deepreflect#11")
def z_score_of_a_flat_channel() -> Program:
    class Standardise(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x - x.mean(-1, keepdim=True)) / x.std(-1, keepdim=True)  # born

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.standardise, self.head = Standardise(), nn.Linear(8, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.standardise(x)).squeeze(-1)

    model = Net()
    batches = vectors(1, 4, 8)
    batches[0][0][0][1] = 3.0
    return Program(model, batches, mse, sgd(model))


@fault("forward", "normalise", "aten::std", "variance-of-one", kind="nan", step=2, like="fairseq#1863")
def deviation_over_a_batch_of_one() -> Program:
    class BatchStandardise(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x - x.mean(0)) / (x.std(0) + 1e-5)  # born

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.normalise, self.head = nn.Linear(4, 4), BatchStandardise(), nn.Linear(4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.normalise(self.linear(x))).squeeze(-1)

    model = Net()
    return Program(model, [*vectors(2, 4, 4), *vectors(1, 1, 4)], mse, sgd(model))


@fault("forward", "pool", "aten::mean", "mean-of-nothing", kind="nan", step=1, like="huggingface/transformers#26578")
def mean_over_no_token() -> Program:
    class Pool(nn.Module):
        def forward(self, x: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
            return x[keep].mean(0)  # born

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.pool = nn.Linear(4, 4), Pool()

        def forward(self, x: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
            return self.pool(self.linear(x), keep)

    model = Net()
    batches = [
        ((torch.randn(5, 4), torch.ones(5, dtype=torch.bool)), torch.randn(4)),
        ((torch.randn(5, 4), torch.zeros(5, dtype=torch.bool)), torch.randn(4)),
    ]
    return Program(model, batches, mse, sgd(model))


@fault("forward", "pool", "aten::div", "mean-of-nothing", kind="nan", like="UKPLab/sentence-transformers#1015")
def masked_mean_over_no_token() -> Program:
    class MaskedMean(nn.Module):
        def forward(self, x: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
            kept = (x * keep[..., None]).sum(1)
            return kept / keep.sum(1, keepdim=True)  # born

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.pool, self.head = nn.Embedding(9, 4), MaskedMean(), nn.Linear(4, 1)

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return self.head(self.pool(self.embed(tokens), (tokens != 0).float())).squeeze(-1)

    model = Net()
    tokens = torch.randint(1, 9, (3, 5))
    tokens[1] = 0
    return Program(model, [((tokens,), torch.randn(3))], mse, sgd(model))


@fault("forward", "angle", "aten::acos", "acos-domain", kind="nan", like="toji/gl-matrix#502")
def acos_of_a_rounded_dot_product() -> Program:
    class Angle(nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return torch.acos((a * b).sum(-1) * 1.00001)  # born

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.angle = nn.Linear(3, 3), Angle()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = functional.normalize(self.linear(x), dim=-1)
            return self.angle(y, y.detach())

    model = Net()
    return Program(model, vectors(1, 5, 3), mse, sgd(model))


@fault("forward", "spread", "aten::sqrt", "sqrt-of-negative", kind="nan", like="deepmind/deepmind-research#346")
def variance_by_subtraction() -> Program:
    class Spread(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            variance = (x * x).mean(-1) - x.mean(-1) ** 2
            return torch.sqrt(variance - 1e-3)  # born

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.spread = nn.Linear(4, 4), Spread()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.spread(self.linear(x).mean(-1, keepdim=True).expand(-1, 4))

    model = Net()
    return Program(model, vectors(1, 5, 4), mse, sgd(model))


@fault("forward", "gamma", "aten::pow", "pow-domain", kind="nan", like="kornia gamma correction")
def gamma_correction_of_a_negative_pixel() -> Program:
    class Gamma(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.exponent = nn.Parameter(torch.tensor(0.45))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x**self.exponent  # born

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gamma, self.head = Gamma(), nn.Linear(4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.gamma(x)).squeeze(-1)

    model = Net()
    batches = [((torch.rand(3, 4) + 0.1,), torch.randn(3)) for _ in range(2)]
    batches[0][0][0][1, 1] = -1e-3
    return Program(model, batches, mse, sgd(model))


@fault("forward", "gate", "aten::atanh", "inverse-domain", kind="inf", like="geoopt hyperbolic distance")
def atanh_at_the_border() -> Program:
    class Hyperbolic(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.atanh(torch.tanh(x))  # born

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.gate = nn.Linear(4, 4), Hyperbolic()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.gate(self.linear(x) * 100).mean(-1)

    model = Net()
    return Program(model, vectors(1, 4, 4), mse, sgd(model))


@fault("forward", "graph", "aten::pow", "pow-domain", kind="inf", step=1, like="pyg-team/pytorch_geometric#61")
def isolated_node() -> Program:
    class Propagate(nn.Module):
        def forward(self, x: torch.Tensor, adjacency: torch.Tensor) -> torch.Tensor:
            scale = adjacency.sum(-1).pow(-0.5)  # born
            return (scale[:, None] * adjacency * scale[None, :]) @ x

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.graph = nn.Linear(4, 2), Propagate()

        def forward(self, x: torch.Tensor, adjacency: torch.Tensor) -> torch.Tensor:
            return self.graph(self.linear(x), adjacency).mean(-1)

    model = Net()
    whole = torch.ones(5, 5) - torch.eye(5)
    broken = whole.clone()
    broken[3], broken[:, 3] = 0, 0
    batches = [((torch.randn(5, 4), a), torch.randn(5)) for a in (whole, broken)]
    return Program(model, batches, mse, sgd(model))
