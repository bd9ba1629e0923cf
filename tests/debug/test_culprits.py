"""Which samples, electrodes and seconds: what is named is what was planted, and nothing beside it."""

import dataclasses
import importlib
import sys
from pathlib import Path

import pytest
import torch

from brainbrr_debug.questions.culprits import odd_channels, which_samples
from brainbrr_debug.questions.electrodes import which_electrodes
from brainbrr_debug.questions.reality import is_it_real
from brainbrr_debug.questions.stretch import described
from brainbrr_debug.records import Outcome
from brainbrr_debug.rerun import run_until_harm
from brainbrr_debug.samples import Span, replace_spans
from brainbrr_debug.sentence import electrodes
from brainbrr_debug.trials import Trials

sys.path.insert(0, str(Path(__file__).parent))
toy = importlib.import_module("toy_subjects")


class Planted(toy.TieSubject):
    """`plant` alters the signal (4, 4, 64) of step 3."""

    silent_step = -1

    @staticmethod
    def plant(signal):
        pass

    def batches(self, seed):
        for step, ((signal,), target) in enumerate(super().batches(seed)):
            if step == 3:
                self.plant(signal)
            yield (signal,), target


def rows(plant, *, electrodes_asked=True, before=lambda content: content, **attributes):
    subject = type("Case", (Planted,), {"plant": staticmethod(plant), **attributes})()
    content = before(run_until_harm(subject, "x:Case").content)
    trials = Trials(content, subject)
    oracles = is_it_real(trials, times=1).oracles
    found = which_samples(trials, oracles)
    if electrodes_asked:
        found = which_electrodes(trials, found, oracles)
    return described(trials, found, oracles).described, trials


def one_electrode(signal):
    signal[1, 2, 16:20] = float("nan")


def test_one_bad_electrode_is_named_with_its_seconds():
    (row,), _ = rows(one_electrode)
    assert (row["index"], row["electrodes"], row["electrodes_are"]) == (1, ["Pz"], "not finite in that stretch")
    assert (row["span"]["start"], row["span"]["stop"]) == (16, 20) or row["span"]["stop"] - row["span"]["start"] <= 4
    assert electrodes(row) == "not finite in that stretch: Pz"
    assert row["recording"] == "night.edf"


def test_a_signal_that_is_odd_in_no_visible_way_is_searched_for():
    def huge(signal):
        signal[2, 1, 8:12] *= 1e30

    (row,), _ = rows(huge)
    assert (row["index"], row["electrodes"], row["electrodes_are"]) == (2, ["Cz"], "these suffice")


def test_an_electrode_that_is_always_flat_is_not_blamed():
    def flat_and_bad(signal):
        one_electrode(signal)

    class Flat:
        @staticmethod
        def batches(self, seed):
            for (signal,), target in Planted.batches(self, seed):
                signal[:, 0] = 0.0
                yield (signal,), target

    (row,), _ = rows(flat_and_bad, batches=Flat.batches)
    assert row["electrodes"] == ["Pz"]


def test_all_electrodes_are_named_where_all_are_silent_and_fewer_suffice():
    def silent(signal):
        signal[2] = 0.0

    (row,), _ = rows(silent)
    assert row["electrodes"] == ["Fz", "Cz", "Pz", "Oz"]
    assert row["electrodes_are"] == "mostly constant in that stretch"
    assert 0 < len(row.get("electrodes_suffice", row["electrodes"])) <= 4


def test_unnamed_channels_are_numbered():
    (row,), _ = rows(one_electrode, channels=None)
    assert row["electrodes"] == ["channel 2"]


def test_an_oracle_that_changes_its_mind_is_said_to():
    class Moody(Planted):
        plant = staticmethod(one_electrode)

    subject = Moody()
    content = run_until_harm(subject, "x:Moody").content
    trials = Trials(content, subject)
    oracles = is_it_real(trials, times=1).oracles
    found = which_samples(trials, oracles)

    class Trick:
        """The last repeat of the answer says the opposite."""

        def __init__(self):
            self.content, self.subject, self.asked = trials.content, trials.subject, []

        def ask(self, question, trial, oracle):
            result = trials.ask(question, trial, oracle)
            again = self.asked.count(trial.key()) > 1
            self.asked.append(trial.key())
            return dataclasses.replace(result, outcome=Outcome.GOOD) if again else result

    answer = which_electrodes(Trick(), found, oracles)
    assert answer.electrodes[(0, 1)].inconsistent == "the same set failed and then did not"
    row = described(trials, answer, oracles).described[0]
    assert "(the same set failed and then did not)" in electrodes(row)


def test_without_a_healthy_batch_no_electrode_is_named():
    (row,), _ = rows(one_electrode, before=lambda content: dataclasses.replace(content, healthy_micro_batches=None))
    assert "electrodes" not in row


def test_channels_of_a_span_are_replaced_alone():
    batch = ((torch.zeros(2, 3, 8),), torch.zeros(2))
    spare = ((torch.ones(2, 3, 8),), torch.zeros(2))
    ((altered,), _) = replace_spans((batch,), (spare,), [Span(sample=(0, 1), start=2, stop=5, channels=(0, 2))])[0]
    assert altered[1, 0].tolist() == altered[1, 2].tolist() == [0, 0, 1, 1, 1, 0, 0, 0]
    assert not altered[1, 1].any() and not altered[0].any()
    assert not batch[0][0].any()


@pytest.mark.parametrize(("part", "odd"), [(10, ()), (40, (1,)), (64, (1,))])
def test_a_channel_is_still_when_most_of_it_is(part, odd):
    healthy = torch.randn(3, 64, generator=torch.Generator().manual_seed(0))
    signal = healthy.clone()
    signal[1, :part] = 0.5
    assert odd_channels(signal, healthy) == {"not finite": (), "mostly constant": odd}
