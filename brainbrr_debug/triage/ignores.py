"""Findings that somebody has looked at and accepted, said where they are: `# triage: ignore[check.id] reason`.

The comment stands at the end of the line that the finding points at, or alone on the line before it; in Markdown it is
`<!-- triage: ignore[check.id] reason -->`. Without a reason it ignores nothing. Imports no torch.
"""

from __future__ import annotations

import dataclasses
import io
import re
import tokenize
from collections.abc import Container, Iterable, Iterator, Sequence
from pathlib import Path

from brainbrr_debug.checks.given import Given
from brainbrr_debug.records import Finding

_RULE = r"\s*triage:\s*ignore\[([^\]]*)\]"
_HASH = re.compile(rf"#{_RULE}(.*)")
_MARKDOWN = re.compile(rf"<!--{_RULE}(.*?)(?:-->|$)")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Ignore:
    """One comment: the line it stands on, the lines it is about, the checks, the reason."""

    line: int
    covers: tuple[int, ...]
    checks: tuple[str, ...]
    reason: str


def ignores_in(text: str, suffix: str) -> Iterator[Ignore]:
    """The comments of a text in a file whose name ends so; a Python string that quotes one is none."""
    if "triage:" not in text:
        return
    lines = text.splitlines()
    pattern = _MARKDOWN if suffix == ".md" else _HASH
    for number, column in _comments(text) if suffix == ".py" else ((number, 0) for number in range(1, len(lines) + 1)):
        found = pattern.search(lines[number - 1], column)
        if found is not None:
            alone = not lines[number - 1][: found.start()].strip()
            yield Ignore(
                line=number,
                covers=(number, number + 1) if alone else (number,),
                checks=tuple(name.strip() for name in found[1].split(",") if name.strip()),
                reason=found[2].strip(),
            )


def _comments(text: str) -> Iterator[tuple[int, int]]:
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.COMMENT:
                yield token.start
    except (tokenize.TokenError, SyntaxError):
        return  # what Python cannot read to its end has no more comments


def apply_ignores(findings: Iterable[Finding], given: Given) -> tuple[list[Finding], list[tuple[Finding, str]]]:
    """The findings that stand, and those that somebody accepted, with the reason."""
    standing, accepted = [], []
    known: dict[str, tuple[Ignore, ...]] = {}
    for finding in findings:
        file = finding.file
        if file is not None and file not in known:
            known[file] = tuple(_read(_path(file, given)))
        reason = _reason(finding, known.get(file or "", ()))
        if reason:
            accepted.append((finding, reason))
        else:
            standing.append(finding)
    return standing, accepted


def stale(given: Given, ran: Container[str], accepted: Sequence[Finding]) -> Iterator[str]:
    """One line for each ignore in Python and Markdown below --source of a check that ran and found nothing there."""
    if given.source is None:
        return
    used = {(finding.file, finding.check, finding.line) for finding in accepted}
    for file in (*given.sources.python, *given.sources.documents):
        for ignore in ignores_in(file.text, Path(file.path).suffix):
            for name in ignore.checks:
                if name in ran and ignore.reason and not any((file.path, name, line) in used for line in ignore.covers):
                    yield f"{file.path}:{ignore.line}: an ignore of {name}, which finds nothing there: remove it"


def _reason(finding: Finding, ignores: Iterable[Ignore]) -> str:
    for ignore in ignores:
        if finding.line in ignore.covers and finding.check in ignore.checks:
            return ignore.reason
    return ""


def _path(file: str, given: Given) -> Path:
    below = None if given.source is None else given.source / file
    return below if below is not None and below.is_file() else Path(file)


def _read(path: Path) -> Iterator[Ignore]:
    try:
        text = path.read_bytes().decode("utf-8", errors="replace")
    except OSError:
        return iter(())  # a folder, say
    return ignores_in(text, path.suffix)
