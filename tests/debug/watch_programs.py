"""A small network whose encoding ties where a sample is zero, a bare loop that watches it, and ways to spoil a step."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from brainbrr_debug import Watch


class Spectral(nn.Module):
    def forward(self, a: torch.Tensor) -> torch.Tensor:
        return torch.linalg.eigh(a)[1][..., :2].abs().flatten(1)


class Network(nn.Module):
    """(B, 4) -> (B, 3); a sample of zeros gives a zero matrix, so a repeated eigenvalue."""

    def __init__(self) -> None:
        super().__init__()
        self.edges = nn.Linear(4, 16, bias=False)
        self.pe = Spectral()
        self.norm = nn.BatchNorm1d(8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = self.edges(x).reshape(-1, 4, 4)
        return self.head(self.norm(self.pe(a + a.mT)))


class Loop:
    """A bare training loop; `spoil` may change inputs, output, loss and gradients of a step."""

    def __init__(self, *, model: nn.Module | None = None, **options: Any) -> None:
        torch.manual_seed(1)
        self.model = Network() if model is None else model
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-2)
        self.options = options
        self.watch: Watch | None = None

    def weights(self) -> list[torch.Tensor]:
        return [p.detach().clone() for p in self.model.parameters()]

    def run(self, steps: int, spoil: Callable[[int, dict[str, Any]], None] = lambda step, scene: None) -> None:
        generator = torch.Generator().manual_seed(5)
        with Watch(self.model, self.optimizer, **self.options) as self.watch:
            for step in range(steps):
                scene: dict[str, Any] = {"x": torch.randn(5, 4, generator=generator), "target": torch.zeros(5, 3)}
                spoil(step, scene)
                names = [[{"row": i} for i in range(5)]]
                self.watch.begin(scene["x"], scene["target"], identities=names)
                self.optimizer.zero_grad()
                output = self.model(scene["x"])
                scene["output"] = output
                spoil(step, scene)
                loss = (scene["output"] - scene["target"]).square().mean()
                scene["loss"] = loss
                spoil(step, scene)
                scene["loss"].backward()
                scene["model"] = self.model
                spoil(step, scene)
                self.before = self.weights()
                if self.watch.check(scene["loss"], scene["output"]):
                    self.optimizer.step()


def spoil_logits(step: int, scene: dict[str, Any]) -> None:
    if step == 3 and "output" in scene and "loss" not in scene:
        scene["output"] = scene["output"] * torch.tensor([1.0, 1.0, math.nan])


def spoil_hidden_logits(step: int, scene: dict[str, Any]) -> None:
    """Logits with NaN behind a sanitiser: the loss stays finite."""
    if step == 3 and "output" in scene and "loss" not in scene:
        scene["output"] = scene["output"] + torch.tensor([0.0, math.nan, 0.0])
    if step == 3 and "loss" in scene:
        scene["loss"] = torch.nan_to_num(scene["output"]).square().mean()


def spoil_loss(step: int, scene: dict[str, Any]) -> None:
    if step == 3 and "loss" in scene and "model" not in scene:
        scene["loss"] = scene["loss"] + math.inf


def spoil_gradient(step: int, scene: dict[str, Any]) -> None:
    if step == 3 and "model" in scene:
        scene["model"].head.bias.grad[1] = math.nan


def spoil_spectrum(step: int, scene: dict[str, Any]) -> None:
    if step == 3 and "output" not in scene:
        scene["x"][2] = 0


def spoil_often(step: int, scene: dict[str, Any]) -> None:
    if step in (3, 5, 6) and "model" in scene:
        scene["model"].head.bias.grad[1] = math.nan


def hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in model.modules())


def live_tensors() -> Iterator[torch.Tensor]:
    return (o for o in gc.get_objects() if issubclass(type(o), torch.Tensor))
