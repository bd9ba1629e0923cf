"""Findings for other people's programs: SARIF for code hosts, JUnit XML for build servers."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brainbrr_debug.report.junit import junit
from brainbrr_debug.report.sarif import LEVELS, sarif

TEXT = {"type": "object", "required": ["text"], "properties": {"text": {"type": "string", "minLength": 1}}}
URI = "^[A-Za-z0-9._~:/?#@!$&'()*+,;=%-]+$"
LOCATION = {
    "type": "object",
    "minProperties": 1,
    "properties": {
        "physicalLocation": {
            "type": "object",
            "required": ["artifactLocation"],
            "properties": {
                "artifactLocation": {
                    "type": "object",
                    "required": ["uri"],
                    "properties": {"uri": {"type": "string", "pattern": URI}, "uriBaseId": {"type": "string"}},
                    "additionalProperties": False,
                },
                "region": {
                    "type": "object",
                    "required": ["startLine"],
                    "properties": {"startLine": {"type": "integer", "minimum": 1}},
                    "additionalProperties": False,
                },
            },
            "additionalProperties": False,
        },
        "logicalLocations": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["fullyQualifiedName"],
                "properties": {"fullyQualifiedName": {"type": "string"}},
                "additionalProperties": False,
            },
        },
    },
    "additionalProperties": False,
}
RESULT = {
    "type": "object",
    "required": ["ruleId", "ruleIndex", "level", "message", "partialFingerprints"],
    "properties": {
        "ruleId": {"type": "string"},
        "ruleIndex": {"type": "integer", "minimum": 0},
        "level": {"enum": ["none", "note", "warning", "error"]},
        "message": TEXT,
        "partialFingerprints": {"type": "object", "additionalProperties": {"type": "string"}},
        "properties": {"type": "object"},
        "locations": {"type": "array", "minItems": 1, "items": LOCATION},
    },
    "additionalProperties": False,
}
RULE = {
    "type": "object",
    "required": ["id", "shortDescription"],
    "properties": {"id": {"type": "string"}, "shortDescription": TEXT, "fullDescription": TEXT, "help": TEXT},
    "additionalProperties": False,
}
NOTIFICATION = {
    "type": "object",
    "required": ["message"],
    "properties": {"message": TEXT, "level": {"enum": ["none", "note", "warning", "error"]}},
    "additionalProperties": False,
}
RUN = {
    "type": "object",
    "required": ["tool", "results"],
    "properties": {
        "tool": {
            "type": "object",
            "required": ["driver"],
            "properties": {
                "driver": {
                    "type": "object",
                    "required": ["name", "version", "rules"],
                    "properties": {
                        "name": {"type": "string"},
                        "version": {"type": "string"},
                        "rules": {"type": "array", "uniqueItems": True, "items": RULE},
                    },
                    "additionalProperties": False,
                }
            },
        },
        "columnKind": {"enum": ["utf16CodeUnits", "unicodeCodePoints"]},
        "invocations": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["executionSuccessful"],
                "properties": {
                    "executionSuccessful": {"type": "boolean"},
                    "toolExecutionNotifications": {"type": "array", "items": NOTIFICATION},
                },
                "additionalProperties": False,
            },
        },
        "results": {"type": "array", "items": RESULT},
    },
    "additionalProperties": False,
}
SARIF = {
    "type": "object",
    "required": ["version", "runs"],
    "properties": {
        "$schema": {"type": "string"},
        "version": {"const": "2.1.0"},
        "runs": {"type": "array", "minItems": 1, "items": RUN},
    },
    "additionalProperties": False,
}
"""What the 2.1.0 schema demands of the parts that are written, and nothing else may be written."""


def row(check: str = "config.unread", severity: str = "P2", **fields: Any) -> dict[str, Any]:
    empty = {"file": None, "line": None, "where": "", "message": "a key that nobody reads", "why": "", "remedy": ""}
    return {"check": check, "severity": severity, **empty, **fields}


ROWS = [
    row(file="configs/train my.yaml", line=12, where="model.pe", why="It has no effect.", remedy="Remove it."),
    row("cache.labels", "P0", where="data/cache", message="3 windows have no labels"),
    row("env.threads", "P3", message="one thread"),
    row("config.unread", "P1", file="configs/train my.yaml", line=40),
]


def checked(log: dict[str, Any]) -> dict[str, Any]:
    jsonschema.validate(log, SARIF)
    run: dict[str, Any] = log["runs"][0]
    rules = run["tool"]["driver"]["rules"]
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
    return run


# SARIF ---------------------------------------------------------------------------------------------------------------


def test_a_log_is_what_the_schema_asks_for() -> None:
    run = checked(sarif(ROWS, version="1.2", not_applicable=["cache.x: no cache given"], crashed=["model.y: boom"]))
    assert [rule["id"] for rule in run["tool"]["driver"]["rules"]] == ["cache.labels", "config.unread", "env.threads"]
    assert [result["level"] for result in run["results"]] == ["warning", "error", "note", "error"]
    assert run["results"][0]["message"]["text"] == "a key that nobody reads\n\nIt has no effect.\n\nRemove it."
    (invocation,) = run["invocations"]
    assert not invocation["executionSuccessful"]
    assert [note["message"]["text"] for note in invocation["toolExecutionNotifications"]] == [
        "crashed: model.y: boom", "not applicable: cache.x: no cache given",
    ]  # fmt: skip


def test_nothing_found_is_a_log_too() -> None:
    run = checked(sarif([], version="1", checks={"config.unread": "a key that no code reads"}))
    assert run["results"] == [] and run["invocations"][0]["executionSuccessful"]
    assert run["tool"]["driver"]["rules"][0]["shortDescription"]["text"] == "a key that no code reads"


def test_a_line_of_a_file_and_a_place_without_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    below, beyond = str(tmp_path / "a b.py"), str(tmp_path.parent / "c%.py")
    rows = [*ROWS[:3], row(file=below, line=3), row(file=beyond)]
    first, second, third, fourth, fifth = checked(sarif(rows, version="1"))["results"]
    assert first["locations"] == [
        {
            "physicalLocation": {
                "artifactLocation": {"uri": "configs/train%20my.yaml", "uriBaseId": "%SRCROOT%"},
                "region": {"startLine": 12},
            },
            "logicalLocations": [{"fullyQualifiedName": "model.pe"}],
        }
    ]
    assert second["locations"] == [{"logicalLocations": [{"fullyQualifiedName": "data/cache"}]}]
    assert "locations" not in third
    artifact = fourth["locations"][0]["physicalLocation"]["artifactLocation"]
    assert artifact == {"uri": "a%20b.py", "uriBaseId": "%SRCROOT%"}
    artifact = fifth["locations"][0]["physicalLocation"]["artifactLocation"]
    assert artifact == {"uri": f"file://{tmp_path.parent}/c%25.py"}


def prints(*rows: dict[str, Any]) -> list[str]:
    found = checked(sarif(rows, version="1"))["results"]
    return [next(iter(result["partialFingerprints"].values())) for result in found]


def test_a_finding_keeps_its_fingerprint_when_it_moves_or_measures_otherwise() -> None:
    before = row(file="a.py", line=3, message="loss 0.25 at step 7")
    assert prints(before) == prints({**before, "line": 90, "message": "loss 1e-3 at step 12"})
    for change in ({"check": "other"}, {"file": "b.py"}, {"where": "x"}, {"message": "no loss"}):
        assert prints(before) != prints({**before, **change})


def test_two_findings_alike_are_two() -> None:
    first, second = prints(row(file="a.py", line=3), row(file="a.py", line=9))
    assert first != second


@settings(max_examples=40)
@given(st.lists(st.fixed_dictionaries({
    "check": st.text(min_size=1), "severity": st.sampled_from(sorted(LEVELS)), "message": st.text(min_size=1),
    "file": st.none() | st.text(), "line": st.none() | st.integers(1, 9**9), "where": st.text(), "why": st.text(),
    "remedy": st.text(),
}), max_size=6))  # fmt: skip
def test_any_finding_fits_both_formats(rows: list[dict[str, Any]]) -> None:
    run = checked(json.loads(json.dumps(sarif(rows, version="1"))))
    assert len({json.dumps(result["partialFingerprints"]) for result in run["results"]}) == len(rows)
    cases = ElementTree.fromstring(junit(rows, suite="x")).findall(".//testcase")
    assert len(cases) == len({row["check"] for row in rows})


# JUnit ---------------------------------------------------------------------------------------------------------------


def test_a_test_case_for_each_check() -> None:
    text = junit(
        ROWS,
        suite="triage",
        checks=["config.unread", "config.fine", "cache.labels", "cache.x"],
        not_applicable=["cache.x: no cache given"],
        crashed=["model.y: ValueError: <boom>", "cache.labels: gave up"],
    )
    root = ElementTree.fromstring(text.encode())
    (suite,) = root
    cases = {case.get("name"): case for case in suite}
    assert list(cases) == ["cache.labels", "cache.x", "config.fine", "config.unread", "env.threads", "model.y"]
    assert {name: [child.tag for child in case] for name, case in cases.items()} == {
        "cache.labels": ["error"], "cache.x": ["skipped"], "config.fine": [], "config.unread": ["failure"],
        "env.threads": ["failure"], "model.y": ["error"],
    }  # fmt: skip
    counts = {"tests": "6", "failures": "2", "errors": "2", "skipped": "1"}
    assert counts.items() <= suite.attrib.items() and counts.items() <= root.attrib.items()
    assert cases["model.y"][0].get("message") == "ValueError: <boom>"
    assert cases["cache.x"][0].get("message") == "no cache given"


def test_what_a_crashed_check_had_found_is_not_lost() -> None:
    text = junit(ROWS, suite="triage", crashed=["cache.labels: gave up"])
    error = ElementTree.fromstring(text).find(".//error")
    assert error is not None and error.text is not None and "3 windows have no labels" in error.text


def test_all_findings_of_a_check_stand_in_one_failure() -> None:
    failure = ElementTree.fromstring(junit(ROWS, suite="triage")).find(".//testcase[@name='config.unread']/failure")
    assert failure is not None and failure.text is not None
    assert failure.get("message") == "2 findings, the first: a key that nobody reads"
    assert failure.get("type") == "P1"
    assert failure.text.splitlines()[:4] == [
        "P2 config.unread at configs/train my.yaml:12, model.pe", "a key that nobody reads", "It has no effect.",
        "Remove it.",
    ]  # fmt: skip
    assert "P1 config.unread at configs/train my.yaml:40" in failure.text


def test_a_suite_without_findings_passes() -> None:
    (suite,) = ElementTree.fromstring(junit([], suite="triage", checks=["a", "b"]))
    assert suite.attrib == {"name": "triage", "tests": "2", "failures": "0", "errors": "0", "skipped": "0"}


def test_what_xml_cannot_hold_is_written_out() -> None:
    text = junit([row(message="\x00 \x1b[31m <b> & \ud800 \uffff ü 脑")], suite="a\x07", crashed=["x\x01: \x02"])
    root = ElementTree.fromstring(text.encode())
    failure = root.find(".//failure")
    assert failure is not None and failure.get("message") == "\\u0000 \\u001b[31m <b> & \\ud800 \\uffff ü 脑"
    assert not re.search(r"[\x00-\x08\x0b-\x1f]", text)


def test_the_same_bytes_again() -> None:
    assert junit(ROWS, suite="triage") == junit(ROWS, suite="triage")
    assert json.dumps(sarif(ROWS, version="1")) == json.dumps(sarif(ROWS, version="1"))
