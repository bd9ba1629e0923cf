"""What a watch leaves behind in the program: nothing."""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from brainbrr_debug import NonFiniteStep, RunDir, Watch

sys.path.insert(0, str(Path(__file__).parent))
programs: Any = importlib.import_module("watch_programs")
Loop, Network = programs.Loop, programs.Network
EIGH = torch.linalg.eigh


@pytest.mark.parametrize("spoil", [lambda step, scene: None, programs.spoil_gradient])
def test_hooks_and_replacements_are_gone_afterwards(spoil: Any) -> None:
    loop = Loop(sentinel=True)
    inside: list[Any] = []

    def look(step: int, scene: dict[str, Any]) -> None:
        inside.append((programs.hooks(loop.model), torch.linalg.eigh is EIGH))
        spoil(step, scene)

    with contextlib.suppress(NonFiniteStep):
        loop.run(5, look)
    assert inside[0][0] >= 4 and inside[0][1] is False
    assert programs.hooks(loop.model) == 0 and torch.linalg.eigh is EIGH


def test_watches_may_overlap_in_any_order() -> None:
    models = [Network(), Network()]
    first, second = (Watch(m, torch.optim.SGD(m.parameters(), lr=0.1)) for m in models)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert torch.linalg.eigh is not EIGH
    second.__exit__(None, None, None)
    assert torch.linalg.eigh is EIGH


def test_calls_out_of_order_say_what_was_expected() -> None:
    model = nn.Linear(1, 1)
    watch = Watch(model, torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(RuntimeError, match=r"the watch is not active; expected begin inside of `with Watch"):
        watch.begin(torch.ones(1), None)
    with watch, pytest.raises(RuntimeError, match="no step is open; expected begin before forward"):
        watch.gradients()


def test_a_step_that_nobody_decided_is_counted() -> None:
    model = nn.Linear(1, 1)
    with Watch(model, torch.optim.SGD(model.parameters(), lr=0.1)) as watch:
        watch.begin(torch.ones(1), None)
        watch.begin(torch.ones(1), None)
        watch.end()
    assert watch.counters["unchecked"] == 2


def test_a_probe_that_crashes_is_a_finding_and_the_run_goes_on(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("brainbrr_debug.probes.decompositions.eigengap", lambda values: 1 / 0)
    loop = Loop(run_dir=tmp_path / "r")
    loop.run(4)
    finding = RunDir.open(tmp_path / "r").findings().items
    assert len(finding) == 1 and finding[0].check == "run.probe" and "ZeroDivisionError" in finding[0].message
    assert loop.watch.counters["probe_crashes"] == 1


def test_a_long_watch_holds_on_to_nothing(tmp_path: Path) -> None:
    loop = Loop(run_dir=tmp_path / "r", healthy_batches=2, sentinel=True)
    sizes: list[int] = []

    def spoil(step: int, scene: dict[str, Any]) -> None:
        if step in (20, 120) and "output" not in scene:
            gc.collect()
            sizes.append(sum(x.numel() * x.element_size() for x in programs.live_tensors()))

    loop.run(121, spoil)
    assert sizes[1] <= sizes[0]  # less: what an earlier test left has gone meanwhile


@pytest.mark.slow
def test_ten_thousand_steps_leak_nothing(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.BatchNorm1d(4), nn.Linear(4, 3))
    options = {"healthy_batches": 2, "sentinel": True, "every": 50, "ranges": 3, "snapshot_every": 20}
    loop = Loop(model=model, run_dir=tmp_path / "r", **options)
    bytes_alive: list[int] = []

    def spoil(step: int, scene: dict[str, Any]) -> None:
        if step in (210, 10_010) and "output" not in scene:
            gc.collect()
            bytes_alive.append(sum(x.numel() * x.element_size() for x in programs.live_tensors()))

    loop.run(10_011, spoil)
    assert bytes_alive[1] <= bytes_alive[0]  # less: what an earlier test left has gone meanwhile
    assert loop.watch.counters["steps"] == 10_011 and programs.hooks(model) == 0
    assert {f.check for f in RunDir.open(tmp_path / "r").findings().items if f.severity <= 1} == set()


def test_readings_are_json_lines_without_nan_literals(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteStep):
        Loop(run_dir=tmp_path / "r").run(10, programs.spoil_gradient)
    for name in ("readings.jsonl", "findings.jsonl", "environment.json"):
        text = (tmp_path / "r" / name).read_text()
        assert "NaN" not in text.replace("not finite", "") and "Infinity" not in text
    line = json.loads((tmp_path / "r" / "readings.jsonl").read_text().splitlines()[3])
    assert ["backward", "", "gradient.norm", "nan"] in line["readings"]
