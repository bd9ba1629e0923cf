"""Trials elsewhere: the same verdict on any executor, a crash is an outcome, and a broken pool is one line."""

import concurrent.futures
import dataclasses
import importlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from brainbrr_debug.bisect import SKIPPABLE, bisect
from brainbrr_debug.capture import write_capture
from brainbrr_debug.cli import cli
from brainbrr_debug.cluster import on_cluster
from brainbrr_debug.errors import CannotRunHere
from brainbrr_debug.main import exit_code
from brainbrr_debug.oracle import harm
from brainbrr_debug.rerun import run_until_harm
from brainbrr_debug.trial import Trial
from brainbrr_debug.trials import Skipped, Trials
from brainbrr_debug.workers import let_go, working

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
toy = importlib.import_module("toy_subjects")
crashing = importlib.import_module("crashing_subjects")

FEW = tuple(name for name in SKIPPABLE if name not in ("cause", "stable"))
SEGFAULT = Trial(switches=(("end", "segfault"),))


@pytest.fixture(scope="module")
def content():
    found = run_until_harm(toy.TieSubject(), "toy_subjects:TieSubject").content
    assert found is not None
    return found


@pytest.fixture(scope="module")
def crashable(content):
    return dataclasses.replace(content, subject="crashing_subjects:CrashingSubject")


def document(verdict):
    """The verdict, but for the seconds, which no two have in common."""
    found = verdict.to_dict()
    del found["seconds"]
    for row in found["details"]["rows"]:
        del row["seconds"]
    return found


class Far(concurrent.futures.ThreadPoolExecutor):
    """Threads that see no file of ours, as another machine would."""

    def __init__(self, width):
        super().__init__(width)
        self.places, self.sent = set(), []

    def submit(self, function, /, source, *arguments):
        there = dataclasses.replace(source, path=f"/far{source.path}")
        self.places.add(there.path)
        self.sent.append(there.data is not None)
        return super().submit(function, there, *arguments)


def test_far_away_it_comes_to_the_same_verdict_and_the_capture_is_sent(content):
    with Far(2) as pool:
        found = document(bisect(content, executor=pool, skip=FEW))
    assert found == document(bisect(content, subject=toy.TieSubject(), skip=FEW))
    assert pool.sent[0] is False and all(pool.sent[-5:])
    for place in pool.places:
        let_go(place)


def test_a_pool_that_is_broken_is_one_line(content):
    with concurrent.futures.ProcessPoolExecutor(1) as pool:
        with pytest.raises(concurrent.futures.BrokenExecutor):
            pool.submit(os._exit, 1).result()
        with pytest.raises(CannotRunHere, match=r"the executor does no more work .* with --resume no trial is lost"):
            bisect(content, executor=pool)


class Lost(concurrent.futures.Executor):
    """Loses every worker on the way."""

    def submit(self, function, /, *arguments):
        future = concurrent.futures.Future()
        future.set_exception(OSError("the worker is gone"))
        return future


def test_a_step_whose_every_worker_is_lost_cannot_run_here(content):
    with pytest.raises(CannotRunHere, match="the captured step does not run here: OSError: the worker is gone"):
        bisect(content, executor=Lost())


def test_an_address_that_is_none_is_one_line(content, tmp_path, capsys):
    path = write_capture(tmp_path / "capture.h5", content)
    assert exit_code(cli, ["bisect", str(path), "--cluster", "nowhere://x"]) == 2
    assert "expected an address such as tcp://host:8786" in capsys.readouterr().err


@pytest.mark.slow
def test_several_at_a_time_come_to_the_same_verdict(content):
    assert document(bisect(content, jobs=3)) == document(bisect(content, subject=toy.TieSubject()))


@pytest.mark.slow
def test_a_pool_of_processes_comes_to_the_same_verdict_whatever_crashes(content, crashable):
    with concurrent.futures.ProcessPoolExecutor(2) as pool:
        assert document(bisect(content, executor=pool)) == document(bisect(content, subject=toy.TieSubject()))
        with working(crashable, executor=pool) as runner:
            trials = Trials(crashable, crashing.CrashingSubject(), runner=runner)
            first, second = trials.ask_all("component", [SEGFAULT, Trial()], harm)
    assert (first.reason, second.outcome) == ("crashed with signal 11 (SIGSEGV)", "bad")


# A Dask cluster of this machine


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The address of a scheduler with two workers, each a process that starts again when it is killed."""
    place = tmp_path_factory.mktemp("dask")
    environment = {**os.environ, "PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, str(HERE / "dask_cluster.py")],
        cwd=place,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as running:
        yield running.stdout.readline().strip()
        running.stdin.close()


@pytest.mark.slow
def test_a_cluster_comes_to_the_same_verdict(content, cluster, tmp_path, capsys):
    path = write_capture(tmp_path / "capture.h5", content)
    log = tmp_path / "bisect.jsonl"
    few = [word for name in FEW for word in ("--skip", name)]
    assert exit_code(cli, ["bisect", str(path), "--cluster", cluster, "--log", str(log), "--format", "json", *few]) == 0
    found = json.loads(capsys.readouterr().out)
    here = bisect(content, subject=toy.TieSubject(), skip=FEW).to_dict()
    assert {key: found[key] for key in found if key not in ("seconds", "details")} == {
        key: here[key] for key in here if key not in ("seconds", "details")
    }
    assert log.read_text().count("\n") == found["trials"] + 1


@dataclasses.dataclass(frozen=True)
class KillWorker:
    """A job: kills the worker that this trial was asked of, again wherever it is asked."""

    def __call__(self, content, subject):
        server = int(Path(f"/proc/{os.getppid()}/stat").read_text().rpartition(")")[2].split()[1])
        worker = int(Path(f"/proc/{server}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(worker, signal.SIGKILL)


@pytest.mark.slow
def test_on_a_cluster_a_crash_is_an_outcome_of_trial_and_of_worker(crashable, cluster):
    with on_cluster(cluster) as executor, working(crashable, executor=executor) as runner:
        trials = Trials(crashable, crashing.CrashingSubject(), runner=runner)
        assert trials.ask("component", SEGFAULT, harm).reason == "crashed with signal 11 (SIGSEGV)"
        with pytest.raises(Skipped, match="KilledWorker: Attempted to run task"):
            trials.run("alone", KillWorker())
        assert trials.ask("real", Trial(), harm).outcome == "bad"
