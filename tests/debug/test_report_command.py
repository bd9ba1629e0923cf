"""`brainbrr-debug report`: each form, where it goes, and what is refused."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from brainbrr_debug.cli import cli
from brainbrr_debug.main import exit_code
from brainbrr_debug.records import Finding, Reading, Severity
from brainbrr_debug.rundir import RunDir


@pytest.fixture
def run(tmp_path: Path) -> Path:
    run = RunDir.at(tmp_path / "run")
    run.append_readings(0, [Reading(step=0, phase="forward", site="", quantity="loss", value=1.0)])
    run.append_finding(Finding(check="run.flat", severity=Severity.P2, message="a flat loss", file="a.py", line=3))
    return run.path


def command(*arguments: object) -> int:
    return exit_code(cli, ["report", *map(str, arguments)])


def test_each_form_is_one_document_on_stdout(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(run, "--format", "sarif") == 0
    (result,) = json.loads(capsys.readouterr().out)["runs"][0]["results"]
    assert result["level"] == "warning"
    assert result["locations"][0]["physicalLocation"]["region"] == {"startLine": 3}
    assert command(run, "--format", "junit") == 0
    assert ElementTree.fromstring(capsys.readouterr().out.encode())[0].get("failures") == "1"
    assert command(run, "--format", "json") == 0
    assert json.loads(capsys.readouterr().out)["findings"][0]["check"] == "run.flat"
    assert command(run, "--format", "text") == 0
    assert "P2         run.flat  a flat loss" in capsys.readouterr().out


def test_the_page_lies_beside_the_run_and_is_made_anew(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(run) == command(run) == 0
    assert (run / "report.html").read_text().startswith("<!DOCTYPE html>")
    assert capsys.readouterr() == ("", f"Wrote {run / 'report.html'}\n" * 2)


def test_a_torn_line_is_counted_and_shown(run: Path) -> None:
    with (run / "readings.jsonl").open("a") as file:
        file.write('{"step": 1, "rea')
    assert command(run) == 0
    assert "1 damaged line skipped" in (run / "report.html").read_text()


def test_a_signal_is_only_drawn_and_only_of_a_verdict(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(run, "--show-signal", "--format", "json") == 2
    assert "--show-signal draws a picture, and json holds none" in capsys.readouterr().err
    assert command(run, "--show-signal") == 2
    assert "has no verdict, so there is no sample whose signal could be shown" in capsys.readouterr().err
    assert not list(run.glob("*.html"))


def test_an_output_is_not_overwritten(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.html").write_text("mine")
    assert command(run, "--output", tmp_path / "mine.html") == 2
    assert (tmp_path / "mine.html").read_text() == "mine"
    assert "give another --output, or --force" in capsys.readouterr().err


def test_the_run_goes_to_tensorboard_when_asked(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tensorboard")
    assert command(run, "--tensorboard") == 0
    (file,) = (run / "tensorboard" / "watch").iterdir()
    assert capsys.readouterr().err.splitlines()[-1] == f"Wrote {file}"
