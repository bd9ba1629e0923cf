"""`bisect` as a citizen: what is skipped, interrupted, gone on with, and refused before any work."""

import importlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from brainbrr_debug.bisect import SKIPPABLE, bisect
from brainbrr_debug.capture import write_capture
from brainbrr_debug.cli import cli
from brainbrr_debug.main import exit_code
from brainbrr_debug.rerun import run_until_harm

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
toy = importlib.import_module("toy_subjects")


@pytest.fixture(scope="module")
def content():
    found = run_until_harm(toy.TieSubject(), "toy_subjects:TieSubject").content
    assert found is not None
    return found


@pytest.fixture
def capture(content, tmp_path):
    return write_capture(tmp_path / "capture.h5", content)


def test_what_is_skipped_on_request_is_said(content):
    skip = tuple(name for name in SKIPPABLE if name not in ("cause", "operation"))
    verdict = bisect(content, subject=toy.TieSubject(), skip=skip)
    assert verdict.details["unanswered"] == dict.fromkeys(skip, "skipped on request")
    assert f"Not answered: {', '.join(skip[:-1])} and {skip[-1]} (skipped on request)." in verdict.sentence
    assert {row["question"] for row in verdict.details["rows"]} == {"real", "cause"}


@pytest.mark.parametrize("name", ["nonsense", "real"])
def test_a_question_that_cannot_be_skipped_names_those_that_can(capture, capsys, name):
    assert exit_code(cli, ["bisect", str(capture), "--skip", name]) == 2
    expected = f"error: '{name}' is no question to skip; expected one of {', '.join(SKIPPABLE)}\n"
    assert capsys.readouterr().err == expected


def test_there_is_nothing_to_resume_without_a_log(capture, capsys):
    assert exit_code(cli, ["bisect", str(capture), "--resume"]) == 2
    assert "so there is no log to resume from; name one with --log" in capsys.readouterr().err


def test_a_time_limit_is_a_time(capture, capsys):
    assert exit_code(cli, ["bisect", str(capture), "--timeout", "soon"]) == 2
    assert capsys.readouterr().err == "error: --timeout is 'soon'; expected a time such as 90s, 10m or 1h\n"


def test_trials_left_are_estimated(content):
    said = []
    skip = [name for name in SKIPPABLE if name not in ("cause", "samples", "component", "stable")]
    bisect(content, subject=toy.TieSubject(), skip=skip, progress=said.append)
    counts = [tuple(map(int, re.match(r" *(\d+) of about (\d+)  ", line).groups())) for line in said]
    assert all(done <= about for done, about in counts)
    done, first = counts[-1][0], counts[len(counts) // 2][1]
    assert 0.5 * done <= first <= 2 * done


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_bisection_goes_on(capture, tmp_path, end):
    """Ctrl-C says how; after kill -9 the same command does."""
    log, few = tmp_path / "bisect.jsonl", [word for name in SKIPPABLE[1:] for word in ("--skip", name)]
    words = [sys.executable, "-m", "brainbrr_debug", "bisect", str(capture), "--log", str(log), *few]
    environment = {**os.environ, "PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"}
    running = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while " real " not in running.stderr.readline():
        assert running.poll() is None
    running.send_signal(end)
    _, said = running.communicate()
    kept = log.read_text().splitlines()
    assert running.returncode == (130 if end == signal.SIGINT else -signal.SIGKILL)
    again = ["brainbrr-debug", "bisect", str(capture), "--resume", *few, "--log", str(log)]
    if end == signal.SIGINT:
        (command,) = re.findall(r"go on with: (.*)", said)
        assert shlex.split(command) == again
    done = subprocess.run(
        [sys.executable, "-m", "brainbrr_debug", *again[1:]],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"{len(kept) - 1} trials from {log}" in done.stderr
    keys = [json.loads(line).get("key") for line in log.read_text().splitlines()]
    assert len(set(keys)) == len(keys)


def test_another_bisection_keeps_the_log_of_the_one_before(content, tmp_path):
    log, said = tmp_path / "bisect.jsonl", []
    for _ in range(2):
        bisect(content, subject=toy.TieSubject(), skip=SKIPPABLE, log=log, progress=said.append)
    assert f"{log} of an earlier bisection is now bisect-1.jsonl" in said
    assert (tmp_path / "bisect-1.jsonl").read_bytes().count(b"\n") == log.read_bytes().count(b"\n") == 4
