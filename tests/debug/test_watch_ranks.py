"""Two processes that train one model: they stop together, skip together, and know where it was born."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from brainbrr_debug import RunDir, Watch, read_capture
from brainbrr_debug.ranks import Ranks

HERE = Path(__file__).parent
SCENARIOS = ("healthy", "stop", "loss", "skip", "quarantine")


def train(folder: Path, *scenarios: str) -> tuple[list[int], list[str]]:
    """Exit codes and errors of two processes that run the scenarios in `folder`."""
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent.parent), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(HERE / "rank_program.py")]
    processes = [
        subprocess.Popen(
            [*command, str(rank), str(folder), *scenarios], env=environment, stderr=subprocess.PIPE, text=True
        )
        for rank in (0, 1)
    ]
    errors = [process.communicate(timeout=120)[1] for process in processes]
    return [process.returncode for process in processes], errors


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes left behind that ran every scenario."""
    folder = tmp_path_factory.mktemp("ranks")
    codes, errors = train(folder, *SCENARIOS)
    assert codes == [0, 0], errors
    return folder


@pytest.fixture
def seen(folder: Path) -> Any:
    """What each rank saw of a scenario."""
    found = [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]
    return lambda scenario: (found[0][scenario], found[1][scenario])


@pytest.mark.slow
def test_a_healthy_run_is_silent_on_every_rank(folder: Path, seen: Any) -> None:
    for rank, run_dir in zip(seen("healthy"), (folder / "healthy", folder / "healthy" / "rank-0001"), strict=True):
        assert rank["stopped"] is None and rank["updates"] == 6 and rank["counters"]["incidents"] == 0
        run = RunDir.open(run_dir)
        assert run.findings().items == () and len({r.step for r in run.readings().items}) == 6


@pytest.mark.slow
@pytest.mark.parametrize("scenario", ["stop", "loss", "quarantine"])
def test_all_ranks_stop_in_the_same_step_and_name_the_one_it_was_born_on(
    folder: Path, seen: Any, scenario: str
) -> None:
    zero, one = seen(scenario)
    assert zero["stopped"]["step"] == one["stopped"]["step"] == 3
    assert zero["stopped"]["evidence"]["born_on"] == one["stopped"]["evidence"]["born_on"] == [1]
    assert ("not" if scenario == "loss" else "born") + " on rank 1" in zero["stopped"]["message"]
    assert zero["capture"] is None
    assert zero["stopped"]["message"].endswith(f"next: brainbrr-debug bisect {folder / scenario / 'rank-0001'}")
    assert one["capture"] == str(folder / scenario / "rank-0001" / "captures" / "000003.h5")
    assert read_capture(one["capture"]).finding.evidence["rank"] == 1
    assert zero["weights"] == one["weights"]


@pytest.mark.slow
def test_a_gradient_that_only_one_rank_spoilt_shows_on_both(seen: Any) -> None:
    zero, one = seen("stop")
    assert zero["stopped"]["evidence"]["nonfinite"] == one["stopped"]["evidence"]["nonfinite"] == ["gradient"]
    zero, _ = seen("loss")
    assert zero["stopped"]["evidence"]["nonfinite"] == []  # an infinite loss with finite gradients: nothing to see here
    assert zero["stopped"]["message"].startswith("step 3: everything is finite on rank 0, not on rank 1")


@pytest.mark.slow
def test_all_ranks_skip_the_same_step(seen: Any) -> None:
    zero, one = seen("skip")
    assert zero["updates"] == one["updates"] == 5 and zero["weights"] == one["weights"]
    assert zero["counters"]["skipped"] == one["counters"]["skipped"] == 1
    assert (zero["counters"]["captures"], one["counters"]["captures"]) == (0, 1)


@pytest.mark.slow
def test_hooks_are_gone_on_every_rank(seen: Any) -> None:
    assert all(rank["hooks"] == 0 for scenario in SCENARIOS for rank in seen(scenario))


@pytest.mark.slow
def test_an_exception_on_one_rank_ends_the_others_as_it_does_unwatched(tmp_path: Path) -> None:
    codes, errors = train(tmp_path, "died")
    assert codes == [1, 1]
    assert "KeyError: 'mine'" in errors[1] and "NonFiniteStep" not in errors[0] + errors[1]


def test_without_others_nothing_is_hooked_and_the_folder_is_the_one_given(tmp_path: Path) -> None:
    model = nn.Linear(1, 1)
    ranks = Ranks(model)
    assert (ranks.world, ranks.rank) == (1, 0)
    assert ranks.directory(None) is None and ranks.directory(tmp_path).path == tmp_path
    alarm = torch.ones(())
    assert ranks.loudest(alarm) is alarm and ranks.agree(None, 0) is None
    with Watch(model, torch.optim.SGD(model.parameters())):
        assert not any(p._backward_hooks for p in model.parameters())
