"""Checks over a short command of the user's own that ran under observation. Imports no torch."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from brainbrr_debug.checks.config import UNREAD
from brainbrr_debug.checks.registry import Given, NotApplicable, check
from brainbrr_debug.records import Finding, Severity

if TYPE_CHECKING:
    from brainbrr_debug.facts import Growing, SmokeFacts

GROWTH = "memory.eval_growth"
TEMPORARY = "run.tempfiles"
WRITES = "run.writes"

MIB = 1 << 20
_IN_A_ROW = 4
"""So many batches in a row must each leave at least half an output behind."""


@check(GROWTH, Severity.P1, needs="smoke", summary="an evaluation that keeps what every batch gave")
def eval_growth(given: Given) -> Iterator[Finding]:
    """Live tensor bytes behind the batches of an evaluation; tracemalloc cannot see them."""
    series = [each for each in _observed(given).growing if len(each.live) > _IN_A_ROW]
    if not series:
        raise NotApplicable(f"the command evaluated no model on more than {_IN_A_ROW + 1} batches")
    for each in series:
        growth = _growth(each)
        if growth is not None:
            yield Finding(
                check=GROWTH,
                severity=Severity.P1,
                message=f"evaluating {each.module} keeps {growth / MIB:.2f} MiB more with every batch",
                where=each.module,
                why="outputs are held until the end and joined: hours of recordings fill the memory",
                remedy="reduce each batch to what is counted (events, histograms, sums) and let its tensors go",
            )


def _growth(series: Growing) -> float | None:
    """The mean growth a batch; None where one of the last few kept less than half an output."""
    steps = [after - before for before, after in itertools.pairwise(series.live)][-_IN_A_ROW:]
    if series.output and all(step >= series.output / 2 for step in steps):
        return sum(steps) / len(steps)
    return None


@check(TEMPORARY, Severity.P2, needs="smoke", summary="temporary files that a run leaves behind")
def tempfiles(given: Given) -> Iterator[Finding]:
    """Files and folders made with tempfile that are still there when the command has ended."""
    left = _observed(given).left
    if left:
        yield Finding(
            check=TEMPORARY,
            severity=Severity.P2,
            message=f"{len(left)} temporary files or folders are left behind, {left[0]} first",
            where=str(left[0]),
            why="every run leaves more of them, until the disk that all share is full",
            remedy="use tempfile.TemporaryDirectory or NamedTemporaryFile as a context manager",
        )


@check(WRITES, Severity.P2, needs="smoke", summary="folders written to that no documentation names", advises=True)
def writes(given: Given) -> Iterator[Finding]:
    """Bytes written below each folder of the working directory, and outside of it, against README and docs."""
    facts = _observed(given)
    documented = _documentation(given.source or facts.here) + facts.command
    least = given.setting(WRITES, "mib") * MIB
    folders: Counter[str] = Counter()
    for path, size in facts.written.items():
        if path.exists():
            folders[_folder(path, facts.here)] += size
    for folder, size in folders.most_common():
        if size >= least and folder.rstrip("/") not in documented:
            yield Finding(
                check=WRITES,
                severity=Severity.P2,
                message=f"{size / MIB:.1f} MiB are written to {folder}, which neither README nor docs name",
                where=folder,
                why="whoever follows the documentation looks elsewhere, and backs up or deletes the wrong folder",
                remedy="name the folder where the command is documented, or write below the one that is",
            )


@check(UNREAD, Severity.P2, needs="smoke", summary="a key that no code reads")
def unread(given: Given) -> Iterator[Finding]:
    """Keys of YAML files that the command loaded and never asked for, where it asked for others by name."""
    for file, key in _observed(given).unread:
        yield Finding(
            check=UNREAD,
            severity=Severity.P2,
            message=f"{key} was loaded and never read in this run",
            where=key,
            file=file or None,
            why="whoever changes it believes that it does something",
            remedy=f"take {key} out, or read it",
        )


def _observed(given: Given) -> SmokeFacts:
    facts = given.smoke_facts
    if facts.code != 0:
        given.note(f"--smoke: the command ended with exit code {facts.code}: {facts.said[-120:]}")
    return facts


def _folder(path: Path, here: Path) -> str:
    """The first folder below the working directory, else the file's own."""
    if path.is_relative_to(here):
        below = path.relative_to(here).parts
        return f"{below[0]}/" if len(below) > 1 else "."
    return f"{path.parent}/"


def _documentation(root: Path) -> str:
    pages = [*root.glob("*.md"), *root.glob("*.rst"), *root.glob("docs/**/*.md"), *root.glob("docs/**/*.rst")]
    return "\n".join(page.read_text(encoding="utf-8", errors="replace") for page in pages if page.is_file()) + ". "
