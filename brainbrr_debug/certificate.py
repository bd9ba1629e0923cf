"""A certificate: what a training was held to under watch, and whether it holds. Imports no torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from brainbrr_debug.records import SCHEMA, to_json
from brainbrr_debug.report.text import row

NAME = "certificate.json"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Criterion:
    """One thing a certificate asks for: what was `required`, what was `measured`.

    `passed` is None where it does not apply, or was not reached; `measured` says which.
    """

    name: str
    required: str
    passed: bool | None
    measured: str
    evidence: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """Granted or refused, with the `reason`. `hides`: the failure is still there, and something keeps it from showing.

    `changes` are what was changed from the base; `steps` of `of` were done; `run` is the directory of the training,
    None where nothing was written.
    """

    granted: bool
    hides: bool
    reason: str
    subject: str
    seed: int
    changes: Mapping[str, Any]
    steps: int
    of: int
    criteria: tuple[Criterion, ...]
    run: str | None
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """As one document."""
        plain: dict[str, Any] = {"schema": SCHEMA, **to_json(self)}
        return plain

    def text(self) -> str:
        """In lines, the outcome first."""
        changes = ", ".join(f"{key}={value}" for key, value in self.changes.items()) or "as it is"
        criteria = [
            line
            for c in self.criteria
            for line in (row(_MARKS[c.passed], f"{c.name:<12}", c.measured), row("", f"required: {c.required}"))
        ]
        return "\n".join(
            [
                row("certified" if self.granted else "refused", self.reason),
                row("subject", self.subject, changes),
                row("steps", f"{self.steps} of {self.of}", f"seed {self.seed}", f"{self.seconds:.0f} s"),
                *([row("run", self.run)] if self.run else []),
                "",
                *criteria,
            ]
        )


_MARKS = {True: "yes", False: "NO", None: "–"}
