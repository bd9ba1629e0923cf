"""Inline ignores that ignore nothing. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from brainbrr_debug.checks.registry import CHECKS, Given, check
from brainbrr_debug.records import Finding, Severity
from brainbrr_debug.triage.ignores import ignores_in

IGNORE = "triage.ignore"
SUMMARY = "an inline ignore without a reason, or of a check that there is not"


@check(IGNORE, Severity.P2, needs="source", summary=SUMMARY)
def in_sources(given: Given) -> Iterator[Finding]:
    """In Python, YAML, TOML and Markdown."""
    for file in (*given.sources.python, *given.sources.texts):
        suffix = PurePosixPath(file.path).suffix
        if suffix in (".py", ".yaml", ".yml", ".toml", ".md"):
            yield from _judge(file.path, file.text, suffix)


@check(IGNORE, Severity.P2, needs="config", summary=SUMMARY)
def in_configuration(given: Given) -> Iterator[Finding]:
    """In the configuration."""
    assert given.config is not None
    yield from _judge(str(given.config), given.config.read_bytes().decode("utf-8", errors="replace"), ".yaml")


def _judge(file: str, text: str, suffix: str) -> Iterator[Finding]:
    for ignore in ignores_in(text, suffix):
        unknown = [name for name in ignore.checks if name not in CHECKS]
        if ignore.reason and ignore.checks and not unknown:
            continue
        message = f"there is no check {', '.join(unknown)}" if unknown else "it gives no reason"
        yield Finding(
            check=IGNORE,
            severity=Severity.P2,
            message=f"an inline ignore that ignores nothing: {message if ignore.checks else 'it names no check'}",
            file=file,
            line=ignore.line,
            why="what is ignored without a word is found again by everybody who comes after",
            remedy="write `triage: ignore[check.id] reason`; `brainbrr-debug triage --list-checks` names the checks",
            commands=("brainbrr-debug triage --list-checks",),
        )
