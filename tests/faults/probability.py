"""Faults of densities, policies, Gaussian processes and information."""

from __future__ import annotations

import torch
from torch import distributions, nn
from torch.nn import functional

from tests.faults.table import Program, adamw, fault, mse, sgd


@fault("forward", "", "aten::sub", "infinity-minus-infinity", kind="nan", step=1,
       like="Stable-Baselines-Team/stable-baselines3-contrib#221")  # fmt: skip
def policy_without_a_legal_action() -> Program:
    class MaskedPolicy(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 3))

        def forward(self, obs, legal):
            logits = self.body(obs).masked_fill(~legal, float("-inf"))
            return distributions.Categorical(logits=logits)  # born

    def reinforce(policy, batch):
        action, reward = batch
        return -(policy.log_prob(action) * reward).mean()

    legal = torch.ones(5, 3, dtype=torch.bool)
    legal[:, 2] = False
    none = legal.clone()
    none[4] = False
    model = MaskedPolicy()
    batches = [((torch.randn(5, 4), m), (torch.zeros(5, dtype=torch.long), torch.randn(5))) for m in (legal, none)]
    return Program(model, batches, reinforce, adamw(model))


@fault("forward", "actor", "aten::log", "log-of-zero", kind="inf", like="soft actor critic: saturated tanh")
def log_probability_of_a_saturated_action() -> Program:
    class SquashedActor(nn.Module):
        def __init__(self):
            super().__init__()
            self.mu, self.log_std = nn.Linear(3, 2), nn.Linear(3, 2)

        def forward(self, s, noise):
            mu, std = self.mu(s), self.log_std(s).clamp(-5, 2).exp()
            raw = mu + std * noise
            action = torch.tanh(raw)
            logp = distributions.Normal(mu, std).log_prob(raw)
            logp = logp - torch.log(1 - action.pow(2))  # born
            return action, logp.sum(-1)

    class Agent(nn.Module):
        def __init__(self):
            super().__init__()
            self.actor = SquashedActor()
            self.critic = nn.Linear(5, 1)

        def forward(self, s, noise):
            a, logp = self.actor(s, noise)
            return 0.2 * logp - self.critic(torch.cat([s, a], -1)).squeeze(-1)

    model = Agent()
    s = torch.randn(6, 3)
    s[0] = 60.0
    return Program(model, [((s, torch.randn(6, 2)), None)], lambda out, _: out.mean(), adamw(model))


@fault(
    "forward", "<loss>", "aten::lgamma", "inverse-domain", kind="inf", like="scvi: negative binomial, zero dispersion"
)
def negative_binomial_without_dispersion() -> Program:
    def nb(output, x):
        mu, theta = output
        log_theta_mu = torch.log(theta + mu + 1e-8)
        ll = theta * (torch.log(theta + 1e-8) - log_theta_mu) + x * (torch.log(mu + 1e-8) - log_theta_mu)
        ll = ll + torch.lgamma(x + theta)
        ll = ll - torch.lgamma(theta)  # born
        return -(ll - torch.lgamma(x + 1)).sum(-1).mean()

    class Decoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.mean = nn.Sequential(nn.Linear(2, 5), nn.Softplus())
            self.raw = nn.Parameter(torch.tensor([0.5, 1.0, -1.0, 0.3, 2.0]))

        def forward(self, z):
            return self.mean(z), torch.relu(self.raw)

    model = Decoder()
    return Program(model, [((torch.randn(4, 2),), torch.randint(1, 9, (4, 5)).float())], nb, sgd(model))


@fault(
    "forward", "", "aten::log", "log-of-zero", kind="inf", like="concrete distribution: uniform noise rounded to one"
)
def gumbel_noise_rounded_to_one() -> Program:
    class Gate(nn.Module):
        def __init__(self):
            super().__init__()
            self.logits = nn.Linear(4, 3)

        def forward(self, x, u):
            inner = -torch.log(u + 1e-20)
            gumbel = -torch.log(inner)  # born
            return functional.softmax((self.logits(x) + gumbel) / 0.5, dim=-1)

    u = torch.rand(4, 3) * 0.9 + 0.05
    u[1, 2] = 1.0
    model = Gate()
    return Program(model, [((torch.randn(4, 4), u), torch.rand(4, 3))], mse, sgd(model))


@fault("forward", "<loss>", "aten::log", "log-of-zero", kind="inf", like="mixture density network far from the data")
def mixture_likelihood_that_underflows() -> Program:
    def mdn_loss(output, y):
        pi, mu, sigma = output
        density = torch.exp(-0.5 * ((y[:, None] - mu) / sigma) ** 2) / sigma
        return -torch.log((pi * density).sum(-1)).mean()  # born

    class MDN(nn.Module):
        def __init__(self):
            super().__init__()
            self.h = nn.Linear(1, 6)

        def forward(self, x):
            a, b, c = self.h(x).chunk(3, -1)
            return a.softmax(-1), b, functional.softplus(c) + 0.1

    model = MDN()
    return Program(model, [((torch.randn(4, 1),), torch.tensor([0.1, -0.2, 900.0, 0.4]))], mdn_loss, adamw(model))


@fault("backward", "<loss>", "aten::special_entr", "log-of-zero", node="SpecialEntrBackward0", kind="inf",
       like="entropy bonus of a policy that has become certain")  # fmt: skip
def entropy_bonus_of_a_certain_policy() -> Program:
    def loss_fn(logits, action):
        p = logits.softmax(-1)
        bonus = torch.special.entr(p).sum(-1).mean()  # born
        return functional.cross_entropy(logits, action) - 0.01 * bonus

    model = nn.Linear(2, 3)
    x = torch.tensor([[1.0, 0.0], [400.0, -300.0]])
    model.weight.data = torch.tensor([[1.0, 0.0], [-1.0, 1.0], [0.0, 0.5]])
    return Program(model, [((x,), torch.tensor([0, 0]))], loss_fn, sgd(model))


@fault("backward", "", "aten::xlogy", "log-of-zero", node="XlogyBackward0", kind="nan",
       like="mutual information with xlogy")  # fmt: skip
def mutual_information_with_an_empty_cell() -> Program:
    class Information(nn.Module):
        def __init__(self):
            super().__init__()
            self.gate = nn.Parameter(torch.ones(3))

        def forward(self, counts):
            joint = counts * torch.relu(self.gate)
            joint = joint / joint.sum()
            return -torch.special.xlogy(joint, joint).sum()  # born

    model = Information()
    counts = torch.tensor([[3.0, 2.0, 0.0], [1.0, 4.0, 5.0]])
    return Program(model, [((counts,), torch.tensor(1.0))], mse, sgd(model))


@fault("forward", "covar", "aten::div", "division-by-zero", kind="nan",
       like="cornellius-gp/gpytorch#1747")  # fmt: skip
def kernel_with_a_vanished_length_scale() -> Program:
    class RBF(nn.Module):
        def __init__(self):
            super().__init__()
            self.raw_lengthscale = nn.Parameter(torch.tensor(-200.0))

        def forward(self, x):
            scale = functional.softplus(self.raw_lengthscale)
            z = x / scale  # born
            return torch.exp(-0.5 * (z[:, None] - z[None]).pow(2).sum(-1))

    class ExactGP(nn.Module):
        def __init__(self):
            super().__init__()
            self.covar = RBF()
            self.noise = nn.Parameter(torch.tensor(0.1))

        def forward(self, x):
            k = self.covar(x) + self.noise * torch.eye(len(x))
            return torch.linalg.cholesky(k)

    def nll(chol, y):
        a = torch.cholesky_solve(y[:, None], chol)
        return 0.5 * (y @ a).sum() + chol.diagonal().log().sum()

    model = ExactGP()
    x = torch.linspace(0, 1, 5)[:, None]
    return Program(model, [((x,), torch.sin(x[:, 0]))], nll, torch.optim.Adam(model.parameters(), lr=0.1))


@fault("forward", "", "aten::erfinv", "inverse-domain", kind="inf", step=2, like="quantile transform of the extremes")
def gaussian_quantile_of_one() -> Program:
    class Copula(nn.Module):
        def __init__(self):
            super().__init__()
            self.mix = nn.Linear(3, 1)

        def forward(self, ranks):
            z = torch.erfinv(2 * ranks - 1) * 2**0.5  # born
            return self.mix(z).squeeze(-1)

    def stream():
        for step in range(4):
            r = torch.rand(4, 3) * 0.8 + 0.1
            if step == 2:
                r[1, 1] = 1.0
            yield (r,), torch.randn(4)

    model = Copula()
    return Program(model, stream(), mse, adamw(model))


@fault("forward", "", "aten::logit", "inverse-domain", kind="inf", like="RealNVP: an exactly white pixel")
def logit_of_a_white_pixel() -> Program:
    class Dequantise(nn.Module):
        def __init__(self):
            super().__init__()
            self.shift = nn.Parameter(torch.zeros(4))

        def forward(self, pixels):
            return torch.logit(pixels) + self.shift  # born

    pixels = torch.rand(3, 4) * 0.9 + 0.05
    pixels[0, 3] = 1.0
    model = Dequantise()
    return Program(model, [((pixels,), None)], lambda z, _: 0.5 * z.square().mean(), sgd(model))


@fault("backward", "crf", "aten::logaddexp", "infinity-minus-infinity", node="LogaddexpBackward0", kind="nan",
       like="pytorch/pytorch: logaddexp backward of two minus infinities")  # fmt: skip
def forward_algorithm_over_unreachable_states() -> Program:
    class Lattice(nn.Module):
        def forward(self, scores):
            batch, length, states = scores.shape
            alpha = scores.new_full((batch, states), float("-inf"))
            alpha[:, 0] = 0.0
            for t in range(length):
                from_left = functional.pad(alpha[:, :-1], (1, 0), value=float("-inf"))
                alpha = torch.logaddexp(alpha, from_left) + scores[:, t]  # born
            return alpha[:, 0]

    class Tagger(nn.Module):
        def __init__(self):
            super().__init__()
            self.emit = nn.Linear(5, 4)
            self.crf = Lattice()

        def forward(self, x):
            return self.crf(self.emit(x).log_softmax(-1))

    model = Tagger()
    return Program(model, [((torch.randn(2, 3, 5),), None)], lambda a, _: -a.mean(), adamw(model))


@fault("forward", "<loss>", "aten::log", "log-of-zero", kind="inf", like="knowledge distillation: log of a softmax")
def distillation_through_log_of_softmax() -> Program:
    temperature = 1.0

    def distil(student, teacher):
        log_p = (student / temperature).softmax(dim=1).log()  # born
        return functional.kl_div(log_p, (teacher / temperature).softmax(1), reduction="batchmean")

    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 4))
    model[2].bias.data = torch.tensor([0.0, 150.0, 0.0, -50.0])
    return Program(model, [((torch.randn(5, 3),), torch.randn(5, 4))], distil, sgd(model))


@fault("forward", "<loss>", "aten::div", "variance-of-constant", kind="nan", step=1, like="ppo: constant advantages")
def advantages_without_any_spread() -> Program:
    def ppo(ratio, advantage):
        a = (advantage - advantage.mean()) / advantage.std()  # born
        return -torch.min(ratio.squeeze(1) * a, ratio.squeeze(1).clamp(0.8, 1.2) * a).mean()

    model = nn.Sequential(nn.Linear(2, 1), nn.Softplus())
    batches = [((torch.randn(4, 2),), a) for a in (torch.randn(4), torch.full((4,), 2.0))]
    return Program(model, batches, ppo, adamw(model))


@fault(
    "forward", "<loss>", "aten::log", "log-of-zero", kind="inf", like="pyro: scale collapsed to zero, validation off"
)
def likelihood_of_a_collapsed_scale() -> Program:
    def nll(output, y):
        loc, scale = output
        return -distributions.Normal(loc, scale, validate_args=False).log_prob(y).mean()  # born

    class Amortised(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(3, 2)

        def forward(self, x):
            loc, raw = self.net(x).unbind(-1)
            return loc, torch.relu(raw)

    model = Amortised()
    model.net.weight.data[1] = torch.tensor([1.0, 0.0, 0.0])
    model.net.bias.data[1] = 0.0
    return Program(model, [((torch.tensor([[1.0, 0, 0], [-1.0, 0, 0]]),), torch.tensor([0.3, 0.4]))], nll, sgd(model))
