"""Runs every check that has what it needs. One that crashes is a result and never the end. Imports no torch."""

from __future__ import annotations

import dataclasses
import fnmatch
import time
import traceback
from collections.abc import Iterable, Mapping, Sequence

from brainbrr_debug.checks.registry import Check, Given, Look, NotApplicable, load
from brainbrr_debug.errors import UsageError
from brainbrr_debug.records import Finding, Severity
from brainbrr_debug.triage.baseline import Baseline
from brainbrr_debug.triage.checklist import Checklist, nearest
from brainbrr_debug.triage.expected import expectation_of
from brainbrr_debug.triage.ignores import apply_ignores, stale


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Crash:
    """A check that failed: in one line, and the whole traceback."""

    check: str
    line: str
    traceback: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Triage:
    """What came of it: `findings` stand; the others were accepted in place, in the baseline, or are expected.

    `ran` are the checks that judged something, `not_applicable` says of the others why not. `gone` are entries of the
    baseline that no longer occur. `notes` say what was passed over. `advice`: of all findings, those that only advise.
    """

    findings: tuple[Finding, ...]
    ignored: tuple[tuple[Finding, str], ...]
    known: tuple[Finding, ...]
    expected: tuple[Finding, ...]
    gone: tuple[str, ...]
    ran: tuple[str, ...]
    not_applicable: Mapping[str, str]
    crashed: tuple[Crash, ...]
    notes: tuple[str, ...]
    seconds: float
    advice: tuple[Finding, ...] = ()

    def failing(self, threshold: Severity) -> list[Finding]:
        """The findings at or above `threshold` of looks that may fail a CI."""
        return [f for f in self.findings if f.severity <= threshold and not any(f is one for one in self.advice)]


def triage(given: Given, checklist: Checklist, wanted: Sequence[str], baseline: Baseline) -> Triage:
    """Run the checks `wanted` over what is `given`, with the thresholds and severities of the checklist."""
    began = time.monotonic()
    given = dataclasses.replace(given, settings=checklist.settings)
    registered = load()
    judgements = {name: _judged(registered[name], given, checklist.checks[name]) for name in wanted}
    crashes = {name: judged.crash for name, judged in judgements.items() if judged.crash is not None}
    skipped = {name: judged.skipped for name, judged in judgements.items() if name not in crashes and judged.skipped}
    ran = [name for name in wanted if name not in crashes and name not in skipped]
    found = _sorted(finding for judged in judgements.values() for finding in judged.findings)
    standing, ignored = apply_ignores(found, given)
    for line in stale(given, ran, [finding for finding, _ in ignored]):
        given.note(line)
    expectation = expectation_of(given)
    standing, expected = expectation.split(standing, ran)
    standing, known, gone = baseline.split(standing, ran)
    return Triage(
        findings=tuple(standing),
        ignored=tuple(ignored),
        known=tuple(known),
        expected=tuple(expected),
        gone=tuple(gone),
        ran=tuple(ran),
        not_applicable=skipped,
        crashed=tuple(crashes.values()),
        notes=tuple(given.notes),
        seconds=time.monotonic() - began,
        advice=tuple(finding for judged in judgements.values() for finding in judged.advice),
    )


def chosen(checklist: Checklist, select: Sequence[str], ignore: Sequence[str]) -> list[str]:
    """The checks of the checklist whose ids match one of `select` (none: all) and none of `ignore`.

    Raises UsageError for a pattern that matches no check.
    """
    known = load()
    for pattern in (*select, *ignore):
        if not fnmatch.filter(known, pattern):
            raise UsageError(f"no check matches {pattern}{nearest(pattern, known)}")
    return [
        name
        for name in checklist.checks
        if (not select or any(fnmatch.fnmatchcase(name, pattern) for pattern in select))
        and not any(fnmatch.fnmatchcase(name, pattern) for pattern in ignore)
    ]


def examine(check: Check, look: Look, given: Given) -> list[Finding]:
    """The findings of one look. Raises whatever the check raises, and ValueError for findings of another id."""
    findings = list(look.function(given))
    for finding in findings:
        if finding.check != check.id:
            raise ValueError(f"{check.id} reported a finding of {finding.check}")
    return findings


@dataclasses.dataclass(slots=True, kw_only=True)
class _Judgement:
    """What the looks of one check came to: findings, those that are only advice, why none could be taken, a crash."""

    findings: list[Finding] = dataclasses.field(default_factory=list)
    advice: list[Finding] = dataclasses.field(default_factory=list)
    skipped: str = ""
    crash: Crash | None = None


def _judged(check: Check, given: Given, severity: Severity | None) -> _Judgement:
    """Take every look that has what it needs; findings get `severity` where the checklist says one."""
    judged = _Judgement()
    reasons: list[str] = []
    for look in check.looks:
        lacking = next(filter(None, map(given.lacks, look.needs)), None)
        if lacking is not None:
            reasons.append(lacking)
            continue
        try:
            made = examine(check, look, given)
        except NotApplicable as reason:
            reasons.append(str(reason))
        except Exception as error:  # noqa: BLE001  the seam between the runner and a check: the others still run
            line = " ".join(f"{type(error).__name__}: {error}".split())
            judged.crash = Crash(check=check.id, line=line, traceback=traceback.format_exc())
            return judged
        else:
            made = [f if severity is None else dataclasses.replace(f, severity=severity) for f in made]
            judged.findings += made
            judged.advice += made if look.advises else []
    if len(reasons) == len(check.looks):
        judged.skipped = ", ".join(dict.fromkeys(reasons))
    return judged


def _sorted(findings: Iterable[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda f: (f.severity, f.check, f.file or "", f.line or 0, f.step or 0))
