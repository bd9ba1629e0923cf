"""Faults born in the backward pass: the loss is finite."""

from __future__ import annotations

import inspect

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from tests.faults.table import Program, adamw, fault, mse, sgd, vectors


def _one_empty_row() -> list[tuple[tuple[torch.Tensor, ...], torch.Tensor]]:
    batches = vectors(1, 6, 4)
    batches[0][0][0][1] = 0
    return batches


def _laplacian(x: torch.Tensor) -> torch.Tensor:
    adjacency = torch.sigmoid(x @ x.transpose(-1, -2))
    return torch.diag_embed(adjacency.sum(-1)) - adjacency


@fault("backward", "graph.encoding", "aten::_linalg_eigh", "repeated-eigenvalue", node="LinalgEighBackward0",
       kind="nan", step=3, like="pytorch/pytorch#47599")  # fmt: skip
def eigenvectors_of_a_degenerate_graph() -> Program:
    class Encoding(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            _, vectors_ = torch.linalg.eigh(_laplacian(x))  # born
            return vectors_[..., :3]

    class Graph(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lift, self.encoding = nn.Linear(4, 4, bias=False), Encoding()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.encoding(self.lift(x))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.graph, self.head = Graph(), nn.Linear(3, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.graph(x)).mean((1, 2))

    model = Net()
    batches = vectors(5, 3, 6, 4, target=(3,))
    batches[3][0][0][1] = 0
    return Program(model, batches, mse, adamw(model))


@fault("backward", "factor", "aten::_linalg_svd", "repeated-singular-value", node="LinalgSvdBackward0", kind="nan",
       like="pytorch/pytorch#49233")  # fmt: skip
def singular_vectors_of_a_multiple_of_the_identity() -> Program:
    class Factor(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            u, _, v = torch.linalg.svd(x)  # born
            return u[..., 0] * v[..., 0, :]

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale, self.factor = nn.Parameter(torch.tensor(2.0)), Factor()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.factor(x * self.scale).sum(-1)

    model = Net()
    return Program(model, [((torch.eye(3).repeat(2, 1, 1),), torch.randn(2))], mse, sgd(model))


@fault("backward", "distance", "aten::sqrt", "sqrt-at-zero", node="SqrtBackward0", kind="inf",
       like="pytorch/pytorch#15131")  # fmt: skip
def distance_of_a_point_to_itself() -> Program:
    class Distance(nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return (a - b).square().sum(-1).sqrt()  # born

    class Siamese(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.distance = nn.Linear(4, 3), Distance()

        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return self.distance(self.embed(a), self.embed(b))

    model = Siamese()
    x = torch.randn(6, 4)
    y = torch.randn(6, 4)
    y[2] = x[2]
    return Program(model, [((x, y), torch.randn(6))], mse, sgd(model))


@fault("backward", "masked", "aten::log2", "where-nan-gradient", node="Log2Backward0", kind="nan",
       like="pytorch/pytorch#108618")  # fmt: skip
def where_hides_a_logarithm() -> Program:
    class Masked(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.where(x > 2, torch.log2(x), 2 * x)  # born

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.masked = nn.Linear(4, 4, bias=False), Masked()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.masked(self.linear(x).square()).mean(-1)

    model = Net()
    return Program(model, _one_empty_row(), mse, sgd(model))


@fault("backward", "masked", "aten::sqrt", "where-nan-gradient", node="SqrtBackward0", kind="nan",
       like="kornia/kornia#3949")  # fmt: skip
def where_hides_a_square_root() -> Program:
    class Masked(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.where(x > 0, torch.sqrt(x), torch.zeros_like(x))  # born

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.masked = nn.Linear(4, 4, bias=False), Masked()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.masked(self.linear(x).square()).mean(-1)

    model = Net()
    return Program(model, _one_empty_row(), mse, sgd(model))


@fault("backward", "ratio", "aten::div", "where-nan-gradient", node="DivBackward0", kind="nan",
       like="kornia/kornia#4246")  # fmt: skip
def where_hides_a_quotient() -> Program:
    class Ratio(nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return torch.where(b > 0, a / b, torch.ones_like(a))  # born

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right, self.ratio = nn.Linear(4, 4), nn.Linear(4, 4), Ratio()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tanh(self.ratio(self.left(x), torch.relu(self.right(x) - 0.5) + 0.0)).mean(-1)

    model = Net()
    return Program(model, vectors(1, 6, 4), mse, sgd(model))


@fault("backward", "root", "aten::pow", "pow-domain", node="PowBackward0", kind="inf", like="generalised mean pooling")
def fractional_power_at_zero() -> Program:
    class Root(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.pow(1 / 3).mean(-1)  # born

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.root = nn.Linear(4, 4, bias=False), Root()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.root(self.linear(x).abs())

    model = Net()
    return Program(model, _one_empty_row(), mse, sgd(model))


@fault("backward", "angle", "aten::acos", "acos-domain", node="AcosBackward0", kind="inf", step=1,
       like="kornia/kornia#4228")  # fmt: skip
def rotation_angle_of_the_identity() -> Program:
    class Angle(nn.Module):
        def forward(self, rotation: torch.Tensor) -> torch.Tensor:
            trace = rotation.diagonal(dim1=-2, dim2=-1).sum(-1)
            return torch.acos((trace - 1) / 2)  # born

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale, self.angle = nn.Parameter(torch.tensor(1.0)), Angle()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.angle(x * self.scale)

    model = Net()
    turn = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    batches = [((turn[None],), torch.tensor([1.57079632679])), ((torch.eye(3)[None],), torch.zeros(1) + 1)]
    return Program(model, batches, mse, torch.optim.SGD(model.parameters(), lr=0.0))


@fault("backward", "", "Quantise", "custom-backward", node="QuantiseBackward", kind="nan",
       like="custom autograd Function")  # fmt: skip
def custom_function_in_the_backward_pass() -> Program:
    class Quantise(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return torch.round(x)

        @staticmethod
        def backward(ctx, gradient):
            (x,) = ctx.saved_tensors
            return gradient * (x / x.abs())

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = Quantise.apply(self.linear(x))  # born
            return y.mean(-1)

    model = Net()
    return Program(model, _one_empty_row(), mse, sgd(model))


@fault("backward", "size", "Length", "custom-backward", node="LengthBackward",
       like="state-spaces/mamba: a fused scan that computes its forward again")  # fmt: skip
def custom_function_that_differentiates_its_forward_again() -> Program:
    class Length(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.square().sum(-1).sqrt()

        @staticmethod
        def backward(ctx, gradient):
            with torch.enable_grad():
                x = ctx.saved_tensors[0].detach().requires_grad_()
                y = x.square().sum(-1).sqrt()
            return torch.autograd.grad(y, x, gradient)

    class Size(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return Length.apply(x)  # born

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.size = nn.Linear(4, 4, bias=False), Size()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.size(self.linear(x))

    model = Net()
    return Program(model, _one_empty_row(), mse, sgd(model))


def _checkpointed(*, use_reentrant: bool) -> Program:
    class Block(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.square().sqrt()

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.block = nn.Linear(4, 4, bias=False), Block()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return checkpoint(self.block, self.linear(x), use_reentrant=use_reentrant)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.head = Encoder(), nn.Linear(4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.encoder(x)).squeeze(-1)

    model = Net()
    return Program(model, _one_empty_row(), mse, sgd(model))


BLOCK_LINE = f"{__file__}:{inspect.getsourcelines(_checkpointed)[1] + 3}"


@fault("backward", "encoder.block", "aten::sqrt", "sqrt-at-zero", node="SqrtBackward0", kind="inf",
       line=BLOCK_LINE, like="torch.utils.checkpoint")  # fmt: skip
def slope_inside_a_checkpointed_block() -> Program:
    return _checkpointed(use_reentrant=False)


@fault("backward", "encoder.block", "aten::sqrt", "sqrt-at-zero", node="SqrtBackward0", kind="inf",
       line=BLOCK_LINE, like="torch.utils.checkpoint, reentrant")  # fmt: skip
def slope_inside_a_reentrant_checkpoint() -> Program:
    return _checkpointed(use_reentrant=True)


@fault("backward", "scale", "aten::mul", "overflow", node="MulBackward0", kind="inf", like="fp16 gradients overflow")
def half_precision_gradient_overflows() -> Program:
    class Scale(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 200.0  # born

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.scale = nn.Linear(4, 4).half(), Scale()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.scale(self.linear(x)).float().sum(-1)

    model = Net()
    batches = [((torch.randn(6, 4).half(),), torch.full((6,), 5e2))]
    return Program(model, batches, lambda out, target: (out - target).square().sum(), sgd(model))


@fault("backward", "tail", "aten::div_", "where-nan-gradient", node="torch::autograd::CopySlices", kind="nan",
       like="in-place on a slice")  # fmt: skip
def quotient_written_into_a_slice() -> Program:
    class Tail(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = x.clone()
            y[:, 1:] /= torch.relu(x[:, :1])  # born
            return torch.where(x[:, :1] > 0, y, torch.zeros_like(y))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.tail = nn.Linear(4, 4), Tail()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.tail(self.linear(x)).mean(-1)

    model = Net()
    return Program(model, vectors(1, 6, 4), mse, sgd(model))


@fault("backward", "linear", "aten::div", "norm-at-zero", kind="nan", like="tensor hook rescales a gradient")
def hook_divides_by_the_gradient_norm() -> Program:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 1)
            self.linear.weight.register_hook(lambda g: g / g.norm())  # born

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(self.linear(x) - 1e3).squeeze(-1)

    model = Net()
    return Program(model, vectors(1, 6, 4), mse, sgd(model))


@fault("backward", "pair", "aten::asin", "acos-domain", node="AsinBackward0", kind="inf", like="haversine distance")
def haversine_of_antipodes() -> Program:
    class Haversine(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * torch.asin(x.clamp(0, 1))  # born

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias, self.pair = nn.Parameter(torch.zeros(4)), Haversine()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.pair(x + self.bias).mean(-1)

    model = Net()
    return Program(model, [((torch.tensor([[0.2, 0.5, 1.0, 0.1]]),), torch.randn(1))], mse, sgd(model))


@fault("backward", "basis", "aten::linalg_qr", "singular-matrix", node="LinalgQrBackward0", kind="nan",
       like="pytorch/pytorch#22989")  # fmt: skip
def orthogonal_basis_of_dependent_columns() -> Program:
    class Basis(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            q, r = torch.linalg.qr(x)  # born
            return q.sum((-1, -2)) + r.sum((-1, -2))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.basis = nn.Linear(3, 3, bias=False), Basis()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.basis(self.linear(x))

    model = Net()
    return Program(model, [((torch.zeros(2, 4, 3),), torch.randn(2))], mse, sgd(model))
