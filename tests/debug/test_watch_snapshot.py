"""Damage that the optimizer's own step did: found a step later, captured from the last snapshot."""

from __future__ import annotations

import dataclasses
import importlib
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from brainbrr_debug import NonFiniteStep, RunDir, Watch, read_capture
from brainbrr_debug.bisect import bisect
from brainbrr_debug.forward import forwarded
from brainbrr_debug.replay import replay_capture
from brainbrr_debug.subject import plain_step
from brainbrr_debug.target import resolve, trace

sys.path.insert(0, str(Path(__file__).parent))
late: Any = importlib.import_module("late_subjects")
BIRTH = late.BIRTH


def train(name: str, steps: int, run_dir: Path | None, *, rate: Any = None, spoil: Any = None, **options: Any) -> Watch:
    """A loop with a draw of its own between steps and, with `rate`, a schedule that the Subject knows nothing of."""
    run = getattr(late, name)().build(0, {})
    options = {"subject": f"late_subjects:{name}", **options}
    with Watch(run.model, run.optimizer, run_dir, **options) as watch:
        for step, batch in zip(range(steps), run.batches, strict=False):
            torch.rand(3)
            if rate is not None:
                run.optimizer.param_groups[0]["lr"] = rate(step)
            if spoil is not None:
                spoil(step, batch, run)
            watch.begin([batch], identities=[[{"row": i} for i in range(6)]])
            plain_step(run)([batch], watch)
            watch.end()
    return watch


def stopped(*arguments: Any, **options: Any) -> NonFiniteStep:
    with pytest.raises(NonFiniteStep) as caught:
        train(*arguments, **options)
    return caught.value


def test_the_capture_begins_at_the_snapshot_and_leads_to_the_captured_step(tmp_path: Path) -> None:
    stop = stopped("Vanishing", 20, tmp_path / "r", snapshot_every=4)
    assert stop.finding.step == BIRTH + 1  # the next step's loss shows it
    assert stop.finding.evidence["snapshot"] == 4
    assert "captured from the snapshot of step 4 with the 2 steps since" in str(stop)
    captured = read_capture(stop.capture_path)
    assert [step.step for step in captured.lead_in] == [4, 5] and captured.step == 6
    assert captured.lead_in[0].identities == (tuple({"row": i} for i in range(6)),)
    assert all(torch.isfinite(x).all() for x in captured.model_state.values())


@pytest.mark.parametrize("every", [1, 3, 50])
def test_replay_runs_forward_and_repeats_the_captured_step_bit_for_bit(tmp_path: Path, every: int) -> None:
    stop = stopped("Vanishing", 20, tmp_path / "r", snapshot_every=every, rate=lambda step: 0.01 / (step + 1))
    replayed = replay_capture(stop.capture_path, times=2)
    assert (replayed.outcome, replayed.reality.reproduced, replayed.reality.exact) == ("failed again", 2, True)
    assert replayed.reality.mismatches == ()


def test_origin_and_verdict_name_the_optimizer_in_the_step_of_birth(tmp_path: Path) -> None:
    stop = stopped("Vanishing", 20, tmp_path / "r", snapshot_every=4)
    origin = trace(resolve(str(stop.capture_path))).origin
    assert (origin.step, origin.phase, origin.module, origin.kind) == (BIRTH, "optimizer", "<optimizer>", "nan")
    verdict = bisect(stop.capture_path)
    assert (verdict.step, verdict.cause, verdict.origin.phase) == (BIRTH, "batch", "optimizer")  # any other passes


def test_damage_in_the_state_alone_is_found_in_its_turn_and_traced_back(tmp_path: Path) -> None:
    stop = stopped("Overflowing", 60, tmp_path / "r", snapshot_every=30, state_period=10)
    assert BIRTH < stop.finding.step <= BIRTH + 20 and stop.finding.where == "state"
    assert "head.weight:exp_avg_sq" in stop.finding.evidence["state_nonfinite"]
    origin = trace(resolve(str(stop.capture_path))).origin
    assert (origin.step, origin.phase, origin.kind) == (BIRTH, "optimizer", "inf")
    assert replay_capture(stop.capture_path, times=1).outcome == "failed again"


def test_a_snapshot_looks_before_it_copies(tmp_path: Path) -> None:
    stop = stopped("Overflowing", 60, tmp_path / "r", snapshot_every=8, state_period=1000)
    assert stop.finding.step == 8 and stop.finding.evidence["snapshot"] == 0
    assert len(read_capture(stop.capture_path).lead_in) == 8


def test_a_schedule_of_the_loop_is_repeated(tmp_path: Path) -> None:
    def rate(step: int) -> float:
        return math.inf if step == BIRTH else 0.01

    stop = stopped("Overflowing", 20, tmp_path / "r", snapshot_every=50, rate=rate)
    content = read_capture(stop.capture_path)
    assert [step.groups[0]["lr"] for step in content.lead_in] == [0.01] * BIRTH + [math.inf]
    found = forwarded(content, late.Overflowing())
    assert found.step == BIRTH and found.optimizer_state["param_groups"][0]["lr"] == math.inf


def test_a_dropped_update_stays_dropped_on_the_way(tmp_path: Path) -> None:
    def spoil(step: int, batch: Any, run: Any) -> None:
        if step == 2:
            batch[1][0] = math.nan

    stop = stopped("Vanishing", 20, tmp_path / "r", snapshot_every=50, policy="skip", max_skipped=3, spoil=spoil)
    content = read_capture(stop.capture_path)
    assert [step.updated for step in content.lead_in] == [step not in (2, 6, 7, 8) for step in range(content.step)]
    assert replay_capture(stop.capture_path, times=1).reality.reproduced == 1
    assert forwarded(content, late.Vanishing()).step == BIRTH


def test_without_a_snapshot_the_finding_says_what_to_set_and_what_is_left(tmp_path: Path) -> None:
    stop = stopped("Vanishing", 20, tmp_path / "r")
    assert "no snapshot to run forward from: set snapshot_every" in str(stop)
    assert stop.finding.evidence["snapshot"] is None and stop.finding.evidence["checkpoint"] is None
    assert read_capture(stop.capture_path).lead_in == ()
    for name in ("best.pt", "last.pt", ".last.pt.1.tmp"):
        (RunDir.at(tmp_path / "s").checkpoints / name).touch()
    stop = stopped("Vanishing", 20, tmp_path / "s")
    assert f"last checkpoint {tmp_path / 's' / 'checkpoints' / 'last.pt'}" in str(stop)


def test_without_a_run_directory_no_capture_is_promised() -> None:
    stop = stopped("Vanishing", 20, None, snapshot_every=4)
    assert stop.capture_path is None and str(stop).endswith("no run directory to write a capture to")


def test_a_batch_that_was_written_into_makes_the_way_back_useless_and_is_named(tmp_path: Path) -> None:
    first: list[torch.Tensor] = []

    def spoil(step: int, batch: Any, run: Any) -> None:
        first.append(batch[0][0])
        if step == 4:
            first[3].add_(1)

    stop = stopped("Vanishing", 20, tmp_path / "r", snapshot_every=50, spoil=spoil)
    assert "the batch of step 3 was written into, so nothing can run forward from step 0" in str(stop)
    assert read_capture(stop.capture_path).lead_in == ()


def test_a_failure_born_in_its_own_step_needs_no_snapshot(tmp_path: Path) -> None:
    def spoil(step: int, batch: Any, run: Any) -> None:
        if step == 3:
            batch[1][0] = math.nan

    stop = stopped("Vanishing", 20, tmp_path / "r", snapshot_every=2, spoil=spoil)
    assert read_capture(stop.capture_path).lead_in == () and "snapshot" not in stop.finding.evidence


def test_a_healthy_run_with_snapshots_is_silent_and_the_same_to_the_bit(tmp_path: Path) -> None:
    ends = []
    for every in (0, 2):
        run = late.Vanishing().build(0, {})
        with Watch(run.model, run.optimizer, tmp_path / str(every), snapshot_every=every) as watch:
            for _, batch in zip(range(BIRTH), run.batches, strict=False):
                watch.begin([batch])
                plain_step(run)([batch], watch)
        assert RunDir.open(tmp_path / str(every)).findings().items == ()
        ends.append([p.detach().clone() for p in run.model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


def test_nothing_is_kept_beyond_the_interval(tmp_path: Path) -> None:
    """Under "record" the damage stays; the steps since the last healthy snapshot must not pile up."""
    watch = train("Vanishing", 40, tmp_path / "r", snapshot_every=4, policy="record")
    captures = [read_capture(path) for path in RunDir.open(tmp_path / "r").list_captures()]
    assert max(len(content.lead_in) for content in captures) <= 5
    assert watch._judge.trail.lead() is None  # and after the end nothing


def test_a_lead_in_survives_the_file(tmp_path: Path) -> None:
    stop = stopped("Vanishing", 20, tmp_path / "r", snapshot_every=4)
    a, b = (read_capture(stop.capture_path).lead_in[1] for _ in range(2))
    assert torch.equal(a.micro_batches[0][0][0], b.micro_batches[0][0][0]) and a.groups == b.groups
    assert torch.equal(a.rng.cpu, b.rng.cpu) and a.rng.python == b.rng.python
    content = dataclasses.replace(read_capture(stop.capture_path), lead_in=())
    assert forwarded(content, late.Vanishing()) is content


def test_a_negative_interval_is_refused() -> None:
    model = nn.Linear(1, 1)
    with pytest.raises(ValueError, match="snapshot_every is -1; expected a number of steps, or 0 for no snapshots"):
        Watch(model, torch.optim.SGD(model.parameters()), snapshot_every=-1)
