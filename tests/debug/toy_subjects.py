"""Small programs to be debugged: a graph encoding whose eigenvalues repeat when a sample is silent.

Letters: B batch, C = 4 channels, L = 64 samples, F = 3 features.
"""

from __future__ import annotations

import itertools

import torch
from torch import nn

from brainbrr_debug.subject import Run, Switch, plain_step

B, C, L, F = 4, 4, 64, 3
SILENT_STEP, SILENT_SAMPLE = 3, 2


class Encoding(nn.Module):
    """Eigenvectors of the Laplacian of a learned graph."""

    def __init__(self, gradient: str) -> None:
        super().__init__()
        self.gradient = gradient

    def forward(self, features: torch.Tensor) -> torch.Tensor:  # (B, C, F) -> (B, C, C)
        weight = nn.functional.softplus(features @ features.transpose(1, 2))
        laplacian = torch.diag_embed(weight.sum(-1)) - weight
        vectors = torch.linalg.eigh(laplacian).eigenvectors
        return vectors.detach() if self.gradient == "detached" else vectors


class Graph(nn.Module):
    def __init__(self, gradient: str) -> None:
        super().__init__()
        self.pe = Encoding(gradient)
        self.lift = nn.Linear(C, F)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features + self.lift(self.pe(features).abs())


class Net(nn.Module):
    def __init__(self, switches) -> None:
        super().__init__()
        self.encode = nn.Linear(L, F, bias=bool(switches.get("bias", False)))
        self.graph = Graph(switches.get("graph.gradient", "raw"))
        self.graph_enabled = switches.get("graph.enabled", True)
        self.mix = nn.Linear(F, F) if switches.get("mix.enabled", True) else nn.Identity()
        self.drop = nn.Dropout(0.1)
        self.head = nn.Linear(F, 1)

    def forward(self, signal: torch.Tensor) -> torch.Tensor:  # (B, C, L) -> (B,)
        features = self.encode(signal)
        if self.graph_enabled:
            features = self.graph(features)
        return self.head(self.drop(torch.tanh(self.mix(features)))).mean((1, 2))


class TieSubject:
    """Batch 3 holds a silent sample: every feature is zero there, the graph complete with equal weights."""

    silent_step = SILENT_STEP
    channels = ("Fz", "Cz", "Pz", "Oz")

    def build(self, seed, switches):
        torch.manual_seed(seed)
        model = Net(switches)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        run = Run(model=model, optimizer=optimizer, loss_fn=nn.functional.mse_loss, batches=self.batches(seed))
        if switches.get("sanitize"):
            run = Run(
                model=model,
                optimizer=optimizer,
                loss_fn=nn.functional.mse_loss,
                batches=run.batches,
                step=sanitizing(run),
            )
        return run

    def batches(self, seed):
        generator = torch.Generator().manual_seed(seed)
        for step in itertools.count():
            signal = torch.randn(B, C, L, generator=generator)
            if step == self.silent_step:
                signal[SILENT_SAMPLE] = 0.0
            if step == 6:
                return
            yield (signal,), torch.randn(B, generator=generator)

    def switches(self):
        return {
            "mix.enabled": Switch(values=(True, False), safe=False, component="mix"),
            "graph.enabled": Switch(values=(True, False), safe=False, component="graph"),
            "graph.gradient": Switch(values=("raw", "detached"), safe="detached", component="graph.pe"),
            "bias": Switch(values=(False, True), safe=True, keeps_weights=False),
            "sanitize": Switch(values=(False, True), safe=True, hides=True),
            "device": Switch(values=("cuda", "cpu"), safe="cpu", applies="there is no GPU"),
        }

    def identify(self, batch_index, sample_index):
        start = 10.0 * (batch_index * B + sample_index)
        return {"recording": "night.edf", "start_s": start, "stop_s": start + 10.0}


class HealthySubject(TieSubject):
    silent_step = -1


class RepairedSubject(TieSubject):
    """The code as it is after the repair."""

    def build(self, seed, switches):
        return super().build(seed, {**switches, "graph.gradient": "detached"})


class ConfiguredSubject(TieSubject):
    """The same, built from a captured configuration."""

    def __init__(self, config) -> None:
        self.config = config

    @classmethod
    def from_config(cls, config):
        return cls(config)

    def build(self, seed, switches):
        return super().build(seed, {**self.config, **switches})


class DivergingSubject(TieSubject):
    """No bad batch: a learning rate that is far too high, and a loss that overflows."""

    silent_step = -1

    def build(self, seed, switches):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Flatten(), nn.Linear(C * L, 1), nn.Flatten(0))
        rate = 0.01 if switches.get("rate") == "low" else 1e6
        optimizer = torch.optim.SGD(model.parameters(), lr=rate)
        return Run(model=model, optimizer=optimizer, loss_fn=nn.functional.mse_loss, batches=self.batches(seed))

    def switches(self):
        return {}


class FlakySubject(TieSubject):
    """Fails only as often as the outside world says."""

    failures = 0
    silent_step = -1

    def build(self, seed, switches):
        run = super().build(seed, switches)
        failing = FlakySubject.failures > 0
        FlakySubject.failures -= 1
        loss = (lambda output, target: output.sum() * float("nan")) if failing else nn.functional.mse_loss
        return Run(model=run.model, optimizer=run.optimizer, loss_fn=loss, batches=run.batches)


def sanitizing(run):
    """A step that cleans its gradients after the gate has seen them."""

    class Cleaning:
        def __init__(self, gate):
            self.gate = gate

        def forward(self, output, loss):
            self.gate.forward(output, loss)

        def gradients(self, norm=None):
            go_on = self.gate.gradients(norm)
            for parameter in run.model.parameters():
                if parameter.grad is not None:
                    torch.nan_to_num_(parameter.grad, nan=0.0, posinf=0.0, neginf=0.0)
            return go_on

    plain = plain_step(run)
    return lambda micro_batches, gate: plain(micro_batches, Cleaning(gate))


class PlainSubject:
    """A model and its batches, nothing to switch and nothing to identify; subclasses say what goes wrong."""

    steps = 8
    loss = staticmethod(nn.functional.mse_loss)

    def build(self, seed, switches):
        torch.manual_seed(seed)
        model = self.model(switches)
        return Run(
            model=model,
            optimizer=torch.optim.Adam(model.parameters()),
            loss_fn=self.loss,
            batches=self.batches(torch.Generator().manual_seed(seed)),
        )

    def batches(self, generator):
        for step in range(self.steps):
            signal, target = torch.randn(4, 8, generator=generator), torch.randn(4, 1, generator=generator)
            yield (self.spoiled(step, signal),), target

    def spoiled(self, step, signal):
        return signal

    def switches(self):
        return {}

    def identify(self, batch_index, sample_index):
        raise LookupError("nobody knows")


class RandomSubject(PlainSubject):
    """Now and then a random draw keeps no element of the mean."""

    steps = 60

    class Keep(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(8, 1)

        def forward(self, signal):
            keep = (torch.rand(len(signal), 1) < 0.4).float()
            return self.linear(signal) + (self.linear(signal) * keep).sum() / keep.sum()

    def model(self, switches):
        return self.Keep()


class ExplodingSubject(PlainSubject):
    """Overflows at initialisation, whatever the batch."""

    def model(self, switches):
        model = nn.Sequential(*[nn.Linear(8, 8) for _ in range(30)], nn.Linear(8, 1))
        if not switches.get("small"):
            for layer in model:
                layer.weight.data.mul_(300)
        return model

    def switches(self):
        return {"small": Switch(values=(False, True), safe=True, keeps_weights=False)}


class WrongBackward(torch.autograd.Function):
    """softplus with exp(x)/(1+exp(x)) as its derivative: inf/inf for large x."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return nn.functional.softplus(x)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient * x.exp() / (1 + x.exp())


class KernelSubject(PlainSubject):
    """A hand-written backward that is wrong for large inputs, and a batch that has some."""

    class Softplus(nn.Module):
        def __init__(self, kernel):
            super().__init__()
            self.kernel = kernel

        def forward(self, x):
            return nn.functional.softplus(x) if self.kernel == "torch" else WrongBackward.apply(x)

    def model(self, switches):
        return nn.Sequential(nn.Linear(8, 8), self.Softplus(switches.get("kernel", "own")), nn.Linear(8, 1))

    def spoiled(self, step, signal):
        if step == 5:
            signal[3] *= 1000
        return signal

    def switches(self):
        return {
            "kernel": Switch(values=("own", "torch"), safe="torch", component="1"),
            "unread": Switch(values=(1, 2), safe=2),
        }


class MaskedSubject(PlainSubject):
    """Healthy: infinities in a mask and NaN in an output that the loss never reads."""

    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(8, 8)
            self.register_buffer("mask", torch.triu(torch.full((8, 8), float("-inf")), 1))

        def forward(self, signal):
            weight = (self.linear(signal)[:, :, None] * signal[:, None, :] + self.mask).softmax(-1)
            used = (weight @ signal[:, :, None])[:, :1, 0]
            return torch.cat([used, torch.full_like(used, float("nan"))], 1)

    loss = staticmethod(lambda output, target: nn.functional.mse_loss(output[:, :1], target))

    def model(self, switches):
        return self.Masked()
