"""The certificate: granted to what learns, refused for each thing that can be wrong, by name."""

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch

from brainbrr_debug.capture import read_capture
from brainbrr_debug.cli import cli
from brainbrr_debug.errors import CannotRunHere
from brainbrr_debug.main import exit_code
from brainbrr_debug.prove import OutOfTime, prove
from brainbrr_debug.recipe import Recipe
from brainbrr_debug.rundir import RunDir
from brainbrr_debug.witness import Plan

sys.path.insert(0, str(Path(__file__).parent))
subjects = importlib.import_module("proof_subjects")

ORDER = ["switched off", "finite", "untouched", "schedule", "input", "learns"]


def certify(name, *, steps=40, run_dir=None, **changes):
    recipe = Recipe(subject=getattr(subjects, name)(), name=f"proof_subjects:{name}", seed=0, changes=changes)
    return prove(Plan(recipe=recipe, steps=steps, run_dir=run_dir))


def failed(certificate):
    return [c.name for c in certificate.criteria if c.passed is False]


@pytest.mark.parametrize("name", ["Learner", "OneShot", "Scheduled", "Planned", "Saturating", "Scaling", "Branched"])
def test_what_learns_is_certified(name):
    certificate = certify(name)
    assert certificate.granted, certificate.text()
    assert (certificate.steps, certificate.hides) == (40, False)
    assert [c.name for c in certificate.criteria] == ORDER
    assert [c.passed for c in certificate.criteria] == [None, True, True, True, True, True]


@pytest.mark.parametrize(
    ("name", "criterion", "words"),
    [
        ("NonFinite", "finite", "step 3: the gradient is not finite"),
        ("Sanitised", "untouched", "step 3: 1 values that were not finite were made finite in 0 (tests/debug/proof_"),
        ("Hooked", "untouched", "that were not finite were made finite (tests/debug/proof_subjects.py:"),
        ("Clamped", "untouched", "values were held at a bound by a clamp in 1 (tests/debug/proof_subjects.py:"),
        ("Skipping", "untouched", "step 7: the optimizer made no update"),
        ("Ungated", "untouched", "step 0: the step did not ask its gate before the update"),
        ("LateScaling", "untouched", "step 25: the loss scaler discarded the step"),
        ("Unscheduled", "schedule", "step 12: the learning rate is 0.5, the schedule says 0.04998"),
        ("Overwritten", "schedule", "step 0: the learning rate is 0.04, the schedule says 0.05"),
        ("Still", "schedule", "step 19: the learning rate is zero for 20 steps"),
        ("Blind", "input", "outputs for samples of the first and the last batch are"),
        ("Guessing", "learns", "of the best constant output, found in hindsight on the same batches"),
        ("Prior", "learns", "of the best constant output"),
    ],
)
def test_each_thing_that_is_wrong_is_refused_by_name(name, criterion, words):
    certificate = certify(name)
    assert not certificate.granted
    assert failed(certificate)[0] == criterion
    assert certificate.reason.startswith(f"{criterion}: ")
    assert words in certificate.reason, certificate.reason
    assert certificate.hides is (name in ("Sanitised", "Hooked", "Clamped"))


def test_what_is_hidden_is_said_to_be_hidden():
    assert certify("Sanitised").reason.endswith("; the sanitiser hides the failure and does not repair it")
    refused = certify("FailingBranch", clean=True)
    assert refused.hides
    assert refused.reason.startswith("finite: step 0: the gradient is not finite")
    assert refused.reason.endswith("; clean=True hides the failure and does not repair it")
    plain = certify("FailingBranch")
    assert not plain.hides and "hides" not in plain.reason


def test_a_clamp_may_act_in_the_warm_up_and_a_scaler_look_for_its_scale():
    (untouched,) = [c for c in certify("Scaling").criteria if c.name == "untouched"]
    assert untouched.measured == "3 steps discarded by the loss scaler in the first 4"


def test_what_was_switched_off_comes_back():
    mended = certify("FailingBranch", mended=True)
    assert mended.granted and mended.criteria[0].measured == "not applicable: nothing was switched off"
    avoided = certify("FailingBranch", branch=False)
    assert failed(avoided) == ["switched off"] and avoided.steps == 0
    assert "branch=False takes branch away, and with it back the run fails: step 0" in avoided.reason
    both = certify("FailingBranch", branch=False, mended=True)
    assert both.granted
    assert both.criteria[0].measured == "branch came back one at a time in 40 steps"


def test_without_a_constant_in_its_place_the_loss_is_compared_with_the_first_steps():
    (learns,) = [c for c in certify("WithLoss").criteria if c.name == "learns"]
    assert learns.passed
    assert "of the first steps, because no constant can be put in the place of this output" in learns.measured


def test_batches_that_end_begin_anew():
    for name in ("Learner", "OneShot"):
        finite = certify(name).criteria[1]
        assert finite.measured == "40 steps, 8 passes over the batches, all finite"
    with pytest.raises(CannotRunHere, match="the batches end after 0 of 40 steps"):
        certify("Empty")


def test_a_subject_that_breaks_cannot_run_here():
    class Broken(subjects.Learner):
        def model(self, switches):
            raise KeyError("no such layer")

    with pytest.raises(CannotRunHere, match="broken breaks down, and not over a number: KeyError: 'no such layer'"):
        prove(Plan(recipe=Recipe(subject=Broken(), name="broken", seed=0), steps=60))


def test_time_that_runs_out_is_no_refusal():
    recipe = Recipe(subject=subjects.Learner(), name="learner", seed=0)
    with pytest.raises(OutOfTime, match="the time was up after 1 of 60 steps"):
        prove(Plan(recipe=recipe, steps=60), deadline=0.0)


def test_global_generators_and_the_model_of_others_are_left_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    certify("Learner", steps=20)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_run_directory_holds_the_certificate_and_what_the_watch_saw(tmp_path):
    run = RunDir.at(tmp_path / "run")
    certificate = certify("NonFinite", run_dir=run)
    document = json.loads((run.path / "certificate.json").read_text())
    assert document == certificate.to_dict() and document["schema"] == 1
    (capture,) = run.list_captures()
    assert certificate.criteria[-1].evidence["capture"] == str(capture)
    content = read_capture(capture)
    assert (content.step, content.subject) == (3, "proof_subjects:NonFinite")
    assert content.identities[0][2] == {"recording": "batch 3", "start_s": 2.0, "stop_s": 3.0}


def test_a_capture_of_a_changed_subject_does_not_claim_to_be_the_unchanged_one(tmp_path):
    run = RunDir.at(tmp_path / "run")
    certify("FailingBranch", run_dir=run, clean=True)
    assert read_capture(run.list_captures()[0]).subject == ""


# The command


def command(*arguments, capsys):
    code = exit_code(cli, ["prove", *map(str, arguments)])
    return code, *capsys.readouterr()


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_prove_grants_with_0_and_refuses_with_1(place, capsys):
    code, out, err = command("proof_subjects:Learner", "--steps", 40, "--format", "json", capsys=capsys)
    document = json.loads(out)
    assert (code, document["granted"], document["steps"]) == (0, True, 40)
    assert document["run"] == "runs/0001-proof-Learner"
    assert err.splitlines()[0] == "run         runs/0001-proof-Learner"
    assert err.splitlines()[-1] == "Wrote runs/0001-proof-Learner/certificate.json"
    code, out, err = command("proof_subjects:NonFinite", "--run-dir", "mine", "--quiet", capsys=capsys)
    assert (code, err) == (1, "Wrote mine/certificate.json\n")
    assert out.startswith("refused    finite: step 3: the gradient is not finite")


def test_prove_turns_switches(place, capsys):
    code, out, _ = command("proof_subjects:FailingBranch", "--switch", "mended=true", "--steps", 40, capsys=capsys)
    assert (code, out.splitlines()[1]) == (0, "subject    proof_subjects:FailingBranch  mended=True")
    code, _, err = command("proof_subjects:Learner", "--switch", "nope=1", capsys=capsys)
    assert (code, err) == (2, "error: --switch nope: the subject has no such switch; it has none\n")
    code, _, err = command("proof_subjects:Learner", "--set", "a.b=1", capsys=capsys)
    assert code == 2 and err.startswith("error: --set needs a configuration, and proof_subjects:Learner is none")


def test_prove_cannot_run_what_breaks(place, capsys):
    code, _, err = command("proof_subjects:Empty", capsys=capsys)
    assert code == 125 and "the batches end after 0 of 500 steps" in err


def test_prove_writes_into_no_folder_that_holds_something(place, capsys):
    (place / "full").mkdir()
    (place / "full" / "precious").write_text("")
    code, _, err = command("proof_subjects:Learner", "--run-dir", "full", capsys=capsys)
    assert (code, err) == (
        2,
        "error: --run-dir full: there is something already; expected a new or empty folder\n",
    )


def test_prove_takes_a_capture_and_its_base(place, capsys):
    command("proof_subjects:FailingBranch", "--run-dir", "bad", capsys=capsys)
    options = ["--switch", "branch=false", "--steps", 40, "--quiet"]
    code, out, _ = command("bad", *options, capsys=capsys)
    assert code == 1
    assert "with it back the captured step fails again" in out
    code, out, _ = command("bad", *options, "--switch", "mended=true", "--format", "json", capsys=capsys)
    assert code == 0
    assert json.loads(out)["criteria"][0]["measured"] == (
        "branch came back one at a time on the captured step and in 40 steps"
    )


def test_prove_interrupted_is_130(place, capsys, monkeypatch):
    def interrupted(self, step):
        raise KeyboardInterrupt

    monkeypatch.setattr("brainbrr_debug.prove._Proof._tell", interrupted)
    code, out, err = command("proof_subjects:Learner", "--run-dir", "mine", capsys=capsys)
    assert (code, out) == (130, "")
    assert "nothing is certified; what was seen is in mine, and the same command begins anew" in err
    assert not (place / "mine" / "certificate.json").exists()
