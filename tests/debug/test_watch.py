"""What stops a step, and what its finding and capture say."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
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


def test_a_healthy_run_is_silent_and_leaves_its_readings(tmp_path: Path) -> None:
    loop = Loop(run_dir=tmp_path / "r")
    loop.run(30)
    run = RunDir.open(tmp_path / "r")
    assert run.findings().items == () and run.list_captures() == []
    readings = run.readings().items
    assert {r.quantity for r in readings} == {"loss", "output.sum", "gradient.norm", "learning_rate", "eigengap"}
    assert {r.step for r in readings} == set(range(30))
    assert nonfinite(readings) == []
    assert loop.watch.counters["steps"] == 30 and loop.watch.counters["incidents"] == 0


@pytest.mark.parametrize(
    ("spoil", "where", "also"),
    [
        (programs.spoil_logits, "logits", ["logits", "loss", "gradient"]),
        (programs.spoil_hidden_logits, "logits", ["logits"]),
        (programs.spoil_loss, "loss", ["loss"]),
        (programs.spoil_gradient, "gradient", ["gradient"]),
        (programs.spoil_spectrum, "gradient", ["gradient"]),
    ],
)
def test_every_planted_failure_stops_before_the_update(
    tmp_path: Path, spoil: Callable[[int, dict[str, Any]], None], where: str, also: list[str]
) -> None:
    loop = Loop(run_dir=tmp_path / "r", subject="here:thing", seed=9)
    with pytest.raises(NonFiniteStep) as caught:
        loop.run(10, spoil)
    finding = caught.value.finding
    assert (finding.check, finding.severity, finding.where, finding.step) == ("run.nonfinite", Severity.P0, where, 3)
    assert finding.evidence["nonfinite"] == also
    assert all(torch.equal(a, b) for a, b in zip(loop.before, loop.weights(), strict=True))
    assert caught.value.capture_path == tmp_path / "r" / "captures" / "000003.h5"
    assert str(caught.value).startswith("step 3: ")
    assert str(caught.value).endswith(f"next: brainbrr-debug bisect {caught.value.capture_path}")
    assert RunDir.open(tmp_path / "r").findings().items[-1].step == 3
    captured = read_capture(caught.value.capture_path)
    assert (captured.step, captured.subject, captured.seed) == (3, "here:thing", 9)
    assert captured.healthy_micro_batches is not None and captured.readings[-1].step == 3
    for name, value in loop.model.state_dict().items():
        if not name.startswith("norm."):
            assert torch.equal(captured.model_state[name], value)


def test_the_finding_names_gap_site_sample_identity_and_the_partition_of_gradients(tmp_path: Path) -> None:
    loop = Loop(run_dir=tmp_path / "r")
    with pytest.raises(NonFiniteStep) as caught:
        loop.run(10, programs.spoil_spectrum)
    evidence = caught.value.finding.evidence
    assert evidence["gradient_nonfinite"] == ["edges.weight"]
    assert evidence["gradient_finite"] == ["norm.weight", "norm.bias", "head.weight", "head.bias"]
    assert evidence["eigengap"] == {"value": 0.0, "site": "pe", "sample": 2}
    tie = evidence["degenerate"][0]
    assert (tie["site"], tie["sample"], tie["identity"], tie["exact_gap"]) == ("pe", 2, {"row": 2}, 0.0)
    assert tie["op"] == "torch.linalg.eigh" and Path(tie["location"].rpartition(":")[0]).name == "watch_programs.py"
    assert "gradients of 1 of 5 parameters, under edges" in str(caught.value)
    assert "smallest relative eigengap 0 in pe (torch.linalg.eigh, sample 2)" in str(caught.value)


def test_the_leading_indicator_is_a_finding_that_does_not_stop(tmp_path: Path) -> None:
    loop = Loop(run_dir=tmp_path / "r", eigengap=1e9)
    loop.run(3)
    found = RunDir.open(tmp_path / "r").findings().items
    assert [(f.check, f.severity, f.where) for f in found] == [("run.eigengap", Severity.P1, "pe")] * 3
    assert "at or below 1e+09, and a gradient flows through the vectors" in found[0].message
    assert found[0].evidence["degenerate"][0]["identity"] == {"row": found[0].evidence["sample"]}


def test_vectors_without_a_gradient_are_read_but_no_finding(tmp_path: Path) -> None:
    class Detached(Network):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            a = self.edges(x).reshape(-1, 4, 4)
            return self.head(self.norm(self.pe((a + a.mT).detach())))

    loop = Loop(model=Detached(), run_dir=tmp_path / "r", eigengap=1e9)
    loop.run(10, programs.spoil_spectrum)
    run = RunDir.open(tmp_path / "r")
    assert run.findings().items == ()
    assert [r.value for r in run.readings().items if r.quantity == "eigengap.detached" and r.step == 3] == [0.0]


def test_eigenvalues_alone_do_no_harm(tmp_path: Path) -> None:
    class Values(Network):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            a = self.edges(x).reshape(-1, 4, 4)
            return self.head(torch.linalg.eigh(a + a.mT)[0].repeat(1, 2))

    loop = Loop(model=Values(), run_dir=tmp_path / "r", eigengap=1e9)
    loop.run(5, programs.spoil_spectrum)
    assert RunDir.open(tmp_path / "r").findings().items == ()


def test_a_gap_that_only_rounding_made_small_is_no_finding(tmp_path: Path) -> None:
    class Narrow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shift = nn.Parameter(torch.zeros(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            a = torch.diag(torch.tensor([1.0, 1.0 + 2**-20, 2.0])) + self.shift
            return torch.linalg.eigh(a)[1].abs().sum() * torch.ones(5, 3) + x.sum() * 0

    for threshold, expected in ((4.7e-7, 0), (4.8e-7, 1)):  # the exact gap is 2**-20 / 2
        loop = Loop(model=Narrow(), run_dir=tmp_path / str(threshold), eigengap=threshold)
        loop.run(1)
        assert len(RunDir.open(tmp_path / str(threshold)).findings().items) == expected
