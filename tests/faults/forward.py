"""Faults born in the forward pass of a module."""

from __future__ import annotations

import dataclasses

import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

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


class Attention(nn.Module):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
        scores = self.query(x) @ self.key(x).transpose(-1, -2)
        scores = scores.masked_fill(padding[:, None, :], float("-inf"))
        weights = torch.softmax(scores, dim=-1)
        return weights @ x


SOFTMAX_LINE = f"{__file__}:{Attention.forward.__code__.co_firstlineno + 3}"


def _padded(steps: int, empty_at: int) -> list[tuple[tuple[torch.Tensor, ...], torch.Tensor]]:
    """Batches of two sequences of five; in step `empty_at` the second one is all padding."""
    batches = []
    for step in range(steps):
        padding = torch.zeros(2, 5, dtype=torch.bool)
        padding[0, 3:] = True
        padding[1] = step == empty_at
        batches.append(((torch.randn(2, 5, 8), padding), torch.randn(2)))
    return batches


@fault("forward", "attention", "aten::_softmax", "fully-masked-softmax", step=2, line=SOFTMAX_LINE,
       like="pytorch/pytorch#41508")  # fmt: skip
def softmax_over_padding_only() -> Program:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = Attention()

        def forward(self, x: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
            return self.attention(x, padding).mean((1, 2))

    model = Net()
    return Program(model, _padded(4, empty_at=2), mse, sgd(model))


@fault("forward", "layers.0", "aten::_softmax", "fully-masked-softmax", line=SOFTMAX_LINE,
       like="pytorch/pytorch#40932")  # fmt: skip
def two_layers_fail_together() -> Program:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([Attention(), Attention()])

        def forward(self, x: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
            for layer in self.layers:
                x = layer(x, padding)
            return x.mean((1, 2))

    model = Net()
    return Program(model, _padded(2, empty_at=0), mse, sgd(model))


@fault("forward", "encoder.attention", "aten::_softmax", "fully-masked-softmax", like="pytorch/pytorch#41508")
def multihead_attention_over_padding_only() -> Program:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Module()
            self.encoder.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
            found, _ = self.encoder.attention(x, x, x, key_padding_mask=padding)  # born
            return found.mean((1, 2))

    model = Net()
    return Program(model, _padded(1, empty_at=0), mse, adamw(model))


@fault("forward", "decoder", "aten::exp", "exp-overflow", kind="inf", step=1, like="AntixK/PyTorch-VAE#21")
def exp_of_log_variance() -> Program:
    class Decoder(nn.Module):
        def forward(self, mean: torch.Tensor, log_variance: torch.Tensor) -> torch.Tensor:
            spread = torch.exp(log_variance)  # born
            return (mean * spread).sum(-1)

    class Autoencoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mean, self.log_variance, self.decoder = nn.Linear(4, 2), nn.Linear(4, 2), Decoder()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.decoder(self.mean(x), self.log_variance(x))

    model = Autoencoder()
    batches = vectors(3, 8, 4)
    batches[1][0][0][3] *= 1e4
    return Program(model, batches, mse, sgd(model))


@fault("forward", "activation", "aten::exp", "exp-overflow", kind="inf", like="pytorch/pytorch#17455")
def hand_written_softplus() -> Program:
    class Softplus(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.log(1 + torch.exp(x))  # born

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.activation = nn.Linear(4, 1), Softplus()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.activation(self.linear(x) * 1000).mean(-1)

    model = Net()
    return Program(model, vectors(1, 16, 4), mse, sgd(model))


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


@fault("forward", "mix", "aten::mm", "overflow", kind="inf", like="apex#963")
def half_precision_product_overflows() -> Program:
    class Mix(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            scores = x @ x.T  # born
            return torch.softmax(scores, -1) @ x

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.mix = nn.Linear(8, 8).half(), Mix()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.mix(self.linear(x)).float().mean(-1)

    model = Net()
    batches = [((torch.full((4, 8), 400.0, dtype=torch.float16),), torch.randn(4))]
    return Program(model, batches, mse, sgd(model))


@fault("forward", "head", "aten::_to_copy", "cast-overflow", kind="inf", step=1, like="NVIDIA/apex#240")
def cast_to_half_overflows() -> Program:
    class Head(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = x.half()  # born
            return (y - y.mean(-1, keepdim=True)).float().mean(-1)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.head = nn.Linear(4, 4), Head()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.linear(x))

    model = Net()
    batches = vectors(2, 3, 4)
    batches[1][0][0][0] = 1e6
    return Program(model, batches, mse, sgd(model))


@fault("forward", "pool", "aten::sum", "overflow", kind="inf", like="pytorch/pytorch fp16 sum")
def half_precision_sum_overflows() -> Program:
    class Pool(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.sum(1) / x.shape[1]  # born

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.pool = nn.Linear(4, 4), Pool()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.pool((self.linear(x).abs() + 100).half()).float().mean(-1)

    model = Net()
    return Program(model, vectors(1, 2, 1000, 4), mse, sgd(model))


@fault("forward", "attention", "aten::add", "overflow", kind="inf", like="huggingface/transformers#17937")
def two_smallest_numbers_as_masks() -> Program:
    class MaskedTwice(nn.Module):
        def forward(self, scores: torch.Tensor, causal: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
            scores = scores + causal
            scores = scores + padding  # born
            return torch.softmax(scores, -1)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.attention = nn.Linear(4, 4), MaskedTwice()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            lowest = torch.finfo(torch.float32).min
            causal = torch.full((4, 4), lowest).triu(1)
            padding = torch.full((1, 4), lowest)
            return self.attention(self.linear(x) - 1e32, causal, padding).mean(-1)

    model = Net()
    return Program(model, vectors(1, 4, 4), mse, sgd(model))


@fault("forward", "attention", "aten::mul", "zero-times-infinity", kind="nan", like="google/jax#5698")
def mask_multiplied_by_minus_infinity() -> Program:
    class AdditiveMask(nn.Module):
        def forward(self, scores: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
            bias = (1.0 - keep) * float("-inf")  # born
            return torch.softmax(scores + bias, -1)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.attention = nn.Linear(4, 4), AdditiveMask()

        def forward(self, x: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
            return self.attention(self.linear(x), keep).mean(-1)

    model = Net()
    keep = torch.tensor([1.0, 1.0, 0.0, 0.0])
    return Program(model, [((torch.randn(3, 4), keep), torch.randn(3))], mse, sgd(model))


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


@fault("forward", "cells.cell", "aten::addmm", "overflow", kind="inf", like="recurrent explosion")
def recurrence_explodes() -> Program:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cells = nn.ModuleDict({"cell": nn.Linear(6, 6)})
            nn.init.constant_(self.cells["cell"].weight, 4.0)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for _ in range(60):
                x = self.cells["cell"](x)  # born
            return torch.tanh(x - x.mean(-1, keepdim=True)).mean(-1)

    model = Recurrent()
    return Program(model, [((torch.rand(3, 6),), torch.randn(3))], mse, sgd(model))


@fault("forward", "norm", "aten::native_layer_norm", "overflow", kind="nan", like="NUMERICS 4i")
def layer_norm_of_huge_numbers() -> Program:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.norm = nn.Linear(4, 4), nn.LayerNorm(4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.norm(self.linear(x) * 1e25).mean(-1)  # born

    model = Net()
    return Program(model, vectors(1, 4, 4), mse, sgd(model))


@fault("forward", "encoder.block", "aten::div", "division-by-zero", like="torch.utils.checkpoint", step=1)
def inside_a_checkpointed_block() -> Program:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(x) / x.abs().amax(-1, keepdim=True)  # born

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = Block()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return checkpoint(self.block, x, use_reentrant=False)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.head = Encoder(), nn.Linear(4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.encoder(x)).squeeze(-1)

    model = Net()
    batches = vectors(2, 3, 4)
    batches[1][0][0][0] = 0
    return Program(model, batches, mse, sgd(model))


@fault("forward", "", "SafeLog", "log-of-zero", kind="inf", like="custom autograd Function")
def custom_function_in_the_forward_pass() -> Program:
    class SafeLog(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return torch.log(x)

        @staticmethod
        def backward(ctx, gradient):
            (x,) = ctx.saved_tensors
            return gradient / x.clamp_min(1e-6)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = torch.relu(self.linear(x))
            return SafeLog.apply(y).mean(-1)  # born

    model = Net()
    return Program(model, vectors(1, 6, 4), mse, sgd(model))


@fault("forward", "first", "aten::div_", "division-by-zero", kind="nan", like="shared module, in-place")
def shared_module_divides_in_place() -> Program:
    class InPlace(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = x.clone()
            y /= x.sum(-1, keepdim=True)  # born
            return y

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = InPlace()
            self.linear = nn.Linear(4, 4, bias=False)
            self.second = self.first

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(self.linear(self.first(x.abs() + 1)) * 0).mean(-1)

    model = Net()
    return Program(model, vectors(1, 6, 4), mse, sgd(model))


@dataclasses.dataclass
class Output:
    score: torch.Tensor
    extra: dict[str, torch.Tensor]


@fault("forward", "branch", "aten::reciprocal", "division-by-zero", kind="inf", like="ModelOutput, kwargs")
def dataclass_output_and_keywords() -> Program:
    class Branch(nn.Module):
        def forward(self, *, features: dict[str, torch.Tensor]) -> Output:
            return Output(score=features["x"].reciprocal(), extra=features)  # born

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.branch = nn.Linear(4, 4), Branch()

        def forward(self, x: torch.Tensor) -> Output:
            return self.branch(features={"x": torch.relu(self.linear(x))})

    model = Net()
    return Program(model, vectors(1, 6, 4), lambda out, target: mse(out.score.mean(-1), target), sgd(model))


@fault("forward", "phase", "aten::div", "division-by-zero", kind="nan", like="complex unit phasor")
def complex_phase_of_zero() -> Program:
    class Phase(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            z = torch.fft.fft(x)
            return z / z.abs()  # born

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.phase = nn.Linear(4, 4, bias=False), Phase()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.phase(self.linear(x)).real.mean(-1)

    model = Net()
    batches = vectors(1, 6, 4)
    batches[0][0][0][2] = 0
    return Program(model, batches, mse, sgd(model))


@fault("forward", "head", "aten::addmm", "poisoned-parameter", kind="nan", like="kohya-ss/sd-scripts#2116")
def checkpoint_with_a_bad_weight() -> Program:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(4, 4), nn.Linear(4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(torch.relu(self.body(x))).squeeze(-1)  # born

    model = Net()
    with torch.no_grad():
        model.head.weight[0, 2] = float("nan")
    return Program(model, vectors(1, 6, 4), mse, sgd(model))


@fault("forward", "norm", "aten::native_batch_norm", "sqrt-of-negative", kind="nan", like="negative running_var")
def negative_running_variance() -> Program:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.norm(self.linear(x)).mean(-1)  # born

    model = Net()
    model.norm.eval()
    model.norm.running_var[1] = -0.01
    return Program(model, vectors(1, 6, 4), mse, sgd(model))


@fault("forward", "norm", "aten::native_batch_norm", "overflow", kind="inf", like="pytorch/pytorch#1206")
def running_variance_overflows_with_a_finite_loss() -> Program:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                self.norm(x * 1e25)  # born
            return self.linear(x).mean(-1)

    model = Net()
    return Program(model, vectors(1, 6, 4), mse, sgd(model))


@fault("forward", "spectrum", "aten::div", "division-by-zero", kind="nan", step=1, like="LinAlgError on NaN input")
def eigenvalues_of_a_broken_matrix_raise() -> Program:
    class Spectrum(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            adjacency = x @ x.T
            adjacency = adjacency / adjacency.sum(-1, keepdim=True)  # born
            return torch.linalg.eigvalsh(adjacency + adjacency.T)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.spectrum = nn.Linear(4, 4, bias=False), Spectrum()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.spectrum(self.linear(x))

    model = Net()
    batches = vectors(2, 5, 4)
    batches[1][0][0][3] = 0
    return Program(model, batches, mse, sgd(model))


@fault("forward", "policy", "aten::log", "log-of-negative", like="distribution validation raises", kind="nan")
def distribution_refuses_its_parameters() -> Program:
    class Policy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            logits = torch.log(self.linear(x))  # born
            return torch.distributions.Categorical(logits=logits).entropy()

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.policy = Policy()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.policy(x)

    model = Net()
    return Program(model, vectors(1, 6, 4), mse, sgd(model))


@fault("forward", "decode", "aten::linalg_inv_ex", "singular-matrix", kind="nan", like="pytorch inv_ex unchecked")
def unchecked_inverse_of_a_singular_matrix() -> Program:
    class Decode(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            inverse, _ = torch.linalg.inv_ex(x)  # born
            return inverse.sum((-1, -2))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.decode = nn.Linear(4, 1), Decode()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.linear(x).relu().squeeze(-1)
            return self.decode(torch.diag_embed(torch.stack([y, y], -1)))

    model = Net()
    return Program(model, vectors(1, 6, 4), mse, sgd(model))


@fault("forward", "sharpen", "aten::div", "division-by-zero", kind="inf", like="temperature annealed to zero", step=1)
def temperature_zero() -> Program:
    class Sharpen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("temperature", torch.tensor(1.0))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = torch.softmax(x / self.temperature, -1)  # born
            self.temperature = self.temperature - 1.0
            return y

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.sharpen = nn.Linear(4, 4), Sharpen()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.sharpen(self.linear(x)).square().sum(-1)

    model = Net()
    return Program(model, vectors(3, 6, 4), mse, sgd(model))


@fault("forward", "tracker", "aten::div", "division-by-zero", kind="nan", step=1, like="running statistic poisoned")
def running_statistic_poisoned_with_a_finite_loss() -> Program:
    class Tracker(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("usage", torch.ones(3))

        def forward(self, counts: torch.Tensor) -> None:
            self.usage.mul_(0.9).add_(counts / counts.sum(), alpha=0.1)  # born

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.tracker = nn.Linear(4, 1), Tracker()

        def forward(self, x: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
            self.tracker(counts)
            return self.linear(x).squeeze(-1)

    model = Net()
    batches = [((torch.randn(6, 4), torch.full((3,), float(n))), torch.randn(6)) for n in (2, 0, 2)]
    return Program(model, batches, mse, sgd(model))


@fault("forward", "masked", "aten::exp", "exp-overflow", kind="inf", like="pytorch/pytorch#68425")
def where_hides_an_overflow() -> Program:
    class Masked(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.where(x <= 0, torch.exp(x), 1 + x)  # born

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.masked = nn.Linear(4, 4), Masked()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.masked(1e3 * self.linear(x)).mean(-1)

    model = Net()
    return Program(model, vectors(1, 6, 4), mse, sgd(model))


@fault("forward", "gated", "aten::div", "division-by-zero", kind="nan", like="NUMERICS 4i")
def sanitised_output_poisons_the_gradient() -> Program:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            ratio = x / x.sum(-1, keepdim=True)  # born
            return torch.nan_to_num(ratio * self.weight)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gated = Gated()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.gated(x).sum(-1)

    model = Net()
    batches = vectors(1, 6, 4)
    batches[0][0][0][0] = 0
    return Program(model, batches, mse, sgd(model))
