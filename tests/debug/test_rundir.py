from __future__ import annotations

import math
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from brainbrr_debug.records import Finding, Reading, Severity
from brainbrr_debug.rundir import RunDir, RunDirError, atomic_write


def reading(step: int, value: float = 1.0, sample: int | None = None) -> Reading:
    return Reading(step=step, phase="forward", site="<loss>", quantity="loss", value=value, sample=sample)


def test_directories_are_numbered_and_named(tmp_path: Path) -> None:
    first, second = RunDir.create(tmp_path, "batch 7"), RunDir.create(tmp_path)
    assert first.path.name == "0001-batch-7" and second.path.name == "0002-run"
    assert sorted(p.name for p in first.path.iterdir()) == ["captures", "checkpoints", "verdicts"]


def test_two_who_create_at_once_get_different_directories(tmp_path: Path) -> None:
    made: list[Path] = []
    threads = [threading.Thread(target=lambda: made.append(RunDir.create(tmp_path).path)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 8


def test_readings_come_back_exactly(tmp_path: Path) -> None:
    run = RunDir.at(tmp_path / "r")
    run.append_readings(0, [reading(0, 0.1 + 0.2), reading(0, math.inf)])
    run.append_readings(1, [reading(1, -math.inf, sample=2)])
    run.sync()
    found = RunDir.open(tmp_path / "r").readings()
    assert [r.value for r in found.items] == [0.1 + 0.2, math.inf, -math.inf]
    assert [(r.step, r.order, r.sample) for r in found.items] == [(0, 0, None), (0, 1, None), (1, 0, 2)]
    assert found.damaged == 0
    assert "Infinity" not in (tmp_path / "r" / "readings.jsonl").read_text()


def test_findings_come_back(tmp_path: Path) -> None:
    run = RunDir.at(tmp_path / "r")
    finding = Finding(check="run.nonfinite", severity=Severity.P0, message="µ", where="loss", step=3, commands=("a",))
    run.append_finding(finding)
    assert run.findings().items == (finding,)


def test_a_torn_last_line_is_skipped_counted_and_does_not_swallow_the_next(tmp_path: Path) -> None:
    run = RunDir.at(tmp_path / "r")
    run.append_readings(0, [reading(0)])
    run.sync()
    path = tmp_path / "r" / "readings.jsonl"
    path.write_bytes(path.read_bytes() + b'{"step": 1, "read')
    assert RunDir.open(tmp_path / "r").readings().damaged == 1
    again = RunDir.at(tmp_path / "r")
    again.append_readings(2, [reading(2)])
    assert [r.step for r in again.readings().items] == [0, 2]
    assert again.readings().damaged == 1


def test_lines_survive_a_process_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "from brainbrr_debug.records import Reading\n"
        "from brainbrr_debug.rundir import RunDir\n"
        "run = RunDir.at(sys.argv[1])\n"
        "run.append_readings(0, [Reading(step=0, phase='p', site='s', quantity='q', value=1.0)])\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "r")], check=False)
    assert len(RunDir.open(tmp_path / "r").readings().items) == 1


def test_whole_files_appear_only_when_complete(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text("old")

    def fail() -> None:
        with atomic_write(path) as file:
            file.write("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["x.json"]


def test_configuration_environment_and_verdicts_come_back(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path)
    run.write_config({"b": {"x": 1e-4}, "a": [1, None]})
    run.write_environment({"torch": "2"})
    assert [run.write_verdict({"n": n}).name for n in range(2)] == ["000000.json", "000001.json"]
    assert RunDir.open(run.path).config() == {"b": {"x": 1e-4}, "a": [1, None]}
    assert run.environment() == {"torch": "2"}
    assert len(run.list_verdicts()) == 2


def test_captures_are_named_by_step_and_never_overwritten(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path)
    for expected in ("000006.h5", "000006-1.h5", "000006-2.h5"):
        path = run.capture_path(6)
        assert path.name == expected
        path.touch()
    assert [p.name for p in run.list_captures()] == ["000006.h5", "000006-1.h5", "000006-2.h5"]


def test_what_is_no_run_directory_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(RunDirError, match=r"absent: no such folder; expected a run directory such as runs/"):
        RunDir.open(tmp_path / "absent")
    with pytest.raises(RunDirError, match=r"holds none of config\.yaml, environment\.json"):
        RunDir.open(tmp_path)
    run = RunDir.create(tmp_path)
    (run.path / "config.yaml").write_text("[1, 2")
    with pytest.raises(RunDirError, match=r"config\.yaml: cannot be read: .*expected ',' or ']'"):
        run.config()
    (run.path / "config.yaml").write_text("[1, 2]")
    with pytest.raises(RunDirError, match="holds a list; expected a mapping"):
        run.config()
    (run.path / "environment.json").write_text("{")
    with pytest.raises(RunDirError, match=r"environment\.json: cannot be read"):
        run.environment()
