"""Micro-batches, loss scaling, and what a step began with."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from brainbrr_debug import NonFiniteStep, RunDir, Watch, read_capture
from brainbrr_debug.checks.run import nonfinite
from brainbrr_debug.subject import Run, plain_step

sys.path.insert(0, str(Path(__file__).parent))
programs: Any = importlib.import_module("watch_programs")
Loop, Network = programs.Loop, programs.Network


def test_every_micro_batch_is_seen_and_captured(tmp_path: Path) -> None:
    torch.manual_seed(2)
    model = Network()
    optimizer = torch.optim.AdamW(model.parameters())
    batches = [((torch.randn(5, 4),), torch.zeros(5, 3)) for _ in range(9)]
    batches[7][0][0][4] = 0  # second micro-batch of step 2

    def train() -> None:
        with Watch(model, optimizer, tmp_path / "r", healthy_batches=2) as watch:
            for step in range(3):
                micro = batches[3 * step : 3 * step + 3]
                watch.begin(micro, step=step, identities=lambda: [[{"n": i} for i in range(5)]] * 3)
                plain_step(Run(model, optimizer, nn.functional.mse_loss, ()))(micro, watch)
                watch.end()

    with pytest.raises(NonFiniteStep) as caught:
        train()
    tie = caught.value.finding.evidence["degenerate"][0]
    assert (tie["micro_batch"], tie["sample"], tie["identity"]) == (1, 4, {"n": 4})
    captured = read_capture(caught.value.capture_path)
    assert len(captured.micro_batches) == 3 and len(captured.healthy_micro_batches) == 6
    assert torch.equal(captured.healthy_micro_batches[0][0][0], batches[3][0][0])  # the latest step first
    assert len(captured.expected["losses"]) == 3 and len(captured.identities) == 3


def test_micro_batches_may_be_added_one_by_one(tmp_path: Path) -> None:
    model = nn.Linear(2, 1)

    def train() -> None:
        with Watch(model, torch.optim.SGD(model.parameters(), lr=0.1), tmp_path / "r") as watch:
            for index, x in enumerate((torch.ones(3, 2), torch.full((3, 2), math.nan))):
                watch.add(x, None) if index else watch.begin(x, None)
                loss = model(x).sum()
                watch.forward(None, loss)
                loss.backward()
            watch.gradients()

    with pytest.raises(NonFiniteStep) as caught:
        train()
    assert len(read_capture(caught.value.capture_path).micro_batches) == 2
    assert caught.value.finding.evidence["inputs_nonfinite"][0]["micro_batch"] == 1
    assert caught.value.finding.evidence["logits"]["nan"] == 3  # through the hook alone


class Scaled:
    """A loop with a GradScaler on the CPU; `bad` steps have a gradient that overflows."""

    def __init__(self, tmp_path: Path, *, unscale: bool, **options: Any) -> None:
        torch.manual_seed(0)
        self.model = nn.Linear(4, 1)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
        self.unscale, self.path, self.options = unscale, tmp_path / "r", options
        self.norms: list[float] = []

    def run(self, steps: int, bad: Callable[[int], bool]) -> Watch:
        with Watch(self.model, self.optimizer, self.path, scaler=self.scaler, **self.options) as watch:
            for step in range(steps):
                x = torch.ones(2, 4)
                watch.begin(x, None)
                self.optimizer.zero_grad()
                loss = self.model(x).sum()
                self.scaler.scale(loss).backward()
                if bad(step):
                    self.model.weight.grad[0, 0] = math.inf
                if self.unscale:
                    self.scaler.unscale_(self.optimizer)
                if watch.check(loss):
                    self.norms.append(float(watch.gradient_norm))
                    self.scaler.step(self.optimizer)
                self.scaler.update()
        return watch


@pytest.mark.parametrize("unscale", [True, False])
def test_a_skipped_scaler_step_is_no_incident_until_it_repeats(tmp_path: Path, unscale: bool) -> None:
    scaled = Scaled(tmp_path, unscale=unscale, scaler_patience=3)
    watch = scaled.run(12, lambda step: step in (0, 1, 2, 6))
    assert watch.counters["skipped_by_scaler"] == 4 and watch.counters["incidents"] == 0
    assert scaled.norms[-1] == pytest.approx(20**0.5)  # of the unscaled gradient: eight twos and one of two
    run = RunDir.open(tmp_path / "r")
    assert run.findings().items == () and nonfinite(run.readings().items) == []
    scaled = Scaled(tmp_path / "again", unscale=unscale, scaler_patience=3)
    with pytest.raises(NonFiniteStep) as caught:
        scaled.run(12, lambda step: step >= 5)
    assert caught.value.finding.step == 8


def test_an_overflow_at_a_scale_of_one_is_an_incident_at_once(tmp_path: Path) -> None:
    scaled = Scaled(tmp_path, unscale=True)
    scaled.scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
    with pytest.raises(NonFiniteStep):
        scaled.run(3, lambda step: step == 1)


def test_captured_buffers_are_those_of_the_start(tmp_path: Path) -> None:
    loop = Loop(run_dir=tmp_path / "r")
    seen: dict[str, torch.Tensor] = {}

    def spoil(step: int, scene: dict[str, Any]) -> None:
        programs.spoil_spectrum(step, scene)
        if step == 3 and "output" not in scene:
            seen.update({name: b.clone() for name, b in loop.model.named_buffers()})

    with pytest.raises(NonFiniteStep) as caught:
        loop.run(10, spoil)
    state = read_capture(caught.value.capture_path).model_state
    assert len(seen) == 3 and all(torch.equal(state[name], value) for name, value in seen.items())
    assert not torch.equal(loop.model.norm.running_mean, seen["norm.running_mean"])


def test_a_batch_that_was_written_into_is_said_so(tmp_path: Path) -> None:
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(x.mul_(2))

    loop = Loop(model=InPlace(), run_dir=tmp_path / "r")
    with pytest.raises(NonFiniteStep) as caught:
        loop.run(10, programs.spoil_gradient)
    assert caught.value.finding.evidence["batch_modified_in_place"] is True
    assert read_capture(caught.value.capture_path).healthy_micro_batches is None
