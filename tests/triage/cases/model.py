"""Models with and without a trap, each a Subject that is built, trained for three steps and put to its ordeals."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from brainbrr_debug.checks.given import Given
from brainbrr_debug.facts import Kernel, Memory, RehearsalFacts
from brainbrr_debug.machine import Gpu
from brainbrr_debug.subject import Run
from tests.triage.cases import Case
from tests.triage.cases.config import known, machine


class Toy:
    """Two batches of four samples of 3 channels and 16 values; a number each is to be learnt."""

    def __init__(self, model: Callable[[], nn.Module]) -> None:
        self._model = model

    def build(self, seed: int, switches: Mapping[str, object]) -> Run:
        torch.manual_seed(seed)
        model = self._model()
        x = torch.randn(2, 4, 3, 16)
        batches = [((batch,), batch.mean((1, 2))[:, None]) for batch in x]
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        return Run(model, optimizer, nn.functional.mse_loss, batches)

    def switches(self) -> dict[str, Any]:
        return {}

    def identify(self, batch_index: int, sample_index: int) -> dict[str, Any]:
        return {}


class Headed(nn.Module):
    """`body` (4,3,16) → (4,8), and a linear head."""

    def __init__(self, body: nn.Module | Callable[[Tensor], Tensor], width: int = 8) -> None:
        super().__init__()
        self.body = body
        self.head = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.head(self.body(x))
        return result


def flat(*rest: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 8), *rest)


def begun(model: Headed, weight: float) -> Headed:
    """With a first layer of that scale."""
    nn.init.normal_(model.body[1].weight, std=weight)
    nn.init.zeros_(model.body[1].bias)
    return model


def zero_headed() -> Headed:
    model = Headed(flat(nn.ReLU()))
    nn.init.zeros_(model.head.weight)
    return model


class Unused(Headed):
    def __init__(self) -> None:
        super().__init__(flat(nn.ReLU()))
        self.spare = nn.Linear(8, 8)


class Multiplied(Unused):
    """The spare layer is used, and counts for nothing."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        result: Tensor = self.head(y + 0.0 * self.spare(y))
        return result


def normalised(factor: float) -> Headed:
    """Weight normalisation, and an initialisation that is written where it does not stay."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the old form is what a repository of some years has
        layer = nn.utils.weight_norm(nn.Linear(48, 8))
    layer.weight.data.mul_(factor)
    return Headed(nn.Sequential(nn.Flatten(), layer))


class Warns(Headed):
    def __init__(self, text: str) -> None:
        super().__init__(flat())
        warnings.warn(text, stacklevel=2)


class Spectrum(nn.Module):
    """Of the channels' covariance: values or vectors."""

    def __init__(self, vectors: bool) -> None:
        super().__init__()
        self.vectors = vectors
        self.mix = nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        y = self.mix(x)
        values, vectors = torch.linalg.eigh(y @ y.mT / 16 + torch.diag(torch.tensor([1.0, 2.0, 3.0])))
        return vectors[:, :, 0] if self.vectors else values


class Function(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def loudness(least: float) -> Callable[[], nn.Module]:
    """The root of the mean square: without `least`, its slope at silence is infinite."""
    power = Function(lambda x: (x.square().mean(-1) + least).sqrt())
    return lambda: Headed(nn.Sequential(nn.Linear(16, 16, bias=False), power), width=3)


def bounded(bound: float) -> Callable[[], nn.Module]:
    return lambda: Headed(flat(Function(lambda x: x.clamp(-bound, bound))))


def reciprocal(clean: bool) -> Callable[[], nn.Module]:
    """Of values of which some are zero: infinite, and cleaned away."""
    inner = Function(lambda x: (1 / x.relu()).nan_to_num(0.0, 0.0, 0.0)) if clean else nn.ReLU()
    return lambda: Headed(nn.Sequential(flat(), inner))


def of(model: Callable[[], nn.Module]) -> Callable[[Path], Given]:
    """What a rehearsal of the model shows."""

    def make(folder: Path) -> Given:
        from brainbrr_debug.rehearsal import rehearse, stage_of

        return Given(known={"rehearsal": rehearse(lambda: stage_of(lambda: Toy(model).build(0, {})))})

    return make


def kernel(asked: str, used: str) -> Callable[[Path], Given]:
    facts = RehearsalFacts(readings=(), kernels=(Kernel(key="model.mamba.backend", asked=asked, used=used),))
    return lambda folder: Given(known={"rehearsal": facts})


def step_of(gib: float, device: str, *gpus: Gpu) -> Callable[[Path], Given]:
    """A training step of that size on a machine of 32 GiB with these cards."""

    def make(folder: Path) -> Given:
        parts = {"parameters": 1 << 30, "activations": int((gib - 1) * (1 << 30))}
        memory = Memory(key="training.batch_size", batch_size=8, device=device, bytes=parts)
        made = known()(folder)
        return Given(config=made.config, known={**made.known, "memory": memory, "machine": machine(*gpus)})

    return make


SMALL_CARD = Gpu(name="small", capability=(8, 6), memory=8 << 30)
healthy = of(lambda: Headed(flat(nn.ReLU())))

CASES = {
    "model.dead_parameters": (
        Case(planted=of(Unused), healthy=healthy),
        Case(planted=of(Multiplied), healthy=of(zero_headed)),
    ),
    "model.init_scale": (
        Case(planted=of(lambda: begun(Headed(flat()), 1e-7)), healthy=healthy),
        Case(planted=of(lambda: begun(Headed(flat()), 1e6)), healthy=of(zero_headed)),
    ),
    "model.blind": Case(
        planted=of(lambda: Headed(flat(Function(lambda x: torch.tanh(x * 1e-9) + 1)))), healthy=of(zero_headed)
    ),
    "model.init_took_effect": Case(planted=of(lambda: normalised(0.2)), healthy=of(lambda: normalised(1.0))),
    "model.silent_fallback": (
        Case(planted=kernel("mamba_ssm", "conv1d"), healthy=kernel("auto", "torch")),
        Case(planted=of(lambda: Warns("no kernel: falling back to Conv1d")), healthy=of(lambda: Warns("a note"))),
    ),
    "model.differentiates_eig": Case(
        planted=of(lambda: Headed(Spectrum(vectors=True), width=3)),
        healthy=of(lambda: Headed(Spectrum(vectors=False), width=3)),
    ),
    "model.hostile_inputs": Case(planted=of(loudness(0.0)), healthy=of(loudness(1e-6))),
    "model.sanitisers": (
        Case(planted=of(bounded(0.1)), healthy=of(bounded(100.0))),
        Case(planted=of(reciprocal(clean=True)), healthy=of(reciprocal(clean=False))),
    ),
    "memory.activations": (
        Case(planted=step_of(100, "cuda"), healthy=step_of(60, "cuda")),
        Case(planted=step_of(9, "cuda", SMALL_CARD), healthy=step_of(7, "cuda", SMALL_CARD)),
        Case(planted=step_of(40, "cpu"), healthy=step_of(20, "cpu")),
    ),
}
