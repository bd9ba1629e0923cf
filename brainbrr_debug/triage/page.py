"""A triage on one page: a mark for each category, a line for each finding, the summary last. Imports no torch.

Nothing is cut: paths and ids are there to be copied, and each finding's first line can be found with grep.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from brainbrr_debug.checks.registry import Check
from brainbrr_debug.records import Finding, Severity
from brainbrr_debug.sentence import nearby
from brainbrr_debug.triage.run import Triage
from brainbrr_debug.triage.shipped import runbook

SHOWN = 5
"""Findings of one check that are listed; the others are counted, and in the JSON."""


def page(found: Triage, threshold: Severity) -> str:
    """The whole page; findings at or above `threshold` fail."""
    lines = [*_categories(found, threshold), ""]
    by_check: dict[str, list[Finding]] = {}
    for finding in found.findings:
        by_check.setdefault(finding.check, []).append(finding)
    for check, findings in by_check.items():
        lines += [line for finding in findings[:SHOWN] for line in finding_lines(finding)]
        if len(findings) > SHOWN:
            lines.append(f"      and {len(findings) - SHOWN} more of {check}: --format json lists them")
    lines += [f"crashed {crash.check}: {crash.line}" for crash in found.crashed]
    lines += [f"note {line}" for line in found.notes]
    lines += [f"gone {line}: take it out of the baseline" for line in found.gone]
    if lines[-1]:
        lines.append("")
    return "\n".join([*lines, summary(found, threshold)])


def finding_lines(finding: Finding) -> Iterator[str]:
    """The line that can be searched for, then why, and what to do."""
    place = _place(finding)
    yield f"{place}{finding.check} {finding.severity.name} {finding.message}"
    if finding.why:
        yield f"      why {finding.why}"
    if finding.remedy:
        yield f"      fix {finding.remedy}"
    yield from (f"      run {command}" for command in finding.commands)


def _place(finding: Finding) -> str:
    parts = [nearby(finding.file)] if finding.file else []
    parts += [str(finding.line)] if finding.file and finding.line else []
    if not parts and finding.where:
        parts = [finding.where]
    return ":".join(parts) + ": " if parts else ""


def summary(found: Triage, threshold: Severity) -> str:
    """The last line."""
    counts = Counter(finding.severity.name for finding in found.findings)
    listed = ", ".join(f"{counts[name]} {name}" for name in sorted(counts))
    total = len(found.findings)
    words = [f"{_count(total, 'finding')} ({listed})" if total else "nothing found"]
    words.append(f"{_count(len(found.ran), 'check')} in {found.seconds:.1f} s")
    for number, what in (
        (len(found.expected), "expected"),
        (len(found.ignored), "ignored with a reason"),
        (len(found.known), "in the baseline"),
        (len(found.not_applicable), "not applicable"),
        (len(found.crashed), "crashed"),
    ):
        words += [f"{number} {what}"] if number else []
    if found.failing(threshold):
        words.append(f"fails at {threshold.name}")
    if total:
        words.append(f"more: brainbrr-debug triage --explain {found.findings[0].check}")
    return " · ".join(words)


def _categories(found: Triage, threshold: Severity) -> Iterator[str]:
    crashed = {crash.check for crash in found.crashed}
    failing = {finding.check for finding in found.failing(threshold)}
    accused = {finding.check for finding in found.findings}
    groups: dict[str, list[str]] = {}
    for name in sorted({*found.ran, *found.not_applicable, *crashed, *accused}):
        groups.setdefault(name.partition(".")[0], []).append(name)
    for category, names in groups.items():
        mark = _mark(set(names), crashed, failing, accused, set(found.not_applicable))
        yield f" {mark} {category:<12}{', '.join(_tally(names, found, crashed))}"


def _mark(names: set[str], crashed: set[str], failing: set[str], accused: set[str], skipped: set[str]) -> str:
    for mark, group in (("☠", crashed), ("✗", failing), ("!", accused)):
        if names & group:
            return mark
    return "–" if names <= skipped else "✓"


def _tally(names: Sequence[str], found: Triage, crashed: set[str]) -> Iterator[str]:
    ran = [name for name in names if name in found.ran]
    if ran:
        yield _count(len(ran), "check")
    number = sum(finding.check in names for finding in found.findings)
    if number:
        yield _count(number, "finding")
    dead = [name for name in names if name in crashed]
    if dead:
        yield f"{len(dead)} crashed: {' '.join(dead)}"
    skipped = {name: found.not_applicable[name] for name in names if name in found.not_applicable}
    if skipped:
        yield f"{len(skipped)} not applicable ({_reasons(skipped)})"


def _reasons(skipped: Mapping[str, str]) -> str:
    counts = Counter(skipped.values())
    return "; ".join(reason for reason, _ in counts.most_common())


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def listing(checks: Mapping[str, Check]) -> str:
    """Every check: id, severity, what it needs, what it finds."""
    width = max(map(len, checks))
    rows = []
    for check in checks.values():
        needs = " or ".join("+".join(look.needs) for look in check.looks)
        advising = ["+".join(look.needs) for look in check.looks if look.advises]
        over = "" if check.advises else f" over {' and '.join(advising)}"
        advises = f" (advises{over})" if advising else ""
        rows.append(f"{check.id:<{width}}  {check.severity.name}  {needs:<22}  {check.summary}{advises}")
    return "\n".join(rows)


def explanation(check: Check) -> str:
    """One check and its runbook."""
    text = runbook(check.id).read_text(encoding="utf-8").rstrip()
    ignoring = f"Accept one finding in place: `# triage: ignore[{check.id}] reason`; never look for it: "
    return f"{text}\n\n{ignoring}--ignore {shlex.quote(check.id)}"
