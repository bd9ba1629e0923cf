"""Findings that were there when a team began to look: a committed file, which is to grow shorter. Imports no torch."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Container, Iterable, Sequence
from pathlib import Path
from typing import Any

from brainbrr_debug.errors import UsageError
from brainbrr_debug.records import SCHEMA, Finding, dumps, to_json
from brainbrr_debug.report.sarif import fingerprints

_SHOWN = ("check", "file", "where", "message")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """Entries by fingerprint, which neither a move to another line nor another measured number changes."""

    entries: dict[str, dict[str, Any]]

    def split(self, findings: Sequence[Finding], ran: Container[str]) -> tuple[list[Finding], list[Finding], list[str]]:
        """The new findings, the known ones, and in a line each the entries that no longer occur.

        Of checks that did not run nothing can be said: their entries are in neither.
        """
        marks = fingerprints([_row(finding) for finding in findings])
        new = [f for f, mark in zip(findings, marks, strict=True) if mark not in self.entries]
        known = [f for f, mark in zip(findings, marks, strict=True) if mark in self.entries]
        gone = [
            ": ".join(str(entry[name]) for name in ("check", "file", "message") if entry.get(name))
            for mark, entry in self.entries.items()
            if mark not in marks and entry["check"] in ran
        ]
        return new, known, gone


def read_baseline(path: Path) -> Baseline:
    """Raises UsageError for a file that `--write-baseline` did not write."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        entries = {str(entry["fingerprint"]): {n: entry[n] for n in _SHOWN} for entry in document["findings"]}
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; write one with --write-baseline {path}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(f"{path} is no baseline ({error!r:.80}); write one with --write-baseline {path}") from error
    return Baseline(entries=entries)


def baseline_text(findings: Iterable[Finding]) -> str:
    """The file for these findings."""
    rows = [_row(finding) for finding in findings]
    entries = [
        {"fingerprint": mark, **{name: row[name] for name in _SHOWN}}
        for mark, row in zip(fingerprints(rows), rows, strict=True)
    ]
    return dumps({"schema": SCHEMA, "findings": entries}, indent=2) + "\n"


def _row(finding: Finding) -> dict[str, Any]:
    return {name: to_json(getattr(finding, name)) for name in _SHOWN}
