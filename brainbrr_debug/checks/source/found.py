"""How a check over source says what it found: a line of a file, why it matters, and the edit that mends it."""

from __future__ import annotations

from brainbrr_debug.records import Finding, Severity


def found(check: str, severity: Severity, path: str, line: int, message: str, *, why: str, remedy: str) -> Finding:
    """A finding at line `line` (1-based) of the file `path` (relative to the root of the repository)."""
    return Finding(
        check=check,
        severity=severity,
        message=message,
        where=f"{path}:{line}",
        why=why,
        remedy=remedy,
        file=path,
        line=line,
    )
