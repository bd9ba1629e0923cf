"""Trials: what is changed is changed, everything else is as captured, and a crash is an outcome."""

import dataclasses
import importlib
import sys
from pathlib import Path

import pytest
import torch

from brainbrr_debug.errors import CannotRunHere
from brainbrr_debug.fingerprint import mismatches
from brainbrr_debug.observation import Decomposition, Observation
from brainbrr_debug.oracle import Indicator, choose, harm
from brainbrr_debug.questions.cause import growth, judge
from brainbrr_debug.questions.components import Tried
from brainbrr_debug.questions.components import choose as choose_component
from brainbrr_debug.questions.stability import same_answer
from brainbrr_debug.questions.sufficiency import fails_alone
from brainbrr_debug.records import Finding, Origin, Outcome, Reading, Severity
from brainbrr_debug.rerun import run_until_harm
from brainbrr_debug.samples import Span, keep_samples, replace_spans, replaceable, samples_of
from brainbrr_debug.subject import Switch
from brainbrr_debug.trial import Trial, batches_of, caused_by_nonfinite, load_captured_subject, observe, prepare
from brainbrr_debug.trials import OutOfBudget, Trials

sys.path.insert(0, str(Path(__file__).parent))
toy = importlib.import_module("toy_subjects")


@pytest.fixture(scope="module")
def content():
    found = run_until_harm(toy.TieSubject(), "toy_subjects:TieSubject").content
    assert found is not None
    return found


@pytest.fixture
def trials(content):
    return Trials(content, toy.TieSubject())


# Repeats


def test_a_repeat_has_the_bits_of_the_run(content):
    assert mismatches(content.expected, observe(content, toy.TieSubject(), Trial()).fingerprint) == []


def test_a_repeat_reads_what_the_step_shows(content):
    seen = observe(content, toy.TieSubject(), Trial())
    worst = seen.smallest_gap()
    assert (worst.site, worst.op, worst.sample, worst.differentiated) == ("graph.pe", "torch.linalg.eigh", 2, True)
    assert worst.gap < 1e-7 < 1e-4 < min(gap for sample, gap in enumerate(worst.gaps) if sample != 2)
    assert seen.gradients_nonfinite == ("encode.weight",)
    assert "encode.weight" in seen.state_nonfinite
    quantities = [r.quantity for r in seen.readings(3)]
    assert quantities[:2] == ["loss", "eigengap"]
    assert [r.order for r in seen.readings(3)] == list(range(len(quantities)))


def test_a_detached_encoding_is_degenerate_and_does_no_harm(content):
    seen = observe(content, toy.TieSubject(), Trial(switches=(("graph.gradient", "detached"),)))
    assert seen.decompositions[0].gap < 1e-7
    assert not seen.decompositions[0].differentiated
    assert harm(seen).outcome is Outcome.GOOD
    assert Indicator()(seen).outcome is Outcome.GOOD


def test_fresh_weights_are_those_of_the_seed(content):
    run, _, _ = prepare(content, toy.TieSubject(), Trial(weights="fresh", seed=9))
    other = toy.TieSubject().build(9, {}).model.state_dict()
    assert all(torch.equal(x, other[name]) for name, x in run.model.state_dict().items())


def test_perturbed_weights_differ_by_little(content):
    run, _, _ = prepare(content, toy.TieSubject(), Trial(weights="perturbed", seed=1))
    for name, x in run.model.state_dict().items():
        assert not torch.equal(x, content.model_state[name])
        torch.testing.assert_close(x, content.model_state[name], rtol=1e-3, atol=0)


def test_weights_after_the_step_are_damaged(content):
    seen = observe(content, toy.TieSubject(), Trial(weights="after", healthy_batch=True))
    assert harm(seen).outcome is Outcome.BAD


def test_another_precision_is_used_throughout(content):
    run, batches, _ = prepare(content, toy.TieSubject(), Trial(dtype="float64"))
    assert {p.dtype for p in run.model.parameters()} == {torch.float64}
    assert batches[0][0][0].dtype == batches[0][1].dtype == torch.float64
    assert observe(content, toy.TieSubject(), Trial(dtype="float64")).gradients == 7


def test_what_a_switch_does_to_the_weights_is_noted(content):
    seen = observe(content, toy.TieSubject(), Trial(switches=(("mix.enabled", False),)))
    assert seen.notes == ("2 captured weights without a place, first mix.weight",)


# Batches


def test_samples_outside_are_replaced_and_the_capture_stays_as_it_is(content):
    before = content.micro_batches[0][0][0].clone()
    (((signal,), target),) = batches_of(content, Trial(keep=((0, 2),)))
    (healthy,), healthy_target = content.healthy_micro_batches[0]
    assert torch.equal(signal[2], before[2])
    assert torch.equal(signal[[0, 1, 3]], healthy[[0, 1, 3]])
    assert torch.equal(target[[0, 1, 3]], healthy_target[[0, 1, 3]])
    assert torch.equal(content.micro_batches[0][0][0], before)


def test_samples_can_be_left_out_instead(content):
    (((signal,), target),) = batches_of(content, Trial(keep=((0, 2),), alone=True))
    assert signal.shape[0] == target.shape[0] == 1


def test_micro_batches_keep_their_places():
    batch = ((torch.arange(6.0).reshape(3, 2),), torch.arange(3))
    spare = ((-torch.ones(2, 2),), -torch.ones(2, dtype=torch.int64))
    assert samples_of((batch, batch)) == ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2))
    first, second = keep_samples((batch, batch), (spare,), {(0, 1), (1, 0), (1, 2)})
    assert first[0][0].tolist() == [[-1, -1], [2, 3], [-1, -1]]
    assert second[1].tolist() == [0, -1, 2]
    (only,) = keep_samples((batch, batch), None, {(1, 1)})
    assert only[1].tolist() == [1]


def test_spans_come_from_the_healthy_batch():
    batch = ((torch.zeros(2, 3, 8),), torch.zeros(2))
    spare = ((torch.ones(2, 3, 8),), torch.zeros(2))
    (altered,) = replace_spans((batch,), (spare,), [Span(sample=(0, 1), start=2, stop=5)])
    assert altered[0][0][1, 0].tolist() == [0, 0, 1, 1, 1, 0, 0, 0]
    assert not altered[0][0][0].any()


def test_why_samples_cannot_be_replaced():
    batch = ((torch.zeros(2, 3),), torch.zeros(2))
    assert replaceable((batch,), None) == "the capture holds no healthy batch"
    assert (
        replaceable((batch,), (((torch.zeros(2, 4),), torch.zeros(2)),))
        == "a healthy sample is (4,) and a captured one (3,)"
    )
    assert "tensors" in replaceable((batch,), (((torch.zeros(2, 3), torch.zeros(2)), torch.zeros(2)),))


# Oracles


def test_harm_is_what_stays_behind_and_not_what_is_masked():
    assert harm(Observation(losses=(1.0,), outputs=4, output_nan=1)).outcome is Outcome.GOOD
    assert harm(Observation(losses=(1.0,), outputs=4, output_nan=1), outputs=True).outcome is Outcome.BAD
    assert harm(Observation(losses=(float("inf"),))).reason == "loss inf"
    assert harm(Observation(losses=(1.0,), state_nonfinite=("w",))).outcome is Outcome.BAD
    assert harm(Observation(error="LinAlgError: x")).reason == "LinAlgError: x"


def test_a_step_that_the_scaler_discards_is_good():
    seen = Observation(losses=(1.0,), gradients=2, gradients_nonfinite=("w",), discarded=True)
    assert harm(seen).outcome is Outcome.GOOD


def seen_with(gap):
    tie = Decomposition(site="pe", op="eigh", location="", micro_batch=0, gap=gap, gaps=(1.0, gap), differentiated=True)
    return Observation(losses=(1.0,), decompositions=(tie,))


def test_a_tie_is_bad_before_it_does_harm():
    seen = seen_with(1e-16)
    oracles = choose(None, seen)
    assert oracles.leading == "relative eigengap"
    assert oracles.indicator(seen).reason == "relative gap 1.0e-16 at pe, sample 1"
    assert oracles.harm(seen).outcome is Outcome.GOOD
    assert oracles.indicator(seen_with(1e-8)).outcome is Outcome.GOOD


def test_a_near_tie_leads_and_is_not_bad_by_itself():
    seen = seen_with(1e-8)
    assert choose(None, seen).leading == "relative eigengap"
    assert choose(None, seen).indicator(seen).outcome is Outcome.GOOD
    assert choose(None, seen_with(1e-3)).leading is None


def test_an_eigengap_finding_states_what_is_bad():
    stated = Finding(check="run.eigengap", severity=Severity.P1, message="", evidence={"threshold": 1e-2})
    seen = seen_with(1e-3)
    assert choose(stated, seen).indicator(seen).outcome is Outcome.BAD


def test_a_gap_through_which_no_gradient_flows_leads_nowhere():
    tie = Decomposition(site="pe", op="eigh", location="", micro_batch=0, gap=0.0)
    assert Indicator()(Observation(losses=(1.0,), decompositions=(tie,))).outcome is Outcome.GOOD


@pytest.mark.parametrize(
    ("this", "healthy", "fresh", "fresh_healthy", "word"),
    [
        (True, False, True, False, "batch"),
        (True, False, False, False, "batch"),
        (True, True, False, False, "weights"),
        (True, True, True, True, "weights"),
        (True, True, True, False, None),
        (True, None, True, None, None),
        (True, None, False, None, None),
        (False, False, False, False, None),
    ],
)
def test_the_cause_follows_from_the_matrix(this, healthy, fresh, fresh_healthy, word):
    outcomes = {
        "before weights, this batch": this, "before weights, healthy batch": healthy,
        "fresh weights, this batch": fresh, "fresh weights, healthy batch": fresh_healthy,
    }  # fmt: skip
    assert judge(outcomes, reseeded_heals=False, poisoned=None, grew=None).cause == word


def test_other_evidence_comes_before_the_matrix():
    bad = {"before weights, this batch": True, "before weights, healthy batch": True}
    assert judge(bad, reseeded_heals=True, poisoned=None, grew=None).cause == "rng"
    assert judge(bad, reseeded_heals=True, poisoned="w", grew=None).cause == "weights"
    assert judge(bad, reseeded_heals=False, poisoned=None, grew="the loss grew").cause == "accumulation"


def test_growth_is_seen_in_readings_and_not_imagined():
    def readings(values):
        return [Reading(step=i, phase="forward", site="<loss>", quantity="loss", value=v) for i, v in enumerate(values)]

    assert growth(readings([1.0, 2.0, 1.5, 1.0, 2.0, 1.2, 1.1, 1.0, float("inf")])) is None
    assert "30-fold over 8 steps" in growth(readings([1, 1, 3, 5, 10, 20, 30, 30, float("inf")]))
    assert growth(readings([1.0, 20.0, float("nan")])) is None
    assert growth([]) is None


# Stability


def test_the_same_answer_is_the_leading_reading_at_the_blamed_place():
    from brainbrr_debug.trials import Result

    def answer(gap, samples, component):
        seen = seen_with(gap)
        result = Result(question="", trial=Trial(), outcome=Outcome.GOOD, reason="", seconds=0.0, observation=seen)
        return same_answer(result, choose(None, seen_with(0.0)), samples, component)

    assert answer(1e-8, ((0, 1),), "pe")
    assert not answer(1e-8, ((0, 0),), "pe")
    assert not answer(1e-8, ((0, 1),), "head")
    assert not answer(1e-3, ((0, 1),), "pe")
    assert answer(1e-8, (), None)


# Components


def tried(name, component, outcome=Outcome.GOOD):
    from brainbrr_debug.trials import Result

    result = Result(question="component", trial=Trial(), outcome=outcome, reason="", seconds=0.0, observation=None)
    return Tried(name=name, switch=Switch(values=(1, 0), safe=0, component=component), value=0, result=result)


@pytest.mark.parametrize(
    ("components", "module", "chosen", "disagrees"),
    [
        (["graph", "graph.pe"], "graph.pe", "graph.pe", False),
        (["graph", "graph.pe"], "graph.pe.inner", "graph.pe", False),
        (["graph"], "graph.pe", "graph", False),
        (["graph.pe"], "graph", "graph.pe", False),
        (["head"], "graph.pe", "graph.pe", True),
        ([], "graph.pe", "graph.pe", False),
        ([None], "graph.pe", "graph.pe", False),
    ],
)
def test_the_component_is_the_most_specific_that_fits_the_origin(components, module, chosen, disagrees):
    origin = Origin(healthy=False, module=module, op="aten::x")
    found, disagreement = choose_component([tried(str(c), c) for c in components], origin)
    assert found == chosen
    assert (disagreement is not None) is disagrees


def test_without_an_origin_the_deepest_healing_component_is_chosen():
    assert choose_component([tried("a", "graph"), tried("b", "graph.pe")], Origin(healthy=True))[0] == "graph.pe"


@pytest.mark.parametrize(
    ("component", "fails"), [("graph.pe", True), ("graph", True), ("encode", False), ("head", False), ("<loss>", False)]
)
def test_a_component_fails_alone_or_does_not(trials, component, fails):
    assert fails_alone(trials, component).fails is fails


def test_a_component_that_is_no_module_cannot_be_tried_alone(trials):
    assert fails_alone(trials, "nowhere").reason == "nowhere is no module of the model"


# The runner


def test_a_question_that_was_asked_costs_nothing(trials):
    first = trials.ask("one", Trial(), harm)
    again = trials.ask("two", Trial(), Indicator())
    assert trials.count == 1
    assert again.seconds == 0.0
    assert first.observation is again.observation
    assert [r.question for r in trials.results] == ["one", "two"]


def test_a_program_that_crashes_is_skipped_with_the_reason(content):
    class Broken(toy.TieSubject):
        def build(self, seed, switches):
            raise TypeError("forward() missing 1 argument")

    result = Trials(content, Broken()).ask("real", Trial(), harm)
    assert (result.outcome, result.reason) == (Outcome.SKIP, "TypeError: forward() missing 1 argument")
    assert result.bad is None


def test_no_trial_begins_after_the_deadline(content):
    with pytest.raises(OutOfBudget):
        Trials(content, toy.TieSubject(), deadline=0.0).ask("real", Trial(), harm)


def test_generators_outlive_a_trial(trials):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    trials.ask("real", Trial(weights="fresh", seed=11), harm)
    assert torch.equal(torch.get_rng_state(), before)


def test_which_exceptions_a_number_caused():
    assert caused_by_nonfinite(torch.linalg.LinAlgError("failed to converge"))
    assert caused_by_nonfinite(ValueError("Expected parameter loc to satisfy Real(), but found invalid values: nan"))
    assert not caused_by_nonfinite(RuntimeError("shape mismatch in information"))


def test_the_captured_configuration_builds_the_subject(content):
    configured = dataclasses.replace(
        content, subject="toy_subjects:ConfiguredSubject", config={"graph.gradient": "detached"}
    )
    subject = load_captured_subject(configured)
    assert subject.build(0, {}).model.graph.pe.gradient == "detached"


@pytest.mark.parametrize("name", ["no.such.module:Thing", "toy_subjects:Nothing", "", "toy_subjects"])
def test_a_subject_that_is_not_here_cannot_run_here(content, name):
    with pytest.raises(CannotRunHere, match="cannot be loaded here"):
        load_captured_subject(dataclasses.replace(content, subject=name))
