"""From a failing step to a verdict: the right component, sample and cause, and honesty where there is none."""

import dataclasses
import importlib
import sys
from pathlib import Path

import pytest
import torch

from brainbrr_debug.bisect import bisect
from brainbrr_debug.errors import CannotRunHere
from brainbrr_debug.rerun import run_until_harm

sys.path.insert(0, str(Path(__file__).parent))
toy = importlib.import_module("toy_subjects")


def capture(subject, name="TieSubject", **options):
    content = run_until_harm(subject, f"toy_subjects:{name}", **options).content
    assert content is not None
    return content


@pytest.fixture(scope="module")
def tie():
    return capture(toy.TieSubject())


@pytest.fixture(scope="module")
def verdict(tie):
    return bisect(tie, subject=toy.TieSubject())


def test_the_verdict_names_component_operation_and_sample(verdict):
    assert (verdict.step, verdict.component, verdict.cause) == (3, "graph.pe", "batch")
    assert (verdict.origin.op, verdict.origin.phase) == ("aten::_linalg_eigh", "backward")
    assert verdict.mechanism == "repeated-eigenvalue"
    (sample,) = verdict.samples
    assert (sample["index"], sample["recording"], sample["start_s"]) == (2, "night.edf", 140.0)
    assert sample["electrodes"] == ["Fz", "Cz", "Pz", "Oz"]


def test_the_verdict_is_proved(verdict):
    assert verdict.necessary is True
    assert verdict.sufficient is True
    assert verdict.stable == {"k": 8, "n": 8}
    assert verdict.replay == {"reproduced": 3, "of": 3}
    assert verdict.details["replay"]["bit_exact"] is True
    assert verdict.details["disagreements"] == []
    assert verdict.trials <= 70  # of a bound of 150 for all questions


def test_distractors_do_not_heal_and_sanitising_is_no_repair(verdict):
    outcomes = {s["name"]: s["outcome"] for s in verdict.details["component"]["switches"]}
    assert outcomes == {
        "mix.enabled": "bad", "graph.enabled": "good", "graph.gradient": "good",
        "bias": "bad", "sanitize": "bad", "device": "skip",
    }  # fmt: skip
    first, second, last = verdict.repairs
    assert (first["changes"], first["heals"], first["hides"]) == ({"graph.gradient": "detached"}, True, False)
    assert (second["changes"], second["heals"]) == ({"graph.enabled": False}, True)
    assert (last["changes"], last["heals"], last["hides"]) == ({"sanitize": True}, False, True)
    assert not any(repair["proved"] for repair in verdict.repairs)


def test_switches_say_on_which_weights_they_were_tried_and_why_not(verdict):
    switches = {s["name"]: s for s in verdict.details["component"]["switches"]}
    assert switches["bias"]["weights"] == "fresh"
    assert switches["graph.gradient"]["weights"] == "before"
    assert switches["device"]["reason"] == "there is no GPU"
    assert switches["mix.enabled"]["notes"] == ["2 captured weights without a place, first mix.weight"]


def test_the_sentence_is_for_a_person(verdict):
    for words in (
        "linalg_eigh in module graph.pe",
        "sample 2 (night.edf, 140–150 s)",
        "Necessary: yes. Sufficient: yes.",
    ):
        assert words in verdict.sentence
    assert "8 of 8 re-initialisations" in verdict.sentence
    assert "graph.gradient=detached" in verdict.sentence


def test_the_document_is_the_frozen_one(verdict):
    document = verdict.to_dict()
    frozen = {
        "schema", "question", "step", "component", "origin", "samples", "cause", "necessary", "sufficient", "stable",
        "replay", "mechanism", "repairs", "trials", "seconds", "sentence",
    }  # fmt: skip
    assert frozen <= document.keys()
    assert document["schema"] == 1


def test_a_quiet_stretch_is_narrowed_down():
    class Stretch(toy.TieSubject):
        silent_step = -1

        def batches(self, seed):
            for step, ((signal,), target) in enumerate(super().batches(seed)):
                if step == 3:
                    signal[1, :, 16:24] = float("nan")
                yield (signal,), target

    (sample,) = bisect(capture(Stretch()), subject=Stretch()).samples
    assert sample["index"] == 1
    assert 16 <= sample["span"]["start"] < sample["span"]["stop"] <= 24
    assert sample["span"]["start_s"] == pytest.approx(130 + sample["span"]["start"] * 10 / 64, abs=1e-3)


def test_two_culprits_are_both_named():
    class Two(toy.TieSubject):
        def batches(self, seed):
            for (signal,), target in super().batches(seed):
                if not signal[2].any():
                    signal[0] = 0.0
                yield (signal,), target

    verdict = bisect(capture(Two()), subject=Two())
    assert [sample["index"] for sample in verdict.samples] == [0, 2]
    assert verdict.necessary and verdict.sufficient


def test_the_first_step_finds_its_healthy_batch_later():
    class First(toy.TieSubject):
        silent_step = 0

    content = capture(First())
    assert content.step == 0
    assert content.healthy_micro_batches is not None
    verdict = bisect(content, subject=First())
    assert (verdict.cause, [s["index"] for s in verdict.samples]) == ("batch", [2])


def test_without_a_healthy_batch_samples_are_dropped_instead(tie):
    alone = dataclasses.replace(tie, healthy_micro_batches=None)
    verdict = bisect(alone, subject=toy.TieSubject())
    assert [s["index"] for s in verdict.samples] == [2]
    assert verdict.necessary is True
    assert verdict.cause == "batch"
    assert verdict.details["cause"]["evidence"] == "the run passes step 3 with another batch"


def test_a_healthy_batch_that_fails_too_is_not_put_in_anybodys_place(tie):
    silent = torch.zeros_like(tie.healthy_micro_batches[0][0][0])
    silent[1:] = tie.healthy_micro_batches[0][0][0][1:]
    both = dataclasses.replace(tie, healthy_micro_batches=(((silent,), tie.healthy_micro_batches[0][1]),))
    verdict = bisect(both, subject=toy.TieSubject())
    assert [s["index"] for s in verdict.samples] == [2]
    assert verdict.details["samples"]["replaced"] is False


def test_a_drift_without_a_bad_batch_is_accumulation():
    verdict = bisect(capture(toy.DivergingSubject(), "DivergingSubject"), subject=toy.DivergingSubject())
    assert (verdict.cause, verdict.component, verdict.samples) == ("accumulation", "<loss>", ())
    assert "no batch is to blame" in verdict.sentence


def test_a_broken_optimizer_state_is_the_optimizer():
    class Corrupted(toy.TieSubject):
        silent_step = -1

        def batches(self, seed):
            for step, batch in enumerate(super().batches(seed)):
                if step == 2:
                    next(iter(self.run.optimizer.state.values()))["exp_avg_sq"].fill_(float("nan"))
                yield batch

        def build(self, seed, switches):
            self.run = super().build(seed, switches)
            return self.run

    subject = Corrupted()
    content = capture(subject)
    verdict = bisect(content, subject=subject)
    assert (content.step, verdict.cause, verdict.origin.phase) == (2, "optimizer", "optimizer")


def test_random_numbers_are_the_cause_where_others_heal():
    subject = toy.RandomSubject()
    verdict = bisect(capture(subject), subject=subject)
    assert (verdict.cause, verdict.samples) == ("rng", ())
    assert "with other random numbers" in verdict.sentence


def test_an_explosion_at_initialisation_is_the_weights():
    subject = toy.ExplodingSubject()
    verdict = bisect(capture(subject), subject=subject)
    assert (verdict.step, verdict.cause, verdict.samples) == (0, "weights", ())
    assert verdict.origin.phase == "forward"
    assert verdict.component == verdict.origin.module
    assert verdict.necessary and verdict.sufficient
    assert verdict.repairs[0]["changes"] == {"small": True}


def test_a_wrong_kernel_is_the_component_and_its_input_the_batch():
    subject = toy.KernelSubject()
    verdict = bisect(capture(subject), subject=subject)
    assert (verdict.component, verdict.cause) == ("1", "batch")
    assert [sample["index"] for sample in verdict.samples] == [3]
    assert verdict.origin.op == "WrongBackward"
    assert verdict.necessary and verdict.sufficient
    assert [repair["changes"] for repair in verdict.repairs] == [{"kernel": "torch"}]
    assert verdict.stable["k"] >= 6  # large inputs overflow with nearly all weights


@pytest.mark.parametrize(("name", "steps"), [("HealthySubject", 6), ("MaskedSubject", 8)])
def test_a_healthy_subject_is_left_alone(name, steps):
    rerun = run_until_harm(getattr(toy, name)(), f"toy_subjects:{name}")
    assert (rerun.steps, rerun.content) == (steps, None)


def test_a_healthy_captured_step_is_said_to_be_healthy(tie):
    from brainbrr_debug.records import Severity
    from brainbrr_debug.trial import Trial, observe

    healthy = dataclasses.replace(
        tie,
        micro_batches=tie.healthy_micro_batches,
        finding=dataclasses.replace(tie.finding, severity=Severity.P3),
        expected={},
    )
    expected = observe(healthy, toy.TieSubject(), Trial()).fingerprint
    verdict = bisect(dataclasses.replace(healthy, expected=dict(expected)), subject=toy.TieSubject())
    assert verdict.origin.healthy
    assert verdict.details["outcome"] == "healthy"
    assert verdict.sentence == "Step 3 is healthy: 3 of 3 repeats are finite."
    assert verdict.replay == {"reproduced": 0, "of": 3}


def test_a_failure_that_does_not_come_back_did_not_reproduce(tie):
    fixed = type(
        "Fixed", (toy.TieSubject,), {"build": lambda self, seed, s: toy.TieSubject().build(seed, SAFE | dict(s))}
    )
    verdict = bisect(tie, subject=fixed())
    assert verdict.details["outcome"] == "did-not-reproduce"
    assert verdict.sentence.startswith("Step 3 did not reproduce: it failed when it was captured")


def test_repeats_that_differ_are_blamed_on_hardware(tie):
    class Flaky(toy.TieSubject):
        repeats = 0

        def build(self, seed, switches):
            Flaky.repeats += 1
            return super().build(seed, SAFE if Flaky.repeats == 2 else switches)

    verdict = bisect(tie, subject=Flaky())
    assert verdict.cause == "hardware"
    assert verdict.replay == {"reproduced": 2, "of": 3}


def test_time_that_runs_out_leaves_questions_open(tie):
    verdict = bisect(tie, subject=toy.TieSubject(), budget_s=0.0)
    assert verdict.trials == 0
    assert verdict.details["outcome"] == "incomplete"
    assert "Not answered: real (the time ran out)." in verdict.sentence


def test_a_subject_that_breaks_cannot_run_here(tie):
    class Broken(toy.TieSubject):
        def build(self, seed, switches):
            raise KeyError("no such layer")

    with pytest.raises(CannotRunHere, match=r"does not run here: KeyError: 'no such layer'"):
        bisect(tie, subject=Broken())


def test_a_model_of_another_shape_cannot_run_here(tie):
    with pytest.raises(CannotRunHere, match="the captured model does not fit"):
        bisect(tie, subject=toy.DivergingSubject())


def test_global_generators_are_left_alone(tie):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    bisect(tie, subject=toy.TieSubject(), budget_s=0.3)
    assert torch.equal(torch.get_rng_state(), before)


def test_every_new_trial_is_logged(tie, tmp_path):
    import json

    log = tmp_path / "bisect.jsonl"
    verdict = bisect(tie, subject=toy.TieSubject(), log=log)
    head, *lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert (head["log"], head["step"], head["subject"]) == ("bisect", 3, "toy_subjects:TieSubject")
    assert [line["trial"] for line in lines] == list(range(1, verdict.trials + 1))
    assert {"trial", "question", "changes", "outcome", "reason"} <= lines[0].keys()
    assert [line["question"] for line in lines][:3] == ["real", "real", "real"]


SAFE = {"graph.gradient": "detached"}
