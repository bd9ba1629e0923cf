"""Inline ignores that ignore nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from brainbrr_debug.checks.given import Given
from tests.triage.cases import Case
from tests.triage.cases.config import written


def repository(name: str, text: str) -> Callable[[Path], Given]:
    """One file of a repository."""

    def make(folder: Path) -> Given:
        (folder / name).write_text(text, encoding="utf-8")
        return Given(source=folder)

    return make


MARK = "triage: ignore"

CASES = {
    "triage.ignore": (
        Case(
            planted=repository("a.py", f"x = 1  # {MARK}[config.unread]\n"),
            healthy=repository("a.py", f"x = 1  # {MARK}[config.unread] read by the plotting scripts\n"),
            look="source",
        ),
        Case(
            planted=repository("a.md", f"<!-- {MARK}[no.such] said elsewhere -->\n"),
            healthy=repository("a.py", f"x = '# {MARK}[config.unread]'\n"),
            look="source",
        ),
        Case(
            planted=written(f"training:\n  epochs: 2  # {MARK}[config.warmup]\n"),
            healthy=written(f"training:\n  epochs: 2  # {MARK}[config.warmup] two are all there are\n"),
            look="config",
        ),
    ),
}
