"""Findings as SARIF 2.1.0, which code hosts and editors show beside the lines of a program. Imports no torch.

A row is a finding of a triage: check, severity ("P0" to "P3"), file, line, where, message, why, remedy.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from brainbrr_debug.sentence import nearby

VERSION = "2.1.0"
SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
LEVELS = {"P0": "error", "P1": "error", "P2": "warning", "P3": "note"}
FINGERPRINT = "brainbrrFinding/v1"
_NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[-+]?\d+)?")


def sarif(
    rows: Iterable[Mapping[str, Any]],
    *,
    version: str,
    checks: Mapping[str, str] | None = None,
    not_applicable: Sequence[str] = (),
    crashed: Sequence[str] = (),
) -> dict[str, Any]:
    """One log of one run, its results in the order of `rows`.

    `version` is that of the tool. `checks` gives summaries by id for the rules. `not_applicable` and `crashed` say, in
    a line each, which checks could not judge: notifications, because there is nothing to look at in the program.
    """
    rows, summaries = list(rows), dict(checks or {})
    ids = sorted({str(row["check"]) for row in rows} | set(summaries))
    notes = [_notification("error", f"crashed: {line}") for line in crashed]
    notes += [_notification("note", f"not applicable: {line}") for line in not_applicable]
    run = {
        "tool": {
            "driver": {
                "name": "brainbrr-debug",
                "version": version,
                "rules": [_rule(name, summaries.get(name, ""), rows) for name in ids],
            }
        },
        "columnKind": "unicodeCodePoints",
        "invocations": [{"executionSuccessful": not crashed, "toolExecutionNotifications": notes}],
        "results": [
            _result(row, ids.index(str(row["check"])), fingerprint)
            for row, fingerprint in zip(rows, fingerprints(rows), strict=True)
        ],
    }
    return {"$schema": SCHEMA, "version": VERSION, "runs": [run]}


def _rule(name: str, summary: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a check is for: its summary, else what its first finding says."""
    first: Mapping[str, Any] = next((row for row in rows if row["check"] == name), {})
    rule = {"id": name, "shortDescription": {"text": summary or name}}
    for key, source in (("fullDescription", "why"), ("help", "remedy")):
        if first.get(source):
            rule[key] = {"text": first[source]}
    return rule


def _result(row: Mapping[str, Any], rule: int, fingerprint: str) -> dict[str, Any]:
    result = {
        "ruleId": row["check"],
        "ruleIndex": rule,
        "level": LEVELS[row["severity"]],
        "message": {"text": "\n\n".join(row[key] for key in ("message", "why", "remedy") if row.get(key))},
        "partialFingerprints": {FINGERPRINT: fingerprint},
        "properties": {"severity": row["severity"]},
    }
    location = _location(row)
    return {**result, "locations": [location]} if location else result


def _location(row: Mapping[str, Any]) -> dict[str, Any]:
    location: dict[str, Any] = {}
    if row.get("file"):
        place: dict[str, Any] = {"artifactLocation": _artifact(nearby(row["file"]))}
        if row.get("line"):
            place["region"] = {"startLine": row["line"]}
        location["physicalLocation"] = place
    if row.get("where"):
        location["logicalLocations"] = [{"fullyQualifiedName": row["where"]}]
    return location


def _artifact(file: str) -> dict[str, Any]:
    """Relative to the folder that was looked at, so that a code host finds it; a file elsewhere by its whole path."""
    path = Path(file)
    if path.is_absolute():
        return {"uri": f"file://{quote(os.fsencode(path.as_posix()))}"}
    return {"uri": quote(os.fsencode(path.as_posix())), "uriBaseId": "%SRCROOT%"}


def fingerprints(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The same for a finding that has only moved to another line, or whose measured numbers are others."""
    seen: Counter[tuple[str, ...]] = Counter()
    found = []
    for row in rows:
        words = _NUMBER.sub("#", str(row["message"]))
        key = (str(row["check"]), nearby(row.get("file") or ""), str(row.get("where") or ""), words)
        text = "\0".join((*key, str(seen[key])))
        found.append(hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32])
        seen[key] += 1
    return found


def _notification(level: str, text: str) -> dict[str, Any]:
    return {"level": level, "message": {"text": text}}
