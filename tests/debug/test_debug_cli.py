"""The command line: exit codes in one place, one line for what a person can put right, results apart from narration."""

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
import torch

from brainbrr_debug.capture import read_capture, write_capture
from brainbrr_debug.cli import cli
from brainbrr_debug.environment import PACKAGES
from brainbrr_debug.errors import CannotRunHere, UsageError
from brainbrr_debug.main import emit, exit_code, run

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
toy = importlib.import_module("toy_subjects")


@pytest.fixture(scope="module")
def bisected(tmp_path_factory):
    """A folder in which a Subject was run to its failure and bisected by the command."""
    place = tmp_path_factory.mktemp("bisected")
    before = Path.cwd()
    os.chdir(place)
    try:
        assert (
            exit_code(cli, ["bisect", "toy_subjects:TieSubject", "--no-prove", "--quiet", "--output", "verdict.txt"])
            == 0
        )
    finally:
        os.chdir(before)
    return place


@pytest.fixture
def capture(bisected):
    return next(bisected.glob("runs/*/captures/*.h5"))


def command(*arguments, capsys):
    """Exit code, stdout, stderr."""
    code = exit_code(cli, [str(a) for a in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def json_of(out):
    def refuse(literal):
        raise AssertionError(f"{literal} in the document")

    return json.loads(out, parse_constant=refuse)


# bisect


def test_bisect_leaves_capture_log_verdict_and_report(bisected):
    (run_dir,) = bisected.glob("runs/*")
    verdict = json.loads((run_dir / "verdicts" / "000000.json").read_text())
    assert (verdict["component"], verdict["samples"][0]["index"]) == ("graph.pe", 2)
    assert (run_dir / "report.html").read_text().startswith("<!DOCTYPE html>")
    assert (run_dir / "bisect.jsonl").read_text().count("\n") > 20
    assert (bisected / "verdict.txt").read_text().startswith("verdict    Step 3")


def test_bisect_of_a_capture_gives_the_same_verdict(capture, capsys, bisected):
    code, out, err = command("bisect", capture, "--no-prove", "--format", "json", capsys=capsys)
    document = json_of(out)
    first = json.loads((capture.parent.parent / "verdicts" / "000000.json").read_text())
    assert code == 0
    assert document.keys() == first.keys()
    for key in ("component", "cause", "necessary", "sufficient", "stable", "samples", "repairs"):
        assert document[key] == first[key]
    assert err.splitlines()[-1].startswith("Wrote ") and err.splitlines()[-1].endswith("report.html")
    assert "component   switches=graph.gradient=detached" in err


def test_bisect_of_a_healthy_subject_says_so(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = command("bisect", "toy_subjects:HealthySubject", "--format", "json", capsys=capsys)
    document = json_of(out)
    assert code == 0
    assert document["origin"]["healthy"] is True
    assert document["sentence"] == "The run is healthy: 6 steps, and none left anything non-finite behind."
    assert list(tmp_path.iterdir()) == []


def test_bisect_of_a_carried_capture_writes_nothing_beside_it(capture, capsys, tmp_path):
    carried = shutil.copy(capture, tmp_path / "mailed.h5")
    code, _, err = command("bisect", carried, "--quiet", "--budget", "0s", capsys=capsys)
    assert code == 1  # no time, no verdict
    assert err == ""
    assert [path.name for path in tmp_path.iterdir()] == ["mailed.h5"]


def test_a_run_directory_stands_for_its_first_capture(capture, capsys, tmp_path):
    code, out, err = command("diagnose", capture.parent.parent, "--format", "json", capsys=capsys)
    assert (code, json_of(out)["module"], err) == (0, "graph.pe", "")
    run = shutil.copytree(capture.parent.parent, tmp_path / "run")
    (run / "captures" / "000099.h5").write_text("a later one")
    code, out, err = command("diagnose", run, "--format", "json", capsys=capsys)
    assert (code, json_of(out)["module"]) == (0, "graph.pe")
    assert err == f"{run}/captures/{capture.name}: the first of 2 captures; name another by its path\n"


def test_a_run_of_many_ranks_stands_for_the_rank_that_has_a_capture(capture, capsys, tmp_path):
    shutil.copytree(capture.parent.parent, tmp_path / "run" / "rank-0001")
    (tmp_path / "run" / "environment.json").write_text("{}")
    code, out, _ = command("diagnose", tmp_path / "run", "--format", "json", capsys=capsys)
    assert (code, json_of(out)["module"]) == (0, "graph.pe")


def test_a_budget_has_a_unit(capture, capsys):
    code, _, err = command("bisect", capture, "--budget", "soon", capsys=capsys)
    assert (code, err) == (2, "error: --budget is 'soon'; expected a time such as 90s, 10m or 1h\n")


# replay


def test_a_failure_that_comes_back_is_1(capture, capsys):
    code, out, _ = command("replay", capture, "--times", 2, capsys=capsys)
    assert code == 1
    assert out.startswith("replay     failed again 2/2, reproduced 2/2\n")
    assert "compared   bit for bit" in out


def test_replay_as_one_document(capture, capsys):
    code, out, _ = command("replay", capture, "--format", "json", capsys=capsys)
    document = json_of(out)
    assert code == 1
    assert (document["outcome"], document["replay"]) == ("failed again", {"reproduced": 3, "of": 3})
    assert document["bit_exact"] and document["deterministic"] and not document["mismatches"]


@pytest.fixture
def fixed(monkeypatch):
    """The code as it is after the repair."""
    monkeypatch.setattr(
        toy.Encoding, "__init__", lambda self, gradient, init=toy.Encoding.__init__: init(self, "detached")
    )


def test_a_failure_that_does_not_come_back_is_125(capture, capsys, fixed):
    code, out, _ = command("replay", capture, capsys=capsys)
    assert code == 125
    assert "did not reproduce: it failed when it was captured, and 0 of 3 repeats failed" in out


def test_under_git_bisect_the_repaired_commit_is_good(capture, capsys):
    repaired = ("--subject", "toy_subjects:RepairedSubject")
    code, out, _ = command("replay", capture, "--git-bisect", *repaired, capsys=capsys)
    assert (code, out.splitlines()[0]) == (0, "replay     healthy 3/3")


def test_another_precision_is_compared_by_outcome_alone(capture, capsys):
    code, out, _ = command("replay", capture, "--dtype", "float64", "--times", 1, capsys=capsys)
    assert code == 1
    assert "by outcome only" in out


def test_repeats_that_disagree_are_125(capture, capsys, monkeypatch):
    built = []
    build = toy.TieSubject.build

    def flaky(self, seed, switches):
        built.append(seed)
        return build(self, seed, {"graph.gradient": "detached"} if len(built) == 2 else switches)

    monkeypatch.setattr(toy.TieSubject, "build", flaky)
    code, out, _ = command("replay", capture, capsys=capsys)
    assert code == 125
    assert "2 of 3 repeats failed" in out


def test_replay_lists_in_what_this_machine_differs(capture, capsys, tmp_path):
    import dataclasses

    content = read_capture(capture)
    elsewhere = {**content.environment, "torch": "2.9.0", "packages": {**content.environment["packages"], "numpy": "1"}}
    path = write_capture(tmp_path / "x.h5", dataclasses.replace(content, environment=elsewhere))
    code, out, _ = command("replay", path, capsys=capsys)
    assert code == 1 and "compared   losses to a relative 0.001, because bits cannot be expected" in out
    assert "\ndifference torch was 2.9.0, here " in out and "\ndifference packages.numpy was 1, here " in out
    code, out, _ = command("replay", path, "--format", "json", capsys=capsys)
    document = json_of(out)
    assert not document["bit_exact"] and document["differences"][0].startswith("torch was 2.9.0, here ")
    assert document["replay"] == {"reproduced": 3, "of": 3}


def test_replay_that_cannot_run_here_says_why_and_what_differs(capture, capsys, tmp_path, monkeypatch):
    import dataclasses

    def build(self, seed, switches):
        raise RuntimeError("needs the fused kernels")

    content = read_capture(capture)
    path = write_capture(
        tmp_path / "x.h5", dataclasses.replace(content, environment={**content.environment, "torch": "2.9.0"})
    )
    monkeypatch.setattr(toy.TieSubject, "build", build)
    code, out, err = command("replay", path, capsys=capsys)
    assert (code, out, err.count("\n")) == (125, "", 1)
    assert "does not run here: RuntimeError: needs the fused kernels; since the capture: torch was 2.9.0, here" in err


def test_replay_on_another_device(capture, capsys):
    assert command("replay", capture, "--device", "cpu", "--times", 1, capsys=capsys)[0] == 1
    code, _, err = command("replay", capture, "--device", "banana", capsys=capsys)
    assert code == 2 and err == "error: --device is 'banana'; expected cpu, cuda or cuda:1\n"
    if not torch.cuda.is_available():
        code, _, err = command("replay", capture, "--device", "cuda", capsys=capsys)
        assert code == 125 and err == "error: --device is 'cuda', and this machine has 0 such devices\n"


def test_a_subject_that_is_not_here_is_125(capture, capsys, tmp_path):
    import dataclasses

    path = write_capture(tmp_path / "x.h5", dataclasses.replace(read_capture(capture), subject="gone.away:Model"))
    code, out, err = command("replay", path, capsys=capsys)
    assert (code, out) == (125, "")
    assert err.startswith("error: the captured subject 'gone.away:Model' cannot be loaded here")
    assert err.count("\n") == 1
    assert command("replay", path, "--subject", "toy_subjects:TieSubject", capsys=capsys)[0] == 1


# Files


def test_a_wrong_path_is_one_line_and_2(capsys, tmp_path):
    code, out, err = command("replay", tmp_path / "no.h5", capsys=capsys)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "no such file; expected a capture" in err


@pytest.mark.parametrize("verb", ["replay", "bisect", "diagnose", "spectrum"])
def test_a_foreign_file_is_one_line_and_2(verb, capsys, tmp_path):
    path = tmp_path / "photo.h5"
    path.write_bytes(b"\x89PNG")
    code, _, err = command(verb, path, capsys=capsys)
    assert (code, err.count("\n")) == (2, 1)
    assert "not an HDF5 file" in err


def test_a_truncated_capture_is_one_line_and_2(capture, capsys, tmp_path):
    path = tmp_path / "half.h5"
    path.write_bytes(capture.read_bytes()[: capture.stat().st_size // 2])
    code, _, err = command("replay", path, capsys=capsys)
    assert (code, err.count("\n")) == (2, 1)
    assert "truncated" in err


def test_a_target_that_is_nothing_names_the_four_kinds(capsys):
    code, _, err = command("bisect", "nothing", capsys=capsys)
    assert code == 2
    assert "expected a capture (.h5), a run directory, a configuration (.yaml) or package.module:attribute" in err


def test_an_unknown_subject_is_2(capsys):
    code, _, err = command("diagnose", "toy_subjects:Nobody", capsys=capsys)
    assert (code, "has no attribute Nobody" in err) == (2, True)


def test_a_broken_configuration_is_2(capsys, tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("a: [")
    assert command("bisect", path, capsys=capsys)[0] == 2
    path.write_text("[1]")
    code, _, err = command("bisect", path, capsys=capsys)
    assert (code, err) == (2, f"error: {path}: holds a list; expected a mapping of sections\n")


def test_set_belongs_to_configurations(capture, capsys):
    code, _, err = command("bisect", capture, "--set", "a.b=1", capsys=capsys)
    assert (code, "--set needs a configuration" in err) == (2, True)


def test_an_output_is_not_overwritten_without_force(capture, capsys, tmp_path):
    path = tmp_path / "out.json"
    path.write_text("mine")
    code, _, err = command("spectrum", capture, "--output", path, capsys=capsys)
    assert (code, "exists; give another --output, or --force" in err, path.read_text()) == (2, True, "mine")
    code, out, err = command("spectrum", capture, "--output", path, "--force", "--format", "json", capsys=capsys)
    assert (code, out, err) == (1, "", f"Wrote {path}\n")
    assert json_of(path.read_text())["decompositions"][0]["site"] == "graph.pe"


# Other commands


def test_spectrum_lists_every_sample(capture, capsys):
    code, out, _ = command("spectrum", capture, capsys=capsys)
    assert code == 1
    rows = [line.split() for line in out.splitlines()[1:5]]
    assert rows[0][:3] == ["eigh", "graph.pe", "2"] and sorted(row[2] for row in rows) == ["0", "1", "2", "3"]


def test_diagnose_names_the_line(capsys):
    code, out, _ = command("diagnose", "toy_subjects:TieSubject", "--quiet", capsys=capsys)
    assert code == 0
    assert "aten::_linalg_eigh in graph.pe" in out
    assert "toy_subjects.py:" in out


def test_diagnose_of_a_healthy_subject(capsys):
    code, out, _ = command("diagnose", "toy_subjects:HealthySubject", "--quiet", "--max-steps", 2, capsys=capsys)
    assert (code, out) == (0, "healthy: nothing harmful was born\n")


def test_report_writes_html_beside_the_run(capture, capsys, tmp_path):
    run_dir = capture.parent.parent
    code, out, err = command("report", run_dir, capsys=capsys)
    assert (code, out, err) == (0, "", f"Wrote {run_dir / 'report.html'}\n")
    code, out, _ = command("report", run_dir, "--format", "json", capsys=capsys)
    assert json_of(out)["captures"] == ["captures/000003.h5"]
    assert command("report", tmp_path, capsys=capsys)[0] == 2


def test_env_is_plain_and_json(capsys):
    code, out, _ = command("env", "--format", "json", capsys=capsys)
    found = json_of(out)
    assert (code, found["threads"]) == (0, 1)
    assert {*found["packages"], *found["not_installed"]} == set(PACKAGES) and "numpy" in found["packages"]
    assert "cpu_capability" in command("env", capsys=capsys)[1]


# Exit codes


def commands(error):
    @click.command()
    @click.option("--git-bisect", is_flag=True)
    def failing(git_bisect):
        if error is None:
            return
        raise error

    return failing


@pytest.mark.parametrize(
    ("error", "code", "under_git"),
    [
        (None, 0, 0),
        (UsageError("no"), 2, 125),
        (CannotRunHere("no"), 125, 125),
        (KeyboardInterrupt(), 130, 130),
        (click.UsageError("no"), 2, 125),
        (click.Abort(), 130, 130),
        (ZeroDivisionError("oops"), 3, 125),
        (FileNotFoundError(2, "No such file or directory", "x"), 2, 125),
    ],
)
def test_exit_codes_are_mapped_in_one_place(error, code, under_git):
    for arguments, expected in ([], code), (["--git-bisect"], under_git):
        with pytest.raises(SystemExit) as exit_:
            run(commands(error), arguments)
        assert exit_.value.code == expected


def test_a_crash_shows_its_traceback_and_what_to_do(capsys):
    assert exit_code(commands(ZeroDivisionError("oops")), []) == 3
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "internal error: ZeroDivisionError: oops" in err
    assert "brainbrr-debug env" in err


def test_a_missing_file_is_named_without_a_traceback(capsys):
    exit_code(commands(FileNotFoundError(2, "No such file or directory", "x.bin")), [])
    assert capsys.readouterr().err == "error: x.bin: no such file or directory\n"


def test_an_unknown_option_is_usage(capsys):
    assert command("replay", "x.h5", "--colour", capsys=capsys)[0] == 2


def test_emit_gives_one_document(capsys):
    emit({"a": float("nan")}, "text", form="json")
    emit({}, "text\n", form="text")
    assert capsys.readouterr().out == '{\n  "a": "nan"\n}\ntext\n'


@pytest.mark.parametrize("arguments", [["--help"], ["bisect", "--help"], ["report", "--help"]])
def test_help_is_quick(arguments):
    took = []
    for _ in range(5):  # the best of five: other programs run here, too
        before = os.times()
        subprocess.run([sys.executable, "-m", "brainbrr_debug", *arguments], check=True, capture_output=True)
        after = os.times()
        took.append(after.children_user + after.children_system - before.children_user - before.children_system)
    assert min(took) < 0.3
