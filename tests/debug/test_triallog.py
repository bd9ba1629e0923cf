"""The log of a bisection: what a kill leaves is gone on from, and only of the same capture."""

import dataclasses
import importlib
import json
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brainbrr_debug.bisect import bisect
from brainbrr_debug.jobs import Answer, key_of
from brainbrr_debug.observation import Decomposition, Observation
from brainbrr_debug.oracle import harm
from brainbrr_debug.records import from_json, to_json
from brainbrr_debug.rerun import run_until_harm
from brainbrr_debug.search import ddmin
from brainbrr_debug.trial import Trial
from brainbrr_debug.triallog import Bisected, TrialLogError, begin, resume
from brainbrr_debug.trials import Trials

sys.path.insert(0, str(Path(__file__).parent))
toy = importlib.import_module("toy_subjects")

ABOUT = Bisected(fingerprint="0123456789abcdef", step=6, subject="package.module:Thing")


@pytest.fixture(scope="module")
def content():
    found = run_until_harm(toy.TieSubject(), "toy_subjects:TieSubject").content
    assert found is not None
    return found


def verdict_of(content, path, **options):
    """The verdict, but for the seconds, which no two have in common."""
    verdict = bisect(content, subject=toy.TieSubject(), log=path, **options)
    document = verdict.to_dict()
    del document["seconds"]
    for row in document["details"]["rows"]:
        del row["seconds"]
    return document


# Forms


FLOATS = st.floats(width=64)
DECOMPOSITIONS = st.builds(
    Decomposition,
    site=st.text(),
    op=st.text(),
    location=st.text(),
    micro_batch=st.integers(0, 9),
    gap=FLOATS,
    gaps=st.lists(FLOATS).map(tuple),
    differentiated=st.booleans(),
)


@given(
    st.lists(FLOATS).map(tuple),
    FLOATS,
    st.lists(st.text()).map(tuple),
    st.lists(DECOMPOSITIONS).map(tuple),
    st.none() | st.text(),
)
def test_an_observation_comes_back_from_json_as_it_was(losses, norm, names, decompositions, error):
    seen = Observation(
        losses=losses, gradient_norm=norm, gradients_nonfinite=names, decompositions=decompositions, error=error
    )
    back = from_json(Observation, json.loads(json.dumps(to_json(seen), allow_nan=False)))
    assert repr(back) == repr(seen)  # NaN is no NaN's equal


# The file


def test_an_earlier_log_is_moved_aside(tmp_path):
    path = tmp_path / "bisect.jsonl"
    assert begin(path, ABOUT)[1] is None
    assert begin(path, ABOUT)[1] == tmp_path / "bisect-1.jsonl"
    assert begin(path, ABOUT)[1] == tmp_path / "bisect-2.jsonl"
    assert len(list(tmp_path.iterdir())) == 3


def test_a_log_of_another_capture_is_refused_by_name(tmp_path):
    path = tmp_path / "bisect.jsonl"
    begin(path, ABOUT)
    with pytest.raises(TrialLogError) as refused:
        resume(path, dataclasses.replace(ABOUT, step=9, fingerprint="fedcba9876543210"))
    assert str(refused.value) == (
        f"{path}: the log of another capture, step 6 of package.module:Thing (fingerprint 0123456789ab); this one is "
        "step 9 of package.module:Thing (fingerprint fedcba987654). Begin without --resume, or name the log of this "
        "capture with --log"
    )


@pytest.mark.parametrize("text", ["", "{}\n", "[1]\n", "no json\n", '{"log": "bisect"}\n'])
def test_what_is_no_log_is_refused(tmp_path, text):
    path = tmp_path / "bisect.jsonl"
    path.write_text(text)
    with pytest.raises(TrialLogError, match="no log of a bisection, or damaged"):
        resume(path, ABOUT)
    assert path.read_text() == text


def test_a_log_that_is_not_there_is_said(tmp_path):
    with pytest.raises(TrialLogError, match="no such file; leave --resume out to begin"):
        resume(tmp_path / "bisect.jsonl", ABOUT)


# Going on


@pytest.fixture(scope="module")
def complete(content, tmp_path_factory):
    """A verdict and the log that it left."""
    path = tmp_path_factory.mktemp("complete") / "bisect.jsonl"
    return verdict_of(content, path), path.read_bytes()


def keys_of(text):
    return [json.loads(line).get("key") for line in text.splitlines()]


def test_a_whole_log_is_gone_on_from_without_a_trial(complete, content, tmp_path):
    first, text = complete
    path, said = tmp_path / "bisect.jsonl", []
    path.write_bytes(text)
    assert verdict_of(content, path, resume=True, budget_s=0.0, progress=said.append) == first
    assert path.read_bytes() == text
    assert said[0] == f"{len(text.splitlines()) - 1} trials from {path}"


def test_a_torn_line_is_left_out_and_said(complete, content, tmp_path):
    first, text = complete
    path, said = tmp_path / "bisect.jsonl", []
    path.write_bytes(text[:-20])
    assert verdict_of(content, path, resume=True, progress=said.append) == first
    assert said[0].endswith("its last line torn and left out")
    assert keys_of(path.read_bytes()) == keys_of(text)


@settings(max_examples=3, suppress_health_check=[HealthCheck.too_slow])
@given(share=st.floats(0.02, 1.0))
def test_a_bisection_comes_to_the_same_verdict_from_any_prefix_of_its_log(complete, content, tmp_path_factory, share):
    first, text = complete
    head = text.index(b"\n") + 1
    path = tmp_path_factory.mktemp("prefix") / "bisect.jsonl"
    path.write_bytes(text[: head + int(share * (len(text) - head))])
    assert verdict_of(content, path, resume=True) == first
    assert keys_of(path.read_bytes()) == keys_of(text)


class Told:
    """Fails where all of `culprits` are kept; counts."""

    width = 1

    def __init__(self, culprits):
        self.culprits, self.ran = culprits, []

    def submit(self, job, timeout_s):
        fails = self.culprits <= set(job.trial.keep)
        self.ran.append(key_of(job))
        seen = Observation(losses=(float("nan") if fails else 1.0,))
        return lambda: Answer(value=to_json(seen), seconds=0.1)


def searched(runner, log, items):
    trials = Trials(None, None, runner=runner, log=log)
    found = ddmin(items, lambda kept: trials.ask("samples", Trial(keep=kept), harm).bad)
    return found, trials.count


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(n=st.integers(1, 10), share=st.floats(0, 1), data=st.data())
def test_a_search_comes_to_the_same_answer_from_any_prefix_of_its_log(tmp_path_factory, n, share, data):
    items = tuple((0, index) for index in range(n))
    runner = Told(data.draw(st.sets(st.sampled_from(items), min_size=1)))
    path = tmp_path_factory.mktemp("search") / "bisect.jsonl"
    first = searched(runner, begin(path, ABOUT)[0], items)
    text = path.read_bytes()
    head = text.index(b"\n") + 1
    path.write_bytes(text[: head + int(share * (len(text) - head))])
    log, _ = resume(path, ABOUT)
    known = len(log.answers)
    again = Told(runner.culprits)
    assert searched(again, log, items) == first
    assert again.ran == runner.ran[known:]
