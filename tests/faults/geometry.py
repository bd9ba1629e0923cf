"""Faults of rotations, distances, decompositions and rendering."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

from tests.faults.table import Program, adamw, fault, mse, sgd


@fault("backward", "", "aten::acos", "acos-domain", node="AcosBackward0", kind="nan", like="kornia/kornia#4007")
def quaternion_log_at_the_identity() -> Program:
    class PoseRefiner(nn.Module):
        def __init__(self):
            super().__init__()
            self.delta = nn.Linear(6, 4)
            nn.init.zeros_(self.delta.weight)
            self.delta.bias.data = torch.tensor([1.0, 0.0, 0.0, 0.0])

        def quaternion_log(self, q):
            w, v = q[:, :1], q[:, 1:]
            angle = torch.acos(torch.clamp(w, min=-1.0, max=1.0))  # born
            return v * angle / v.norm(dim=-1, keepdim=True).clamp(min=1e-8)

        def forward(self, features):
            q = functional.normalize(self.delta(features), dim=-1)
            return self.quaternion_log(q)

    model = PoseRefiner()
    batches = [((torch.randn(4, 6),), torch.randn(4, 3)) for _ in range(2)]
    return Program(model, batches, nn.SmoothL1Loss(), adamw(model))


@fault("backward", "<loss>", "aten::acos", "acos-domain", node="AcosBackward0", kind="inf",
       like="eigenvivek/xvr#129")  # fmt: skip
def geodesic_distance_of_a_perfect_rotation() -> Program:
    def gram_schmidt(six):
        a, b = six[:, :3], six[:, 3:]
        x = functional.normalize(a, dim=1)
        y = functional.normalize(b - (x * b).sum(1, keepdim=True) * x, dim=1)
        return torch.stack([x, y, torch.cross(x, y, dim=1)], dim=1)

    class Geodesic(nn.Module):
        def forward(self, six, truth):
            trace = torch.einsum("bij,bij->b", gram_schmidt(six), truth)
            return torch.acos((trace - 1) / 2).mean()  # born

    head = nn.Linear(5, 6)
    nn.init.zeros_(head.weight)
    head.bias.data = torch.tensor([1.0, 0, 0, 0, 1.0, 0])
    batches = [((torch.randn(3, 5),), torch.eye(3).repeat(3, 1, 1))]
    return Program(head, batches, Geodesic(), sgd(head))


@fault("backward", "layers.1", "aten::sqrt", "sqrt-at-zero", node="SqrtBackward0", kind="nan",
       like="pyg-team/pytorch_geometric: distance of a self loop")  # fmt: skip
def edge_length_of_a_self_loop() -> Program:
    class EGCL(nn.Module):
        def __init__(self, last):
            super().__init__()
            self.phi = nn.Sequential(nn.Linear(1, 8), nn.SiLU(), nn.Linear(8, 1))
            self.exact = last

        def forward(self, x, edge_index):
            row, col = edge_index
            rel = x[row] - x[col]
            sq = rel.pow(2).sum(-1, keepdim=True)
            d = torch.sqrt(sq) if self.exact else sq  # born
            return x + torch.zeros_like(x).index_add(0, row, rel * self.phi(d))

    class EGNN(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Linear(3, 3)
            self.layers = nn.ModuleList([EGCL(last=False), EGCL(last=True)])

        def forward(self, pos, edge_index):
            pos = self.embed(pos)
            for layer in self.layers:
                pos = layer(pos, edge_index)
            return pos

    model = EGNN()
    edges = torch.tensor([[0, 1, 2, 3, 2], [1, 2, 3, 0, 2]])
    batches = [((torch.randn(4, 3), edges), torch.randn(4, 3))]
    return Program(model, batches, mse, adamw(model))


@fault("forward", "", "aten::div", "division-by-zero", kind="nan", step=1, like="nerf: inverse transform sampling")
def sampling_along_a_ray_through_empty_space() -> Program:
    def sample_pdf(bins, weights, n):
        pdf = weights / torch.sum(weights, -1, keepdim=True)  # born
        cdf = torch.cat([torch.zeros_like(pdf[..., :1]), torch.cumsum(pdf, -1)], -1)
        u = torch.linspace(0.0, 1.0, steps=n).expand(*cdf.shape[:-1], n).contiguous()
        index = torch.searchsorted(cdf.detach(), u, right=True).clamp(1, cdf.shape[-1] - 1)
        low, high = torch.gather(cdf, -1, index - 1), torch.gather(cdf, -1, index)
        at = torch.gather(bins, -1, index - 1)
        return at + (u - low) / (high - low + 1e-5)

    class Field(nn.Module):
        def __init__(self):
            super().__init__()
            self.density = nn.Linear(3, 1, bias=False)

        def forward(self, points, depths):
            sigma = torch.relu(self.density(points)).squeeze(-1)
            alpha = 1.0 - torch.exp(-sigma * 0.1)
            fine = sample_pdf(depths, alpha, 6)
            return fine.mean(-1)

    model = Field()
    depths = torch.linspace(2, 6, 8).expand(4, 8)
    outside = torch.randn(4, 8, 3)
    outside[2] = 0.0
    batches = [((torch.randn(4, 8, 3), depths), torch.randn(4)), ((outside, depths), torch.randn(4))]
    return Program(model, batches, nn.MSELoss(), adamw(model))


@fault("backward", "", "aten::_linalg_svd", "repeated-singular-value", node="LinalgSvdBackward0", kind="nan",
       like="pytorch/pytorch#49886")  # fmt: skip
def alignment_of_a_symmetric_point_cloud() -> Program:
    class Kabsch(nn.Module):
        def __init__(self):
            super().__init__()
            self.refine = nn.Parameter(torch.eye(3))

        def forward(self, source, target):
            h = (source @ self.refine).transpose(-1, -2) @ target
            u, _, vh = torch.linalg.svd(h)  # born
            return u @ vh

    corners = torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]])
    model = Kabsch()
    batches = [((corners[None], corners[None]), torch.eye(3)[[1, 2, 0]][None])]
    return Program(model, batches, mse, sgd(model))


@fault("backward", "", "aten::linalg_qr", "singular-matrix", node="LinalgQrBackward0", kind="nan",
       like="pytorch/pytorch: qr backward of a rank-deficient matrix")  # fmt: skip
def orthogonal_basis_of_a_dead_feature() -> Program:
    class Subspace(nn.Module):
        def __init__(self):
            super().__init__()
            self.project = nn.Linear(6, 3, bias=False)
            self.project.weight.data[1] = 0.0

        def forward(self, x):
            q, _ = torch.linalg.qr(self.project(x))  # born
            return q

    model = Subspace()
    return Program(model, [((torch.randn(8, 6),), torch.randn(8, 3))], mse, sgd(model))


@fault("forward", "flow.1", "aten::_linalg_slogdet", "singular-matrix", kind="inf",
       like="glow: 1x1 convolution loses rank")  # fmt: skip
def log_determinant_of_a_collapsed_mixing_matrix() -> Program:
    class Mix(nn.Module):
        def __init__(self, matrix):
            super().__init__()
            self.weight = nn.Parameter(matrix)

        def forward(self, x):
            _sign, logdet = torch.slogdet(self.weight)  # born
            return x @ self.weight, logdet

    class Flow(nn.Module):
        def __init__(self):
            super().__init__()
            collapsed = torch.eye(3)
            collapsed[2, 2] = 0.0
            self.flow = nn.ModuleList([Mix(torch.eye(3) * 2), Mix(collapsed)])

        def forward(self, x):
            total = x.new_zeros(())
            for step in self.flow:
                x, logdet = step(x)
                total = total + logdet
            return x, total

    def nll(output, _):
        z, logdet = output
        return (0.5 * z.pow(2).sum(-1) + 0.5 * 3 * math.log(2 * math.pi)).mean() - logdet

    model = Flow()
    return Program(model, [((torch.randn(5, 3),), torch.zeros(()))], nll, sgd(model))


@fault("forward", "", "aten::div", "division-by-zero", kind="inf", step=1,
       like="monodepth: a point in the camera plane")  # fmt: skip
def projection_of_a_point_in_the_camera_plane() -> Program:
    class Warp(nn.Module):
        def __init__(self):
            super().__init__()
            self.depth = nn.Conv2d(1, 1, 1, bias=False)

        def forward(self, image, rays):
            cam = self.depth(image) * rays
            xy, z = cam[:, :2], cam[:, 2:]
            grid = (xy / z).permute(0, 2, 3, 1)  # born
            return functional.grid_sample(image, grid, align_corners=False)

    model = Warp()
    rays = torch.randn(1, 3, 4, 4).abs() + 0.2
    dark = torch.rand(1, 1, 4, 4) + 0.1
    flat = rays.clone()
    flat[0, 2, 1, 1] = 0.0
    batches = [((dark, rays), dark), ((dark, flat), dark)]
    return Program(model, batches, functional.l1_loss, adamw(model))


@fault(
    "forward", "", "aten::linalg_matrix_exp", "exp-overflow", kind="inf", like="notears: acyclicity of a dense graph"
)
def acyclicity_of_a_graph_with_heavy_edges() -> Program:
    class Notears(nn.Module):
        def __init__(self, d=5):
            super().__init__()
            self.w = nn.Parameter(torch.full((d, d), 5.0) + 0.1 * torch.randn(d, d))

        def forward(self, x):
            h = torch.trace(torch.matrix_exp(self.w * self.w)) - self.w.shape[0]  # born
            return x @ self.w, h

    model = Notears()
    return Program(
        model, [((torch.randn(7, 5),), torch.randn(7, 5))], lambda o, t: mse(o[0], t) + 0.1 * o[1], sgd(model)
    )


@fault("backward", "manifold", "aten::acosh", "acos-domain", node="AcoshBackward0", kind="inf",
       like="hyperbolic embeddings: distance of a point to itself")  # fmt: skip
def lorentz_distance_of_equal_points() -> Program:
    class Lorentz(nn.Module):
        def forward(self, u, v):
            inner = (u[..., 1:] * v[..., 1:]).sum(-1) - u[..., 0] * v[..., 0]
            return torch.acosh(torch.clamp(-inner, min=1.0))  # born

    class Embedder(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(6, 2)
            nn.init.zeros_(self.table.weight)
            self.manifold = Lorentz()

        def lift(self, e):
            return torch.cat([(1 + e.square().sum(-1, keepdim=True)).sqrt(), e], -1)

        def forward(self, i, j):
            return self.manifold(self.lift(self.table(i)), self.lift(self.table(j)))

    model = Embedder()
    i, j = torch.tensor([0, 1, 2]), torch.tensor([3, 4, 5])
    return Program(model, [((i, j), torch.ones(3))], mse, torch.optim.Adam(model.parameters()))


@fault("forward", "ball", "aten::atanh", "inverse-domain", kind="inf", step=1, like="poincare ball: a point on the rim")
def poincare_logarithm_on_the_rim() -> Program:
    class Ball(nn.Module):
        def forward(self, y):
            n = y.norm(dim=-1, keepdim=True).clamp_min(1e-15)
            return y / n * torch.atanh(n)  # born

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.ball = Ball()
            self.out = nn.Linear(2, 1)

        def forward(self, y):
            return self.out(self.ball(y)).squeeze(-1)

    model = Net()
    batches = [((torch.rand(3, 2) * 0.3,), torch.zeros(3)), ((torch.tensor([[0.1, 0.2], [0.0, 1.0]]),), torch.zeros(2))]
    return Program(model, batches, mse, sgd(model))


@fault("backward", "", "aten::atan2", "atan2-at-origin", node="Atan2Backward0", kind="inf", step=1,
       like="kornia/kornia#4246: squares that underflow")  # fmt: skip
def bearing_of_a_vanishing_velocity() -> Program:
    class Bearing(nn.Module):
        def __init__(self):
            super().__init__()
            self.turn = nn.Linear(2, 2, bias=False)
            nn.init.eye_(self.turn.weight)

        def forward(self, velocity):
            v = self.turn(velocity)
            return torch.atan2(v[:, 1], v[:, 0])  # born

    model = Bearing()
    batches = [((torch.randn(3, 2) * s,), torch.zeros(3)) for s in (1.0, 1e-20)]
    return Program(model, batches, lambda o, t: (o - t).sum(), torch.optim.SGD(model.parameters(), lr=0.01))
