"""A run for other programs: one JSON document, SARIF, JUnit XML. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from typing import Any

from brainbrr_debug.records import SCHEMA, Finding, dumps, to_json
from brainbrr_debug.report.headline import best_repair, headline
from brainbrr_debug.report.junit import junit
from brainbrr_debug.report.material import Material
from brainbrr_debug.report.sarif import sarif
from brainbrr_debug.sentence import changes_of

VERDICT = "bisect.verdict"


def document(material: Material) -> dict[str, Any]:
    """Everything a report shows, as plain JSON types."""
    plain: dict[str, Any] = to_json(
        {
            "schema": SCHEMA,
            "run": material.name,
            "steps": material.steps,
            "verdicts": material.verdicts,
            "findings": material.findings,
            "environment": material.environment,
            "curves": material.curves,
            "first_abnormal": material.first_abnormal,
            "captures": material.captures,
            "certificate": material.certificate or None,
            "damaged_lines": material.damaged,
        }
    )
    return plain


def sarif_text(material: Material) -> str:
    """The latest verdict and all findings, at the lines of the program that they name."""
    checks = {VERDICT: "what a bisection found"} if material.verdicts else {}
    return dumps(sarif(_rows(material), version=metadata.version("brainbrr"), checks=checks), indent=2)


def junit_text(material: Material) -> str:
    """A test case for each check that objected, and one for the latest verdict."""
    checks = [VERDICT] if material.verdicts else []
    return junit(_rows(material), suite=f"brainbrr-debug report {material.name}", checks=checks)


def _rows(material: Material) -> list[dict[str, Any]]:
    latest = material.verdicts[-1] if material.verdicts else None
    rows = [_finding(finding) for finding in material.findings]
    return [_verdict(latest), *rows] if latest and not _healthy(latest) else rows


def _healthy(verdict: Mapping[str, Any]) -> bool:
    return bool(verdict.get("details", {}).get("outcome") == "healthy")


def _verdict(verdict: Mapping[str, Any]) -> dict[str, Any]:
    file, line = _place(verdict["origin"]["location"])
    repair = best_repair(verdict)
    return {
        "check": VERDICT,
        "severity": "P0",
        "file": file,
        "line": line,
        "where": verdict["component"] or "",
        "message": headline(verdict),
        "why": verdict["sentence"],
        "remedy": "" if repair is None else f"least change that heals: {changes_of(repair)}",
    }


def _finding(finding: Finding) -> dict[str, Any]:
    file, line = (finding.file, finding.line) if finding.file else _place(finding.evidence.get("location"))
    told = {name: getattr(finding, name) for name in ("check", "where", "message", "why", "remedy")}
    return {**told, "severity": finding.severity.name, "file": file, "line": line}


def _place(location: Any) -> tuple[str | None, int | None]:
    """File and line of "path:line"."""
    file, colon, line = str(location or "").rpartition(":")
    return (file, int(line)) if colon and line.isdigit() else (None, None)
