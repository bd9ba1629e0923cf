"""Stop, skip, record, sanitize; and nowhere to write to."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from brainbrr_debug import NonFiniteStep, RunDir, Watch, read_capture

sys.path.insert(0, str(Path(__file__).parent))
programs: Any = importlib.import_module("watch_programs")
Loop, Network = programs.Loop, programs.Network


def test_skip_drops_the_update_counts_and_goes_on(tmp_path: Path) -> None:
    loop = Loop(run_dir=tmp_path / "r", policy="skip")
    loop.run(10, programs.spoil_often)
    assert all(torch.isfinite(w).all() for w in loop.weights())
    assert loop.watch.counters["skipped"] == 3 and loop.watch.counters["captures"] == 1
    found = RunDir.open(tmp_path / "r").findings().items
    assert [f.step for f in found] == [3, 6]
    assert found[1].message.startswith("2 more of the same, the last in step 6: ")


def test_skip_has_a_limit(tmp_path: Path) -> None:
    loop = Loop(run_dir=tmp_path / "r", policy="skip", max_skipped=2)
    with pytest.raises(NonFiniteStep) as caught:
        loop.run(10, programs.spoil_often)
    assert caught.value.finding.step == 6 and loop.watch.counters["skipped"] == 2
    assert caught.value.capture_path.name == "000006.h5"


@pytest.mark.parametrize("policy", ["record", "sanitize"])
def test_record_goes_on_with_one_capture_for_each_kind_of_incident(tmp_path: Path, policy: Any) -> None:
    class Sanitised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(x)

    def spoil(step: int, scene: dict[str, Any]) -> None:
        programs.spoil_gradient(step, scene)
        if "loss" in scene and "model" not in scene:
            scene["loss"] = torch.nan_to_num(scene["output"]).square().mean()

    loop = Loop(model=Sanitised(), run_dir=tmp_path / "r", policy=policy)
    loop.run(10, spoil)
    run = RunDir.open(tmp_path / "r")
    assert [p.name for p in run.list_captures()] == ["000003.h5", "000004.h5"]
    assert [(f.where, f.step) for f in run.findings().items] == [("gradient", 3), ("logits", 4), ("logits", 9)]
    assert loop.watch.counters["incidents"] == 7
    state = read_capture(run.list_captures()[1]).finding.evidence["state_nonfinite"]
    assert "head.bias" in state and any(name.startswith("head.bias:exp_avg") for name in state)


def test_an_unknown_policy_is_refused() -> None:
    model = nn.Linear(1, 1)
    with pytest.raises(ValueError, match="policy is 'pause'; expected stop, skip, record or sanitize"):
        Watch(model, torch.optim.SGD(model.parameters()), policy="pause")  # type: ignore[arg-type]


def test_without_a_run_directory_nothing_is_written_and_the_step_still_stops() -> None:
    with pytest.raises(NonFiniteStep) as caught:
        Loop().run(10, programs.spoil_gradient)
    assert caught.value.capture_path is None and "next:" not in str(caught.value)


def test_a_capture_that_cannot_be_written_does_not_hide_the_finding(tmp_path: Path) -> None:
    loop = Loop(run_dir=tmp_path / "r", config={"thing": object()})
    with pytest.raises(TypeError, match="object has no JSON form"):  # said at once, not at the incident
        loop.run(10, programs.spoil_gradient)
    loop = Loop(run_dir=tmp_path / "s")
    (tmp_path / "s" / "captures").mkdir(parents=True)
    (tmp_path / "s" / "captures").rmdir()
    (tmp_path / "s").mkdir(exist_ok=True)

    def spoil(step: int, scene: dict[str, Any]) -> None:
        programs.spoil_gradient(step, scene)
        if step == 3 and "output" not in scene:
            (tmp_path / "s" / "captures").rmdir()
            (tmp_path / "s" / "captures").touch()

    with pytest.raises(NonFiniteStep, match=r"the gradient is not finite.*; no capture: .*cannot be written") as caught:
        loop.run(10, spoil)
    assert caught.value.capture_path is None
