"""The whole state at once: before a checkpoint is written, and when something objects."""

from __future__ import annotations

import importlib
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from brainbrr_debug import NonFiniteStep, RunDir, Watch, read_capture
from brainbrr_debug.replay import replay_capture
from brainbrr_debug.subject import plain_step
from brainbrr_debug.target import resolve, trace

sys.path.insert(0, str(Path(__file__).parent))
late: Any = importlib.import_module("late_subjects")


def train(run_dir: Path, *, save_every: int, steps: int = 12, **options: Any) -> Watch:
    run = late.Overflowing().build(0, {})
    options = {"subject": "late_subjects:Overflowing", "state_period": 1000, **options}
    with Watch(run.model, run.optimizer, run_dir, **options) as watch:
        for step, batch in zip(range(steps), run.batches, strict=False):
            watch.begin([batch])
            plain_step(run)([batch], watch)
            if (step + 1) % save_every == 0:
                watch.checkpoint()
                torch.save(run.optimizer.state_dict(), watch.run_dir.checkpoints / "last.pt")
    return watch


def test_the_last_good_checkpoint_is_not_overwritten_and_is_named(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteStep) as caught:
        train(tmp_path / "r", save_every=2)
    finding = caught.value.finding
    assert (finding.check, finding.where, finding.step) == ("run.nonfinite", "checkpoint", late.BIRTH)
    assert str(caught.value).startswith(
        "after step 5, before a checkpoint: 2 tensors of parameters, buffers and optimizer state are not finite, "
        "first head.weight:exp_avg_sq; no snapshot"
    )
    last = tmp_path / "r" / "checkpoints" / "last.pt"
    assert str(caught.value).endswith(
        f"set snapshot_every, and the step that did it can be repeated; last checkpoint {last}"
    )
    assert caught.value.capture_path is None
    saved = torch.load(last, weights_only=True)["state"]
    assert all(torch.isfinite(x).all() for state in saved.values() for x in state.values())


def test_with_a_snapshot_the_step_that_did_it_is_captured(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteStep) as caught:
        train(tmp_path / "r", save_every=2, snapshot_every=4)
    captured = read_capture(caught.value.capture_path)
    assert captured.step == late.BIRTH and [step.step for step in captured.lead_in] == [4]
    origin = trace(resolve(str(caught.value.capture_path))).origin
    assert (origin.step, origin.phase, origin.kind) == (late.BIRTH, "optimizer", "inf")
    assert replay_capture(caught.value.capture_path, times=1).outcome == "failed again"


def test_a_snapshot_of_the_very_step_is_enough(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteStep) as caught:
        train(tmp_path / "r", save_every=2, snapshot_every=1)
    captured = read_capture(caught.value.capture_path)
    assert captured.step == late.BIRTH and captured.lead_in == ()
    assert replay_capture(caught.value.capture_path, times=1).outcome == "failed again"


def test_record_writes_the_finding_once_and_goes_on(tmp_path: Path) -> None:
    watch = train(tmp_path / "r", save_every=2, policy="record", snapshot_every=50)
    assert watch.counters["damaged_checkpoints"] == 4 and watch.counters["captures"] == 1
    found = [f for f in RunDir.open(tmp_path / "r").findings().items if f.where == "checkpoint"]
    assert [f.step for f in found] == [5, 11] and found[1].message.startswith("3 more of the same")


def test_a_healthy_state_is_silent_with_masks_and_before_the_first_step(tmp_path: Path) -> None:
    model = nn.Linear(2, 1)
    model.register_buffer("mask", torch.full((3, 3), -math.inf).triu(1))
    optimizer = torch.optim.AdamW(model.parameters())
    with Watch(model, optimizer, tmp_path / "r", state_period=3, snapshot_every=2) as watch:
        watch.checkpoint()
        for _ in range(8):
            watch.begin(torch.ones(2, 2), torch.ones(2, 1))
            optimizer.zero_grad()
            output = model(torch.ones(2, 2))
            loss = output.square().mean()
            loss.backward()
            if watch.check(loss, output):
                optimizer.step()
            watch.checkpoint()
    assert RunDir.open(tmp_path / "r").findings().items == () and watch.counters["unchecked"] == 0


def test_a_buffer_that_becomes_infinite_is_damage(tmp_path: Path) -> None:
    model = nn.BatchNorm1d(2)
    with Watch(model, torch.optim.SGD(model.parameters(), lr=0.1), tmp_path / "r") as watch:
        model.running_var.fill_(math.inf)
        with pytest.raises(NonFiniteStep, match=r"not finite, first running_var"):
            watch.checkpoint()


def test_a_trigger_looks_at_everything_at_once(tmp_path: Path) -> None:
    """What the turns have not come to is in the evidence of whatever stops the run."""
    model = nn.Linear(2, 1)
    model.unused = nn.Parameter(torch.ones(4))
    optimizer = torch.optim.AdamW(model.parameters())

    def run() -> None:
        with Watch(model, optimizer, tmp_path / "r", state_period=1000) as watch:
            for step in range(4):
                watch.begin(torch.ones(2, 2), None)
                output = model(torch.ones(2, 2))
                loss = output.square().mean() * (math.nan if step == 3 else 1)
                loss.backward()
                if step == 2:
                    model.unused.data[1] = math.inf
                if watch.check(loss, output):
                    optimizer.step()

    with pytest.raises(NonFiniteStep) as caught:
        run()
    assert caught.value.finding.where == "loss"
    assert caught.value.finding.evidence["state_nonfinite"] == ["unused"]
