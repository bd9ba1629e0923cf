"""When did it begin? A step that suffers from an earlier one is not blamed for it."""

import dataclasses
import importlib
import sys
from pathlib import Path

import pytest
import torch

from brainbrr_debug.bisect import bisect
from brainbrr_debug.questions.beginning import indicated, risen, when_did_it_begin
from brainbrr_debug.records import Reading
from brainbrr_debug.rerun import run_until_harm

sys.path.insert(0, str(Path(__file__).parent))
causes = importlib.import_module("cause_subjects")
toy = importlib.import_module("toy_subjects")

DAMAGED, NOTICED = 5, 9


class Late(causes.LinearSubject):
    """A huge sample makes step 5 damage the weights; they stay finite until a batch of step 9 meets them."""

    steps = 14

    def optimizer(self, model):
        return torch.optim.SGD(model.parameters(), lr=1e-3)

    def model(self, switches):
        return torch.nn.Linear(8, 1)

    def spoiled(self, step, signal):
        if step == DAMAGED:
            signal[2] = 1e5
        if step > DAMAGED:
            signal *= 1e-3
        if step == NOTICED:
            signal *= 1e30
        return signal


class Outside(causes.LinearSubject):
    """Something between the steps damages the weights."""

    def spoiled(self, step, signal):
        if step == DAMAGED:
            self.run.model[2].weight.data.mul_(1e6)
        if step == NOTICED:
            signal[0] = float("nan")
        return signal

    steps = 14


@pytest.fixture(scope="module")
def late():
    content = run_until_harm(Late(), "x:Late").content
    assert content.step == NOTICED
    return content


def test_the_step_that_damaged_the_weights_is_blamed(late):
    verdict = bisect(late, subject=Late())
    assert (verdict.step, verdict.cause) == (DAMAGED, "batch")
    assert [sample["index"] for sample in verdict.samples] == [2]
    assert verdict.details["outcome"] == "verdict"
    for words in (
        "the loss rose",
        "and stayed there",
        "from the run's seed it began at step 5: the update makes weight",
    ):
        assert words in verdict.sentence


def test_damage_between_two_steps_is_dated_and_no_step_is_taken_for_it():
    content = run_until_harm(Outside(), "x:Outside").content
    assert content.step == NOTICED
    found = when_did_it_begin(content, Outside())
    assert found.step == DAMAGED
    assert found.content is content
    assert "2.weight became 1e+06 times as large before step 5, in no step" in found.told


@pytest.mark.parametrize("name", ["TieSubject", "DivergingSubject", "RandomSubject", "KernelSubject"])
def test_a_healthy_history_leaves_the_step_alone(name):
    subject = getattr(toy, name)()
    content = run_until_harm(subject, f"toy_subjects:{name}").content
    found = when_did_it_begin(content, subject)
    assert (found.step, found.content, found.abnormal) == (content.step, content, None)


@pytest.mark.parametrize("name", ["TooHighRate", "JumpingRate", "BadBatch"])
def test_so_do_a_drift_and_a_batch(name):
    subject = getattr(causes, name)()
    content = run_until_harm(subject, f"cause_subjects:{name}").content
    found = when_did_it_begin(content, subject)
    assert found.content is content


def test_a_run_that_goes_another_way_shows_nothing(late):
    class Other(Late):
        def spoiled(self, step, signal):
            return signal + 1

    found = when_did_it_begin(late, Other())
    assert found.content is late
    assert found.told.startswith("the run from the run's seed goes another way: its loss at step 0 is ")


def test_weights_that_were_not_finite_already_are_followed_back():
    subject = causes.PoisonedWeights()
    content = run_until_harm(subject, "cause_subjects:PoisonedWeights").content
    later = dataclasses.replace(content, step=content.step + 1, readings=content.readings)
    found = when_did_it_begin(later, subject)
    assert found.step == content.step


def test_generators_are_left_alone(late):
    torch.manual_seed(4)
    before = torch.get_rng_state()
    when_did_it_begin(late, Late())
    assert torch.equal(torch.get_rng_state(), before)


def losses(*values):
    return [Reading(step=i, phase="forward", site="<loss>", quantity="loss", value=v) for i, v in enumerate(values)]


def test_a_level_rises_once_and_stays():
    assert risen(losses(1, 2, 1, 1, 1000, 2000)) == (4, "the loss rose 500-fold at step 4, and stayed there")
    assert risen(losses(1, 2, 1, 1, 1000, 2)) is None
    assert risen(losses(1, 1000, 1e6, 1e9, 1e12)) is None
    assert risen(losses(1, 1000)) is None
    assert risen(losses(0, 0, 0, 1)) is None
    assert risen([]) is None


def test_growth_begins_where_it_left_the_level():
    level = [1.0, 1.1, 0.9, 1.0, 1.05, 1.0]
    step, told = indicated(losses(*level, *(2.0**k for k in range(1, 12))))
    assert 3 <= step <= 6
    assert "the loss grows" in told
    assert indicated(losses(*(2.0**k for k in range(20)))) is None
    assert indicated(losses(*level)) is None


def test_a_rate_that_leaves_its_schedule_is_a_sign():
    def rate(step, quantity, value):
        return Reading(step=step, phase="optimizer", site="<optimizer>", quantity=quantity, value=value)

    rows = [rate(step, "learning_rate", 1e-3 if step < 4 else 1.0) for step in range(8)]
    rows.insert(5, rate(4, "learning_rate.expected", 1e-3))
    step, told = indicated(rows)
    assert step == 4
    assert "the schedule says 0.001" in told
