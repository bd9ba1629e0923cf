"""One word for the cause, with its evidence; and no word where the evidence disagrees."""

import importlib
import sys
from pathlib import Path

import pytest

from brainbrr_debug.oracle import Harm
from brainbrr_debug.questions import sequence
from brainbrr_debug.questions.cause import data_or_weights
from brainbrr_debug.questions.reality import is_it_real
from brainbrr_debug.questions.sequence import always_there, before_jump
from brainbrr_debug.rerun import run_until_harm
from brainbrr_debug.trials import Trials

sys.path.insert(0, str(Path(__file__).parent))
causes = importlib.import_module("cause_subjects")
toy = importlib.import_module("toy_subjects")


def asked(name, place=causes):
    """The matrix and what the runs from the seed add to it."""
    subject = getattr(place, name)()
    content = run_until_harm(subject, f"{place.__name__}:{name}").content
    trials = Trials(content, subject)
    oracles = is_it_real(trials, times=1).oracles
    matrix = data_or_weights(trials, oracles)
    return content, matrix, always_there(trials, oracles, matrix)


@pytest.mark.parametrize(
    ("name", "step", "word", "told"),
    [
        ("BadBatch", 5, "batch", "fresh weights fail on it too"),
        ("DamagedWeights", 5, "weights", "fail on a healthy batch too, fresh ones pass it"),
        ("PoisonedWeights", 5, "weights", "2.weight was not finite when the step began"),
        ("CorruptedState", 5, "optimizer", "a fresh state of the optimizer heals it"),
        ("EndlessRate", 5, "schedule", "the rate that the program begins with heals it, inf does not"),
        ("JumpingRate", 5, "schedule", "no rate above those before its jump the run passes step 5"),
        ("TooHighRate", None, "accumulation", "no batch is to blame"),
    ],
)
def test_every_planted_cause_has_its_word(name, step, word, told):
    content, _, found = asked(name)
    assert step is None or content.step == step
    assert found.skipped is None
    assert found.cause == word, found
    assert told in found.evidence


def test_a_rate_that_grows_is_the_schedule():
    _, _, found = asked("GrowingRate")
    assert found.cause == "schedule"


@pytest.mark.parametrize(("name", "word"), [("RandomSubject", "rng"), ("ExplodingSubject", "weights")])
def test_the_toys_have_theirs(name, word):
    assert asked(name, toy)[2].cause == word


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("BatchAndState", {"batch", "optimizer"}),
        ("BatchAndWeights", {"batch", "weights"}),
        ("StateAndRate", {"optimizer", "schedule"}),
        ("BatchAndNumbers", {"rng", "batch"}),
    ],
)
def test_two_faults_at_once_are_a_disagreement_and_no_guess(name, words):
    _, matrix, found = asked(name)
    assert matrix.cause is None
    assert found.cause is None
    assert set(found.proofs) == words
    assert found.evidence.startswith("the evidence disagrees: for ")


def test_the_runs_say_what_belongs_to_the_batch_and_what_to_its_place():
    _, _, batch = asked("BadBatch")
    fails = {run.name: run.fails for run in batch.runs}
    assert fails == {
        "the same batch at step 2": True,
        "another batch at step 5": False,
        "another seed": True,
        "the batches in another order": True,
        "no updates before step 5": True,
    }
    _, _, drift = asked("TooHighRate")
    fails = {run.name.split(" step")[0]: run.fails for run in drift.runs}
    assert fails["the same batch at"] is False
    assert fails["another batch at"] is True
    assert fails["no updates before"] is False
    assert fails["a tenth of every rate"] is False


def test_a_step_too_far_from_the_seed_is_not_run_up_to(monkeypatch):
    monkeypatch.setattr(sequence, "PATIENCE", 0.0)
    _, _, found = asked("BadBatch")
    assert found.skipped.startswith("8 runs of 6 steps would take about")


def test_a_run_that_goes_otherwise_from_its_seed_says_nothing():
    class Healthy(causes.BadBatch):
        def spoiled(self, step, signal):
            return signal

    content = run_until_harm(causes.BadBatch(), "cause_subjects:BadBatch").content
    trials = Trials(content, Healthy())
    oracles = is_it_real(trials, times=1).oracles
    found = always_there(trials, oracles, data_or_weights(trials, oracles))
    assert found.skipped == "the run from its seed is healthy up to there, and the captured step is 5"


def test_without_a_healthy_batch_the_run_knows_another_one():
    import dataclasses

    content = run_until_harm(causes.BadBatch(), "cause_subjects:BadBatch").content
    trials = Trials(dataclasses.replace(content, healthy_micro_batches=None), causes.BadBatch())
    oracles = is_it_real(trials, times=1).oracles
    matrix = data_or_weights(trials, oracles)
    assert matrix.cause is None
    found = always_there(trials, oracles, matrix)
    assert (found.cause, found.proofs["batch"]) == ("batch", "the run passes step 5 with another batch")


def test_a_schedule_is_suspected_only_where_a_rate_jumps():
    assert before_jump([0.1, 0.2, 0.3, 1.0, 0.5, 0.01, 0.02]) is None
    assert before_jump([0.0, 0.1, 0.2, 2.0]) == 0.2
    assert before_jump([1.0, 1.0, "nan"]) == 1.0
    assert before_jump([1.0, "inf"]) == 1.0
    assert before_jump([]) is None


def test_a_course_that_changes_nothing_is_the_run(monkeypatch):
    from brainbrr_debug.course import Course

    subject = causes.BadBatch()
    content = run_until_harm(subject, "cause_subjects:BadBatch").content
    as_it_was = Course(until=5, oracle=Harm())(content, subject)
    assert (as_it_was["failed"], as_it_was["exact"], as_it_was["rates"]) == (5, True, [0.01] * 6)
    frozen = Course(until=5, oracle=Harm(), frozen=True)(content, subject)
    assert frozen["exact"] is False
    shifted = Course(until=5, oracle=Harm(), reordered=True)(content, subject)
    assert (shifted["failed"], shifted["exact"]) == (5, False)


def test_a_verdict_on_two_faults_names_both_and_chooses_neither():
    from brainbrr_debug.bisect import bisect

    subject = causes.BatchAndWeights()
    verdict = bisect(run_until_harm(subject, "cause_subjects:BatchAndWeights").content, subject=subject)
    assert verdict.cause is None
    for words in (
        "The cause could not be told apart: the evidence disagrees: for batch speaks that",
        "for weights speaks that the captured weights fail on a healthy batch",
        "The run from its seed, which fails at step 5, fails as well with ",
    ):
        assert words in verdict.sentence


def test_contradictions_are_told():
    from brainbrr_debug.sentence import disagreements

    fine = {
        "cause": {"evidence": "e"},
        "sequence": {"proofs": {"batch": "e"}, "evidence": "e"},
        "component": {"component": "graph.pe"},
        "precision": {"modules": ["graph"]},
    }
    assert disagreements(fine) == []
    torn = {
        **fine,
        "sequence": {"proofs": {"batch": "a", "weights": "b"}, "evidence": "the evidence disagrees: a; b"},
        "precision": {"modules": ["head"]},
    }
    assert disagreements(torn) == [
        "of the cause, the evidence disagrees: a; b",
        "float64 in head heals it, but the component is graph.pe",
    ]
