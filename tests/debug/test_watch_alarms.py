"""What must alarm, and what must not."""

from __future__ import annotations

import importlib
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from brainbrr_debug import NonFiniteStep, RunDir, read_capture
from brainbrr_debug.checks.run import nonfinite
from brainbrr_debug.records import Severity

sys.path.insert(0, str(Path(__file__).parent))
programs: Any = importlib.import_module("watch_programs")
Loop, Network = programs.Loop, programs.Network


def test_a_mask_of_infinities_is_noted_once_and_harmless(tmp_path: Path) -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(x).masked_fill(torch.tensor([False, True, False]), -math.inf)

    def spoil(step: int, scene: dict[str, Any]) -> None:
        if "loss" not in scene and "output" in scene:
            scene["target"] = torch.zeros(5, 3)
            scene["output"] = scene["output"].softmax(-1)

    loop = Loop(model=Masked(), run_dir=tmp_path / "r")
    loop.run(4, spoil)
    found = RunDir.open(tmp_path / "r").findings().items
    assert [(f.check, f.severity) for f in found] == [("run.infinite_output", Severity.P2)] * 2
    assert found[1].message.startswith("3 more of the same")


def test_finite_values_that_overflow_a_sum_are_cleared(tmp_path: Path) -> None:
    class Large(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(x)

    def spoil(step: int, scene: dict[str, Any]) -> None:
        if "output" in scene and "loss" not in scene:
            scene["output"] = scene["output"] * 0 + 3e38 * torch.tensor([1.0, 1.0, -1.0])
        if "loss" in scene and "model" not in scene:
            scene["loss"] = scene["output"][0, 0] * 1e-38

    loop = Loop(model=Large(), run_dir=tmp_path / "r")
    loop.run(2, spoil)
    run = RunDir.open(tmp_path / "r")
    assert run.findings().items == ()
    assert nonfinite(run.readings().items) == []


def test_finite_gradients_whose_norm_overflows_are_no_incident_but_a_finding(tmp_path: Path) -> None:
    def spoil(step: int, scene: dict[str, Any]) -> None:
        if "model" in scene:
            scene["model"].head.bias.grad.fill_(1e30)

    loop = Loop(run_dir=tmp_path / "r")
    loop.run(1, spoil)
    assert float(loop.watch.gradient_norm) == pytest.approx(3**0.5 * 1e30)
    finding = RunDir.open(tmp_path / "r").findings().items[0]
    assert (finding.check, finding.severity) == ("run.gradient_overflow", Severity.P1)


def test_bad_data_is_named_with_its_index(tmp_path: Path) -> None:
    def spoil(step: int, scene: dict[str, Any]) -> None:
        if step == 2 and "output" not in scene:
            scene["target"][4, 1] = math.nan

    loop = Loop(run_dir=tmp_path / "r")
    with pytest.raises(NonFiniteStep, match=r"the target was not finite on arrival, first at \[4, 1\]"):
        loop.run(10, spoil)


def test_a_poisoned_parameter_that_nothing_uses_is_found_within_the_period(tmp_path: Path) -> None:
    model = Network()
    model.unused = nn.Parameter(torch.zeros(50))
    loop = Loop(model=model, run_dir=tmp_path / "r", state_period=10)

    def spoil(step: int, scene: dict[str, Any]) -> None:
        if step == 12:
            model.unused.data[3] = math.nan

    with pytest.raises(NonFiniteStep, match="parameters or optimizer state are not finite") as caught:
        loop.run(40, spoil)
    assert 12 <= caught.value.finding.step < 32
    assert caught.value.finding.evidence["state_nonfinite"] == ["unused"]


def test_an_exception_that_a_nan_caused_is_an_incident(tmp_path: Path) -> None:
    def spoil(step: int, scene: dict[str, Any]) -> None:
        if step == 3 and "output" not in scene:
            scene["x"][1, 1] = math.nan

    loop = Loop(run_dir=tmp_path / "r")
    with pytest.raises(NonFiniteStep, match=r"step 3: (_LinAlgError|LinAlgError): linalg.eigh") as caught:
        loop.run(10, spoil)
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert caught.value.finding.evidence["inputs_nonfinite"][0]["first"] == [1, 1]
    assert read_capture(caught.value.capture_path).expected["losses"] == []


def test_other_exceptions_pass_untouched(tmp_path: Path) -> None:
    def spoil(step: int, scene: dict[str, Any]) -> None:
        if step == 3:
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        Loop(run_dir=tmp_path / "r").run(10, spoil)
    assert RunDir.open(tmp_path / "r").findings().items == ()


def test_the_sentinel_names_the_first_module(tmp_path: Path) -> None:
    class Chain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.c(self.b(self.a(x)))

    def spoil(step: int, scene: dict[str, Any]) -> None:
        if step == 3 and "output" not in scene:
            scene["x"][1, 1] = math.nan

    loop = Loop(model=Chain(), run_dir=tmp_path / "r", sentinel=True)
    with pytest.raises(NonFiniteStep) as caught:
        loop.run(10, spoil)
    assert caught.value.finding.evidence["first_module"] == "a"


def test_a_mask_that_is_built_on_first_use_is_a_mask_and_what_overflows_later_is_damage(tmp_path: Path) -> None:
    class Lazy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(4, 3)
            self.register_buffer("mask", None)
            self.register_buffer("largest", torch.zeros(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.mask is None:
                self.mask = torch.tensor([0.0, -math.inf, 0.0])
            return (self.head(x) + self.mask).softmax(-1)

    def spoil(step: int, scene: dict[str, Any]) -> None:
        if step == 20:
            loop.model.largest.fill_(math.inf)

    loop = Loop(model=Lazy(), run_dir=tmp_path / "r", state_period=4)
    with pytest.raises(NonFiniteStep, match="parameters or optimizer state are not finite") as caught:
        loop.run(40, spoil)
    assert 20 <= caught.value.finding.step <= 28
    assert caught.value.finding.evidence["state_nonfinite"] == ["largest"]
    assert len(RunDir.open(tmp_path / "r").findings().items) == 1
