"""Trials in processes of their own: what ends a process is an answer, and nothing is left behind."""

import dataclasses
import importlib
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from brainbrr_debug.capture import write_capture
from brainbrr_debug.forkserver import Forkserver
from brainbrr_debug.jobs import Observe
from brainbrr_debug.observation import Observation
from brainbrr_debug.oracle import harm
from brainbrr_debug.records import Outcome, from_json, to_json
from brainbrr_debug.rerun import run_until_harm
from brainbrr_debug.trial import Trial, observe
from brainbrr_debug.trials import Skipped, Trials
from brainbrr_debug.workers import working

sys.path.insert(0, str(Path(__file__).parent))
crashing = importlib.import_module("crashing_subjects")

NAME = "crashing_subjects:CrashingSubject"


@dataclasses.dataclass(frozen=True)
class Tell:
    """A job: what its process knows of itself."""

    name: str = ""

    def __call__(self, content, subject):
        return {"pid": os.getpid(), "threads": torch.get_num_threads(), "step": content.step, "name": self.name}


@pytest.fixture(scope="module")
def content():
    found = run_until_harm(crashing.CrashingSubject(), NAME).content
    assert found is not None
    return found


@pytest.fixture(scope="module")
def runner(content):
    with working(content, jobs=3) as runner:
        yield runner


@pytest.fixture(scope="module")
def server(runner):
    return runner._server


def ending(end):
    return Observe(trial=Trial(switches=(("end", end),)))


def test_a_trial_apart_shows_what_one_here_shows(content, server):
    answer = server.ask(Observe(trial=Trial()), 60.0)
    here = observe(content, crashing.CrashingSubject(), Trial())
    assert answer.skipped is None and answer.seconds > 0
    assert to_json(from_json(Observation, answer.value)) == to_json(here)


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        ("segfault", "crashed with signal 11 (SIGSEGV)"),
        ("killed", "crashed with signal 9 (SIGKILL), as the system does when memory runs out"),
        ("exit", "ended with exit code 7 and no answer"),
        ("sys.exit", "ended with exit code 5 and no answer"),
        ("memory", "MemoryError: "),
        ("odd", "Odd: an exception of its own"),
    ],
)
def test_what_ends_a_trial_is_its_answer(server, end, reason):
    assert server.ask(ending(end), 60.0).skipped == reason
    assert server.ask(Observe(trial=Trial()), 60.0).skipped is None


def test_a_trial_that_hangs_is_ended(server):
    assert server.ask(ending("hang"), 0.5).skipped == "no answer within 0.5 s"


def test_a_job_has_a_process_and_the_captured_threads(content, server):
    first, second = (server.ask(Tell(name=str(i)), 60.0).value for i in range(2))
    assert len({os.getpid(), first["pid"], second["pid"]}) == 3
    assert (first["threads"], first["step"]) == (content.environment["threads"], content.step)


def test_what_a_subject_prints_goes_elsewhere_than_the_result(server, capfd):
    assert server.ask(ending("prints"), 60.0).skipped is None
    assert capfd.readouterr().out == ""


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


@dataclasses.dataclass(frozen=True)
class SayAndHang:
    """A job: writes its process's number and sleeps."""

    path: str

    def __call__(self, content, subject):
        Path(self.path).write_text(f"{os.getpid()}\n")
        time.sleep(3600)


def started(path):
    """The number that a job wrote."""
    while not (path.exists() and path.read_text().endswith("\n")):
        time.sleep(0.05)
    return int(path.read_text())


def gone(pid):
    for _ in range(200):
        if not alive(pid):
            return True
        time.sleep(0.05)
    return False


def test_nothing_outlives_the_one_who_asked(content, tmp_path):
    """Killed as nothing can see coming, the one who asked takes the server and the trial along."""
    path = write_capture(tmp_path / "capture.h5", content)
    asker = os.fork()
    if asker == 0:
        try:
            Forkserver(path).ask(SayAndHang(str(tmp_path / "pid")), 600.0)
        finally:
            os._exit(0)
    pid = started(tmp_path / "pid")
    os.kill(asker, signal.SIGKILL)
    os.waitpid(asker, 0)
    assert gone(pid)


def hanging(server, path):
    """A thread that asks for a job that hangs, its answers, and the process of the job."""
    answers = []
    asking = threading.Thread(target=lambda: answers.append(server.ask(SayAndHang(str(path)), 600.0)))
    asking.start()
    return asking, answers, started(path)


def test_a_server_that_was_killed_costs_one_trial_and_closing_ends_what_runs(content, tmp_path):
    server = Forkserver(write_capture(tmp_path / "capture.h5", content))
    asking, answers, _ = hanging(server, tmp_path / "first")
    os.killpg(server._process.pid, signal.SIGKILL)
    asking.join()
    assert answers[0].skipped in ("the trial was lost", LOST)
    server._process.wait()
    asking, answers, pid = hanging(server, tmp_path / "second")
    server.close()
    asking.join()
    assert answers[0].skipped in ("the trial was lost", LOST)
    assert gone(pid)


LOST = "the trial lost the process it was forked from, which crashed with signal 9 (SIGKILL), as the system does when "
LOST += "memory runs out"


# The trials of a bisection


def test_a_crash_is_skipped_and_the_next_question_is_asked(content, runner):
    trials = Trials(content, crashing.CrashingSubject(), runner=runner)
    crash = trials.ask("component", Trial(switches=(("end", "segfault"),)), harm)
    assert (crash.outcome, crash.reason) == (Outcome.SKIP, "crashed with signal 11 (SIGSEGV)")
    assert trials.ask("real", Trial(), harm).outcome is Outcome.BAD


def test_several_at_a_time_come_back_in_order(content, runner):
    trials = Trials(content, crashing.CrashingSubject(), runner=runner)
    results = trials.ask_all("stable", [Trial(weights="fresh", seed=seed) for seed in (4, 5, 4, 6, 7)], harm)
    assert [result.trial.seed for result in results] == [4, 5, 4, 6, 7]
    assert trials.count == 4
    assert results[0].observation is results[2].observation


def test_a_job_that_hangs_has_no_value(content, runner):
    trials = Trials(content, crashing.CrashingSubject(), runner=runner, timeout_s=0.5)
    with pytest.raises(Skipped, match=r"no answer within 0\.5 s"):
        trials.run("alone", SayAndHang("/dev/null"))
