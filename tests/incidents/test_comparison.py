"""The comparison of verdicts with expectations can fail, in every field; and every incident is complete."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from brainbrr.configure import load_config
from tests.incidents import run as runner
from tests.incidents.comparison import objections
from tests.incidents.run import INCIDENTS, Done, RecipeError, judge, last_line, main, names, table

VERDICT: dict[str, Any] = {
    "step": 3,
    "component": "graph.pe",
    "cause": "batch",
    "mechanism": "repeated-eigenvalue",
    "necessary": True,
    "sufficient": True,
    "origin": {"phase": "backward", "module": "graph.pe", "op": "aten::_linalg_eigh", "kind": "nan"},
    "samples": [
        {
            "index": 2,
            "recording": "a_t000",
            "start_s": 60.0,
            "stop_s": 120.0,
            "span": {"start": 0, "stop": 512, "of": 15360, "start_s": 60.0, "stop_s": 62.0},
            "electrodes": ["C3"],
        }
    ],
    "repairs": [
        {"changes": {"gradient": "safe"}, "heals": True, "hides": False},
        {"changes": {"sanitize": True}, "heals": True, "hides": True},
        {"changes": {"clip": 1}, "heals": False, "hides": False},
        {"changes": {"off": True}, "heals": True, "hides": False, "evident": True},
    ],
    "trials": 30,
    "details": {"outcome": "verdict"},
}
RIGHT: dict[str, Any] = {
    "outcome": "verdict",
    "step": 3,
    "cause": ["batch", "weights"],
    "component": "graph.*",
    "mechanism": "repeated-eigenvalue",
    "necessary": True,
    "sufficient": True,
    "origin": {"phase": "backward", "op": "aten::_linalg_eigh", "kind": ["nan", "inf"]},
    "samples": [{"recording": "a_t000", "start_s": 61.0, "stop_s": 90.0, "electrodes": ["C3"]}],
    "repairs": {
        "accepted": [{"gradient": "safe"}, [{"gradient": "none"}, {"gradient": "safe"}]],
        "healing": [{"off": True}],
        "refused": [{"sanitize": True}, {"clip": 1}, {"off": True}],
    },
}


def test_a_right_verdict_is_right() -> None:
    assert objections(RIGHT, VERDICT) == []


@pytest.mark.parametrize(
    ("field", "wrong", "said"),
    [
        ("outcome", "healthy", "outcome is 'verdict'; expected 'healthy'"),
        ("step", 4, "step is 3; expected 4"),
        ("cause", ["weights", "rng"], "cause is 'batch'; expected 'weights' or 'rng'"),
        ("component", "nodes*", "component is 'graph.pe'; expected 'nodes*'"),
        ("mechanism", "overflow", "mechanism is 'repeated-eigenvalue'"),
        ("necessary", False, "necessary is True; expected False"),
        ("sufficient", None, "sufficient is True; expected None"),
        ("origin", {"op": "aten::mul"}, "origin.op is 'aten::_linalg_eigh'; expected 'aten::mul'"),
        ("origin", {"location": "x.py:1"}, "origin.location is None"),
        ("samples", [], "sample 2 is named (a_t000) and holds nothing planted"),
        ("repairs", {"accepted": [{"clip": 1}]}, "{'clip': 1} is not among the accepted repairs"),
        ("repairs", {"accepted": [{"sanitize": True}]}, "{'sanitize': True} is not among the accepted repairs"),
        ("repairs", {"accepted": [{"off": True}]}, "{'off': True} is not among the accepted repairs"),
        ("repairs", {"accepted": [[{"a": 1}, {"b": 1}]]}, "{'a': 1} or {'b': 1} is not among the accepted repairs"),
        ("repairs", {"healing": [{"unheard": 1}]}, "{'unheard': 1} is not among the healing repairs"),
        ("repairs", {"refused": [{"gradient": "safe"}]}, "{'gradient': 'safe'} is accepted as a repair"),
    ],
)
def test_every_field_can_be_wrong(field: str, wrong: Any, said: str) -> None:
    (line,) = objections({**RIGHT, field: wrong}, VERDICT)
    assert said in line


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"recording": "b_t000"}, ["no sample is named for b_t000 61 to 90 s", "holds nothing planted"]),
        ({"start_s": 120.0, "stop_s": 130.0}, ["no sample is named for a_t000 120 to 130 s", "holds nothing planted"]),
        ({"electrodes": ["C4"]}, ["electrodes are ['C3']; expected ['C4']"]),
        ({"start_s": 80.0}, ["seconds 60 to 62; expected some of 80 to 90"]),
    ],
)
def test_a_sample_can_be_wrong(changed: dict[str, Any], said: list[str]) -> None:
    lines = objections({"samples": [{**RIGHT["samples"][0], **changed}]}, VERDICT)
    assert len(lines) == len(said) and all(part in line for part, line in zip(said, lines, strict=True))


def test_one_of_two_stretches_is_not_enough() -> None:
    two = [*RIGHT["samples"], {"recording": "c_t000", "start_s": 0.0, "stop_s": 1.0}]
    assert objections({"samples": two}, VERDICT) == ["no sample is named for c_t000 0 to 1 s"]


def test_a_field_that_no_rule_reads_is_an_error() -> None:
    with pytest.raises(KeyError, match="componnet"):
        objections({"componnet": "graph.pe"}, VERDICT)


def done(*exits: int, **changes: Any) -> Done:
    return Done(exits=exits, document={**copy.deepcopy(VERDICT), **changes}, narration="")


def test_the_table_and_the_last_line_tell_what_is_wrong() -> None:
    healthy = {"exits": [0], "outcome": "healthy"}
    outcomes = [
        judge("right", {"exits": [1, 0], **RIGHT}, done(1, 0)),
        judge("wrong", {"exits": [1, 0], **RIGHT}, done(1, 0, cause="rng")),
        judge("exits", {"exits": [1, 0], **RIGHT}, done(0, 0)),
        judge("calm", healthy, done(0, details={"outcome": "healthy"})),
        judge("blamed", healthy, done(0)),
        judge("nothing", {"exits": [1], **RIGHT}, Done(exits=(1,), document=None, narration="Traceback")),
    ]
    assert last_line(outcomes) == "incidents 2/6 right, false alarms 1"
    text = "\n".join(table(outcomes))
    assert "wrong: cause is 'rng'; expected 'batch' or 'weights'" in text
    assert "wrong: exit codes are [0, 0]; expected [1, 0]" in text
    assert "wrong: outcome is 'verdict'; expected 'healthy'" in text
    assert "wrong: no verdict; it said: Traceback" in text


@pytest.mark.parametrize(("cause", "code"), [("batch", 0), ("rng", 1)])
def test_the_command_exits_1_on_a_wrong_verdict(cause: str, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = {"exits": [1, 0], **RIGHT, "cause": cause}
    monkeypatch.setattr(runner, "run", lambda name, folder=None: judge(name, wanted, done(1, 0)))
    result = CliRunner().invoke(main, ["--only", "healthy", "--only", "edge_lift"])
    assert result.exit_code == code
    assert result.stdout.splitlines()[-1] == f"incidents {2 if code == 0 else 0}/2 right, false alarms 0"
    machine = CliRunner().invoke(main, ["--only", "healthy", "--format", "json"])
    assert json.loads(machine.stdout)["result"] == f"incidents {1 - code}/1 right, false alarms 0"


def test_an_unknown_name_and_an_unknown_command_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = CliRunner().invoke(main, ["--only", "health"])
    assert refused.exit_code == 2 and "no incident health; expected some of broken_kernel" in refused.output
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "config.yaml").write_text("{}")
    (tmp_path / "odd" / "recipe.yaml").write_text("commands: [rm config.yaml]")
    monkeypatch.setattr(runner, "INCIDENTS", tmp_path)
    with pytest.raises(RecipeError, match=r"rm config\.yaml .*: expected one of brainbrr, brainbrr-debug, plant"):
        runner.carry_out("odd", tmp_path)


def test_a_command_that_takes_too_long_is_an_outcome(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "TIMEOUT_S", 0.01)
    late = runner.carry_out("edge_lift", tmp_path)
    assert late.exits == (124,) and late.document is None and "timed out" in late.narration
    assert judge("edge_lift", {"exits": [0], **RIGHT}, late).wrong[0] == "exit codes are [124]; expected [0]"


@pytest.mark.parametrize("name", names())
def test_every_incident_is_complete_and_tells_nothing_to_what_reads_its_configuration(name: str) -> None:
    recipe = yaml.safe_load((INCIDENTS / name / "recipe.yaml").read_text())
    expected = yaml.safe_load((INCIDENTS / name / "expected.yaml").read_text())
    assert recipe.keys() <= {"about", "environment", "commands"}
    assert len(expected["exits"]) == len(recipe["commands"])
    assert recipe["commands"][-1].startswith("brainbrr-debug bisect ")
    objections({field: value for field, value in expected.items() if field != "exits"}, VERDICT)
    load_config(INCIDENTS / name / "config.yaml")
    assert name not in (INCIDENTS / name / "config.yaml").read_text()


def test_the_sentence_is_covered() -> None:
    assert set(names()) >= {
        "broken_kernel", "corrupted_optimizer", "edge_lift", "extreme_window", "fp16_overflow", "healthy",
        "learning_rate_too_high", "nan_in_edf", "two_faults",
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", ["corrupted_optimizer", "healthy", "nan_in_edf"])
def test_the_small_ones(name: str) -> None:
    assert runner.run(name).wrong == ()
