"""Every check finds its planted fault and is silent on the healthy twin; a check without both cannot be added."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from brainbrr_debug.checks.given import Given
from brainbrr_debug.checks.registry import CHECKS, load
from brainbrr_debug.records import Finding
from brainbrr_debug.triage.checklist import default_checklist
from brainbrr_debug.triage.run import examine
from brainbrr_debug.triage.shipped import runbook
from tests.triage.cases import Case, all_cases

load()
PAIRS = [
    pytest.param(check, case, id=f"{check}-{case.look or number}") for number, (check, case) in enumerate(all_cases())
]


def found(check: str, case: Case, given: Given) -> list[Finding]:
    """What the looks of `check` say about `given`; a crash or a refusal to judge fails the test."""
    wanted = CHECKS[check]
    looks = [look for look in wanted.looks if case.look is None or case.look in look.needs]
    assert looks, f"{check} does not look at {case.look}"
    given = dataclasses.replace(given, settings=default_checklist().settings)
    return [finding for look in looks for finding in examine(wanted, look, given)]


@pytest.mark.parametrize(("check", "case"), PAIRS)
def test_the_planted_fault_is_found(check: str, case: Case, tmp_path: Path) -> None:
    findings = found(check, case, case.planted(tmp_path))
    assert len(findings) >= case.finds
    for finding in findings:
        assert finding.message and finding.why and finding.remedy, finding


@pytest.mark.parametrize(("check", "case"), PAIRS)
def test_the_healthy_twin_is_not_accused(check: str, case: Case, tmp_path: Path) -> None:
    assert found(check, case, case.healthy(tmp_path)) == []


def test_every_look_of_every_check_has_a_pair() -> None:
    cases = all_cases()
    missing = [
        f"{check.id} ({', '.join(look.needs)})"
        for check in CHECKS.values()
        for look in check.looks
        if not any(name == check.id and (case.look is None or case.look in look.needs) for name, case in cases)
    ]
    assert missing == []
    assert {name for name, _ in cases} <= set(CHECKS)


def test_the_shipped_checklist_lists_every_check() -> None:
    assert set(default_checklist().checks) == set(CHECKS)


@pytest.mark.parametrize("check", sorted(CHECKS))
def test_every_check_has_a_runbook(check: str) -> None:
    lines = runbook(check).read_text(encoding="utf-8").splitlines()
    assert lines[0] == f"# {check}"
    assert [line for line in lines if line.startswith("## ")] == [
        "## What it means",
        "## How to confirm",
        "## How to repair",
    ]
    assert 12 <= len(lines) <= 40
