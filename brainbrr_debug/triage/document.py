"""A triage as rows, as one JSON document, as SARIF and as JUnit. Imports no torch."""

from __future__ import annotations

from typing import Any

from brainbrr_debug.checks.registry import CHECKS
from brainbrr_debug.records import SCHEMA, Finding, dumps, to_json
from brainbrr_debug.triage.run import Triage


def row(finding: Finding) -> dict[str, Any]:
    """The frozen form of a finding, and the commands that repair it."""
    names = ("check", "severity", "file", "line", "where", "message", "why", "remedy", "commands", "step")
    return {name: to_json(getattr(finding, name)) for name in names}


def document(found: Triage) -> dict[str, Any]:
    """Everything that came of it; `findings`, `not_applicable` and `crashed` as frozen in the interface."""
    return {
        "schema": SCHEMA,
        "findings": [row(finding) for finding in found.findings],
        "not_applicable": list(found.not_applicable),
        "crashed": [crash.check for crash in found.crashed],
        "reasons": dict(found.not_applicable),
        "crashes": {crash.check: {"line": crash.line, "traceback": crash.traceback} for crash in found.crashed},
        "ran": list(found.ran),
        "ignored": [{**row(finding), "reason": reason} for finding, reason in found.ignored],
        "baseline": [row(finding) for finding in found.known],
        "gone": list(found.gone),
        "expected": [row(finding) for finding in found.expected],
        "notes": list(found.notes),
        "seconds": round(found.seconds, 3),
    }


def sarif_text(found: Triage) -> str:
    """For code hosts and editors."""
    from importlib import metadata

    from brainbrr_debug.report.sarif import sarif

    log = sarif(
        [row(finding) for finding in found.findings],
        version=metadata.version("brainbrr"),
        checks={name: CHECKS[name].summary for name in found.ran},
        not_applicable=_lines(found),
        crashed=[f"{crash.check}: {crash.line}" for crash in found.crashed],
    )
    return dumps(log, indent=2)


def junit_text(found: Triage) -> str:
    """For build servers."""
    from brainbrr_debug.report.junit import junit

    return junit(
        [row(finding) for finding in found.findings],
        suite="brainbrr-debug triage",
        checks=found.ran,
        not_applicable=_lines(found),
        crashed=[f"{crash.check}: {crash.line}" for crash in found.crashed],
    )


def _lines(found: Triage) -> list[str]:
    return [f"{name}: {reason}" for name, reason in found.not_applicable.items()]
