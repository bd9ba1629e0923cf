"""Configurations that exist to fail: `experiment.purpose: incident` names in `expects` exactly what is to be found.

Imports no torch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Sequence

from brainbrr_debug.checks.given import Given
from brainbrr_debug.records import Finding, Severity


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """The checks that are to find something, as `file` says."""

    checks: tuple[str, ...] = ()
    file: str = ""
    line: int | None = None

    def split(self, findings: Sequence[Finding], ran: Container[str]) -> tuple[list[Finding], list[Finding]]:
        """The findings that nobody expects, and the expected ones; an expectation that is not met is a finding."""
        expected = [finding for finding in findings if finding.check in self.checks]
        found = {finding.check for finding in expected}
        missing = [
            Finding(
                check=name,
                severity=Severity.P1,
                message="expected to find something here, and found nothing",
                where="experiment.expects",
                file=self.file,
                line=self.line,
                why="an incident that is not found any more tests nothing: either it was repaired or the check broke",
                remedy=f"take {name} out of experiment.expects, or restore what it is to find",
            )
            for name in self.checks
            if name in ran and name not in found
        ]
        return missing + [finding for finding in findings if finding.check not in self.checks], expected


def expectation_of(given: Given) -> Expectation:
    """What the configuration, if one was given and can be read, expects."""
    if given.config is None or given.config_facts.refused:
        return Expectation()
    facts = given.config_facts
    return Expectation(checks=facts.expects, file=str(given.config), line=facts.line("experiment.expects"))
