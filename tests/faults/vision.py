"""Faults of images: detection, generation, normalisation, segmentation."""

from __future__ import annotations

import dataclasses

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from tests.faults.table import Program, adamw, fault, mse, sgd


@fault("forward", "fc.parametrizations.weight.0", "aten::_weight_norm_interface", "norm-at-zero", kind="nan",
       like="pytorch/pytorch: weight_norm of a zero row")  # fmt: skip
def parametrised_norm_of_a_zero_matrix() -> Program:
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            fc = nn.Linear(4, 3)
            nn.init.zeros_(fc.weight)
            self.fc = parametrizations.weight_norm(fc)

        def forward(self, x):
            return self.fc(x)  # born

    model = Net()
    return Program(model, [((torch.randn(2, 4),), torch.randn(2, 3))], mse, sgd(model))


@fault("forward", "critic.conv.parametrizations.weight.0", "aten::div", "division-by-zero", kind="nan",
       like="spectral norm of a layer initialised with zeros")  # fmt: skip
def spectral_norm_of_a_zero_layer() -> Program:
    class Critic(nn.Module):
        def __init__(self):
            super().__init__()
            conv = nn.Conv2d(1, 2, 3)
            torch.nn.init.zeros_(conv.weight)
            self.conv = parametrizations.spectral_norm(conv)

        def forward(self, x):
            h = self.conv(x)  # born
            return functional.leaky_relu(h, 0.2).mean((1, 2, 3))

    class Wrapper(nn.Module):
        def __init__(self):
            super().__init__()
            self.critic = Critic()

        def forward(self, x):
            return self.critic(x)

    model = Wrapper()
    batches = [((torch.randn(2, 1, 5, 5),), torch.ones(2))]
    return Program(model, batches, functional.binary_cross_entropy_with_logits, adamw(model))


@fault("backward", "<loss>", "aten::sqrt", "sqrt-at-zero", node="SqrtBackward0", kind="inf",
       like="wgan-gp: critic with a zero head")  # fmt: skip
def root_in_the_gradient_penalty_of_a_zero_head() -> Program:
    critic = nn.Sequential(nn.Linear(3, 8), nn.Softplus(), nn.Linear(8, 1))
    nn.init.zeros_(critic[2].weight)

    def wgan_gp(score, real):
        mixed = real.clone().requires_grad_(True)
        (grad,) = torch.autograd.grad(critic(mixed).sum(), mixed, create_graph=True)
        length = torch.sqrt((grad**2).sum(1))  # born
        return score.mean() + 10 * ((length - 1) ** 2).mean()

    return Program(critic, [((torch.randn(4, 3),), torch.randn(4, 3))], wgan_gp, adamw(critic))


@fault("backward", "<loss>", "aten::div", "division-by-zero", node="DivBackward0", kind="nan",
       like="CIoU loss: a box without height")  # fmt: skip
def aspect_ratio_of_a_flat_box() -> Program:
    def aspect(pred, truth):
        w, h = pred[:, 2], pred[:, 3]
        ratio = w / h  # born
        v = (torch.atan(truth[:, 2] / truth[:, 3]) - torch.atan(ratio)) ** 2
        return v.mean() + functional.l1_loss(pred, truth)

    class BoxHead(nn.Module):
        def __init__(self):
            super().__init__()
            self.reg = nn.Linear(4, 4)
            nn.init.eye_(self.reg.weight)
            nn.init.zeros_(self.reg.bias)

        def forward(self, x):
            return torch.relu(self.reg(x))

    x = torch.rand(3, 4) + 0.2
    x[1, 3] = -0.4
    model = BoxHead()
    return Program(model, [((x,), torch.rand(3, 4) + 0.1)], aspect, sgd(model))


@fault("backward", "<loss>", "aten::pow", "pow-domain", node="PowBackward0", kind="inf",
       like="focal loss with a fractional gamma")  # fmt: skip
def focal_loss_with_fractional_gamma() -> Program:
    def focal(logits, target, gamma=0.5):
        ce = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
        p = torch.sigmoid(logits)
        pt = p * target + (1 - p) * (1 - target)
        return ((1 - pt) ** gamma * ce).mean()  # born

    model = nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(1.0)
    x = torch.tensor([[0.5], [40.0], [-1.0]])
    return Program(model, [((x,), torch.ones(3, 1))], focal, sgd(model))


@fault("backward", "tonemap", "aten::pow", "where-nan-gradient", node="PowBackward0", kind="nan",
       like="nerfstudio: linear to sRGB of a negative radiance")  # fmt: skip
def tone_curve_of_negative_radiance() -> Program:
    class LinearToSRGB(nn.Module):
        def forward(self, c):
            low = 12.92 * c
            high = 1.055 * torch.pow(c, 1 / 2.4) - 0.055  # born
            return torch.where(c <= 0.0031308, low, high)

    class Renderer(nn.Module):
        def __init__(self):
            super().__init__()
            self.rgb = nn.Linear(5, 3)
            self.tonemap = LinearToSRGB()

        def forward(self, features):
            return self.tonemap(self.rgb(features))

    model = Renderer()
    model.rgb.bias.data = torch.tensor([0.5, -5.0, 0.6])
    return Program(model, [((0.1 * torch.randn(4, 5),), torch.rand(4, 3))], mse, adamw(model))


@fault("forward", "bn", "aten::native_batch_norm", "overflow", kind="inf", step=1, like="pytorch/pytorch#90342")
def running_variance_overflows() -> Program:
    class Stem(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 1, bias=False)
            self.bn = nn.BatchNorm2d(2)

        def forward(self, x):
            return self.bn(self.conv(x)).relu().mean((2, 3))  # born

    model = Stem()
    batches = [((torch.randn(4, 1, 3, 3) * s,), torch.tensor([0, 1, 1, 0])) for s in (1.0, 1e22, 1.0)]
    return Program(model, batches, functional.cross_entropy, sgd(model))


@fault("forward", "<loss>", "aten::nll_loss2d_forward", "target-index-out-of-use", kind="nan", step=1,
       like="segmentation: all pixels void")  # fmt: skip
def segmentation_of_a_void_image() -> Program:
    @dataclasses.dataclass
    class Sample:
        image: torch.Tensor
        scale: float = 1.0

    class Segmenter(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 1))

        def forward(self, sample):
            y = self.net(sample.image * sample.scale)
            return functional.interpolate(y, scale_factor=2, mode="bilinear", align_corners=False)

    def criterion(out, mask):
        return functional.cross_entropy(out, mask, weight=torch.tensor([0.3, 0.7]), ignore_index=255)  # born

    model = Segmenter()
    masks = [torch.randint(2, (2, 8, 8)), torch.full((2, 8, 8), 255)]
    batches = [((Sample(torch.randn(2, 3, 4, 4)),), m) for m in masks]
    return Program(model, batches, criterion, adamw(model))


@fault(
    "forward", "<loss>", "aten::div", "division-by-zero", kind="inf", step=1, like="positive weight without positives"
)
def positive_weight_of_a_batch_without_positives() -> Program:
    def balanced(logits, y):
        positives = y.sum()
        weight = (y.numel() - positives) / positives  # born
        return functional.binary_cross_entropy_with_logits(logits, y, pos_weight=weight)

    model = nn.Sequential(nn.Flatten(), nn.Linear(8, 1), nn.Flatten(0))
    batches = [((torch.randn(4, 2, 4),), y) for y in (torch.tensor([0.0, 1, 1, 0]), torch.zeros(4))]
    return Program(model, batches, balanced, adamw(model))


@fault("forward", "<loss>", "aten::reciprocal", "division-by-zero", kind="inf", like="PSNR as a loss, black image")
def psnr_of_a_perfect_image() -> Program:
    def psnr(out, target):
        error = functional.mse_loss(out, target)
        inverse = 1.0 / error  # born
        return -10 * torch.log10(inverse)

    model = nn.ConvTranspose2d(1, 1, 2, bias=False)
    nn.init.zeros_(model.weight)
    return Program(model, [((torch.randn(1, 1, 3, 3),), torch.zeros(1, 1, 4, 4))], psnr, sgd(model))


@fault("forward", "stem", "aten::convolution", "overflow", kind="inf", like="half precision on unnormalised images")
def convolution_overflows_half() -> Program:
    class Tiny(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv1d(2, 3, 3, padding=1)
            self.norm = nn.GroupNorm(1, 3)
            self.stem.weight.data.fill_(90.0)

        def forward(self, x):
            x = self.stem(x)  # born
            return self.norm(x).mean(-1)

    model = Tiny().half()
    batches = [((torch.full((2, 2, 6), 255.0).half(),), torch.zeros(2, 3).half())]
    return Program(model, batches, lambda o, t: (o - t).float().pow(2).mean(), sgd(model))


@fault("forward", "norm", "aten::native_layer_norm", "variance-of-constant", kind="nan", step=1,
       like="layer norm with epsilon zero")  # fmt: skip
def layer_norm_without_epsilon_of_a_flat_patch() -> Program:
    class Patch(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.LayerNorm(4, eps=0.0)
            self.out = nn.Linear(4, 1)

        def forward(self, patches):
            return self.out(self.norm(patches)).mean((1, 2))  # born

    flat = torch.randn(2, 3, 4)
    flat[1, 2] = 0.25
    model = Patch()
    return Program(model, [((torch.randn(2, 3, 4),), torch.randn(2)), ((flat,), torch.randn(2))], mse, adamw(model))


@fault("backward", "whiten", "aten::_linalg_eigh", "repeated-eigenvalue", node="LinalgEighBackward0", kind="nan",
       like="decorrelated batch normalisation with dead channels")  # fmt: skip
def whitening_of_dead_channels() -> Program:
    class Whiten(nn.Module):
        def forward(self, x):
            x = x - x.mean(0)
            cov = x.t().mm(x).div(x.size(0)) + 1e-3 * torch.eye(x.size(1))
            values, vectors = torch.linalg.eigh(cov)  # born
            return x @ vectors @ torch.diag(values.rsqrt()) @ vectors.t()

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(5, 4)
            self.fc.bias.data[:2] = -50.0
            self.whiten = Whiten()

        def forward(self, x):
            return self.whiten(torch.relu(self.fc(x)))

    model = Net()
    return Program(model, [((torch.randn(9, 5),), torch.randn(9, 4))], mse, sgd(model))
