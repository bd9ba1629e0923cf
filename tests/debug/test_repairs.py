"""What repairs a failure: the least change first, proved by a training; what hides or avoids it is refused."""

import importlib
import json
import sys
from pathlib import Path

import pytest

from brainbrr.data.prepare import DataError
from brainbrr_debug.bisect import bisect
from brainbrr_debug.cli import cli
from brainbrr_debug.main import exit_code
from brainbrr_debug.proofs import candidates, prove_repairs
from brainbrr_debug.questions.repairs import Effect, Repair
from brainbrr_debug.report.text import verdict_text
from brainbrr_debug.rerun import run_until_harm
from brainbrr_debug.sentence import tell

sys.path.insert(0, str(Path(__file__).parent))
toy = importlib.import_module("toy_subjects")
STEPS = 60
ALL = ("cause", "samples", "operation", "matrix", "alone", "sequence", "stable", "seconds")


@pytest.fixture(scope="module")
def tie():
    return run_until_harm(toy.TieSubject(), "toy_subjects:TieSubject").content


@pytest.fixture(scope="module")
def verdict(tie):
    return bisect(tie, subject=toy.TieSubject(), skip=ALL)


@pytest.fixture(scope="module")
def proved(tie, verdict, tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")
    return prove_repairs(verdict, tie, toy.TieSubject(), steps=STEPS, runs=runs)


def by_change(verdict):
    return {next(iter(row["changes"])): row for row in verdict.repairs}


def test_the_rows_are_the_frozen_ones_and_more(verdict):
    for row in verdict.repairs:
        assert row.keys() >= {
            "changes",
            "heals",
            "hides",
            "proved",
            "certificate",
            "refused",
            "description",
            "tried_on",
        }
        assert row["proved"] is False and row["certificate"] is None
    assert [next(iter(row["changes"])) for row in verdict.repairs] == ["graph.gradient", "graph.enabled", "sanitize"]


def test_what_a_repair_changes_besides_is_measured_on_the_healthy_batch(verdict):
    effects = {name: row["effect"] for name, row in by_change(verdict).items()}
    assert effects["graph.gradient"]["output"] == 0.0
    assert 0 < effects["graph.gradient"]["gradient"] < effects["graph.enabled"]["gradient"]
    assert effects["graph.enabled"]["output"] > 0
    assert effects["graph.enabled"]["takes_away"] == {"graph.enabled": "graph"}
    assert effects["sanitize"] == {}  # it does not heal
    assert effects["graph.gradient"]["altered"] == 0


def test_what_hides_and_what_avoids_is_refused_without_a_training(verdict):
    rows = by_change(verdict)
    assert rows["sanitize"]["refused"] == "hides the failure at best: 1 of 7 gradients not finite"
    assert rows["graph.enabled"]["refused"] == (
        "avoids the failure: it takes graph away, and with it back the captured step fails"
    )
    assert candidates(verdict) == [0]
    assert rows["graph.gradient"]["refused"] == "not proved: no training was asked for"
    assert "graph.gradient=detached heals the captured step; not proved" in verdict.sentence


def test_the_best_one_is_proved_by_a_training_with_a_run_of_its_own(proved):
    best = proved.repairs[0]
    assert (best["changes"], best["proved"], best["refused"]) == ({"graph.gradient": "detached"}, True, None)
    certificate = best["certificate"]
    assert certificate["granted"] and certificate["steps"] == STEPS
    written = json.loads((Path(certificate["run"]) / "certificate.json").read_text())
    assert written == certificate
    assert f"Repair: graph.gradient=detached, proved over {STEPS} steps." in proved.sentence
    assert "Refused, because it hides the failure at best: sanitize=True." in proved.sentence
    assert proved.sentence == tell(proved)
    lines = verdict_text(proved.to_dict()).splitlines()
    assert f"  graph.gradient=detached  heals the captured step, proved over {STEPS} steps" in lines
    assert any(line.startswith("  sanitize=True") and "hides the failure" in line for line in lines)


def test_a_refused_one_gives_way_to_the_next(tie, verdict):
    class Learnless(toy.TieSubject):
        """With a detached gradient the model is all bias."""

        def build(self, seed, switches):
            run = super().build(seed, switches)
            if switches.get("graph.gradient") == "detached":
                run.optimizer.param_groups[0]["lr"] = 0.0
            return run

    rows = [dict(row, evident=row["hides"]) for row in verdict.repairs]
    open_ = type(verdict)(**{**{f: getattr(verdict, f) for f in verdict.__dataclass_fields__}, "repairs": tuple(rows)})
    found = prove_repairs(open_, tie, Learnless(), steps=STEPS)
    first, second, _ = found.repairs
    assert first["refused"].startswith("schedule: step 19: the learning rate is zero for 20 steps")
    assert second["refused"].startswith("switched off: graph.enabled=False takes graph away, and with it back the capt")
    assert not any(row["proved"] for row in found.repairs)
    assert first["certificate"]["granted"] is second["certificate"]["granted"] is False
    assert "heals the captured step; schedule: step 19" in found.sentence


def test_where_it_cannot_be_trained_nothing_is_proved_and_the_reason_is_said(tie, verdict):
    class Elsewhere(toy.TieSubject):
        def batches(self, seed):
            raise FileNotFoundError("no recordings here")
            yield

    found = prove_repairs(verdict, tie, Elsewhere(), steps=STEPS)
    assert found.repairs[0]["refused"].startswith(
        "not proved: toy_subjects:TieSubject breaks down, and not over a numb"
    )
    assert "no recordings here" in found.repairs[0]["refused"]

    class NoData(toy.TieSubject):
        def batches(self, seed):
            raise DataError("data/tusz: no folder edf/train")
            yield

    bare = prove_repairs(verdict, tie, NoData(), steps=STEPS)
    assert bare.repairs[0]["refused"] == "not proved: data/tusz: no folder edf/train"
    late = prove_repairs(verdict, tie, toy.TieSubject(), steps=STEPS, deadline=0.0)
    assert late.repairs[0]["refused"] == f"not proved: the time was up after 1 of {STEPS} steps"


def test_fewer_switches_rank_first_then_kept_weights_features_outputs_and_gradients():
    def repair(**fields):
        base = {
            "changes": {"a": 1},
            "heals": True,
            "hides": False,
            "weights": "before",
            "description": "",
            "safe": True,
            "reason": "",
            "effect": {"output": 0.0, "gradient": 0.0},
        }
        return Repair(**{**base, **fields})

    ordered = [
        repair(),
        repair(safe=False),
        repair(effect={"output": 0.0, "gradient": 0.1}),
        repair(effect={"output": 0.1, "gradient": 0.0}),
        repair(effect={"output": 0.0, "gradient": 0.0, "takes_away": {"a": "graph"}}),
        repair(weights="fresh", effect={}),
        repair(changes={"a": 1, "b": 2}),
        repair(heals=False),
        repair(hides=True),
        repair(hides=True, heals=False),
    ]
    shuffled = ordered[::-1]
    assert sorted(shuffled, key=Repair.rank) == ordered


def test_the_effect_of_no_change_is_none(tie):
    assert Effect(switches=())(tie, toy.TieSubject()) == {
        "output": 0.0, "gradient": 0.0, "altered": 0, "takes_away": {},
    }  # fmt: skip


# The command


def test_bisect_keeps_the_verdict_before_the_proof_and_then_the_proved_one(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = ["bisect", "toy_subjects:TieSubject", "--quiet", "--format", "json", "--prove-steps", str(STEPS)]
    arguments += [word for name in ALL for word in ("--skip", name)]
    seen = []
    monkeypatch.setattr("brainbrr_debug.proofs.prove", interrupting(seen, tmp_path))
    assert exit_code(cli, arguments) == 130
    out, err = capsys.readouterr()
    assert out == "" and seen[0]["repairs"][0]["proved"] is False
    assert "none of its repairs is proved; go on with: brainbrr-debug bisect" in err
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    (capture,) = tmp_path.glob("runs/0001-*/captures/*.h5")
    assert exit_code(cli, ["bisect", str(capture), *arguments[2:], "--resume"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["repairs"][0]["proved"] is True
    kept = sorted((tmp_path / "runs").glob("0001-*/verdicts/*.json"))
    assert [json.loads(path.read_text())["repairs"][0]["proved"] for path in kept] == [False, True]
    assert json.loads(kept[1].read_text()) == document


def interrupting(seen, place):
    def prove(*args, **kwargs):
        (path,) = place.glob("runs/*/verdicts/*.json")
        seen.append(json.loads(path.read_text()))
        raise KeyboardInterrupt

    return prove
