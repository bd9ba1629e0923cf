"""What has been answered so far, and what it comes to in one word."""

from __future__ import annotations

import dataclasses
from typing import Any

from brainbrr_debug.oracle import Oracles
from brainbrr_debug.questions.beginning import Beginning
from brainbrr_debug.questions.cause import Matrix
from brainbrr_debug.questions.components import Components
from brainbrr_debug.questions.culprits import Culprits
from brainbrr_debug.questions.operation import Operation
from brainbrr_debug.questions.precision import Precision
from brainbrr_debug.questions.reality import Reality
from brainbrr_debug.questions.repairs import Repair
from brainbrr_debug.questions.sequence import Sequence
from brainbrr_debug.questions.stability import Stability
from brainbrr_debug.questions.sufficiency import Alone
from brainbrr_debug.records import Cause, Origin
from brainbrr_debug.samples import Sample


@dataclasses.dataclass(slots=True, kw_only=True)
class Answers:
    """What has been answered so far; the defaults stand for "not asked"."""

    beginning: Beginning | None = None
    real: Reality | None = None
    cause: Matrix | None = None
    samples: Culprits | None = None
    operation: Operation | None = None
    matrix: dict[str, Any] | None = None
    component: Components | None = None
    alone: Alone | None = None
    sequence: Sequence | None = None
    stable: Stability | None = None
    precision: Precision | None = None
    repairs: tuple[Repair, ...] | None = None
    unanswered: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def nothing_to_ask(self) -> bool:
        """The step is healthy here, or does not run."""
        return self.real is None or self.real.skipped is not None or self.real.healthy

    @property
    def oracles(self) -> Oracles:
        """The judges, which the first question chooses."""
        assert self.real is not None
        return self.real.oracles

    @property
    def may_be_samples(self) -> bool:
        """Whether samples can be to blame by what is known of batch and weights."""
        matrix = self.cause
        if matrix is None or matrix.cause in ("batch", None):
            return True
        return matrix.everything_fails and matrix.cause != "rng"

    @property
    def fresh_fails(self) -> bool | None:
        """Whether fresh weights fail on the captured batch, None: not known."""
        return self.cause.bad("fresh", "this") if self.cause is not None else None

    @property
    def culprits(self) -> tuple[Sample, ...]:
        """The samples to blame; none while none are known."""
        return self.samples.samples if self.samples is not None else ()

    @property
    def named(self) -> str | None:
        """The component to blame; None while none is known."""
        return self.component.component if self.component is not None else None

    @property
    def origin(self) -> Origin:
        """The operation's origin; healthy while there is none."""
        return self.operation.origin if self.operation is not None else Origin(healthy=True)

    @property
    def necessary(self) -> bool | None:
        """Taking the culprit away heals: the component and, where samples are to blame, those; None: not asked."""
        parts = (self.component and self.component.necessary, self.samples and self.samples.necessary)
        return _all(parts)

    @property
    def sufficient(self) -> bool | None:
        """The culprit alone fails: the component and, where samples are to blame, those; None: not asked."""
        return _all((self.alone and self.alone.fails, self.samples and self.samples.sufficient))


def cause_of(answers: Answers) -> tuple[Cause | None, str]:
    """The word for the cause, and its evidence."""
    real, matrix, runs = answers.real, answers.cause, answers.sequence
    found = runs if runs is not None and runs.skipped is None else matrix
    word, evidence = (found.cause, found.evidence) if found is not None else (None, "")
    if real is not None and real.failed and (real.failed < real.of or not real.deterministic):
        return "hardware", evidence  # the same bits went in, and something else came out
    if answers.samples is not None and answers.samples.necessary and word != "batch":
        # the rest of it passes with these weights, whatever the healthy batch does
        return "batch", "without the named samples the step passes"
    return word, evidence


def outcome(answers: Answers) -> str:
    """verdict, healthy, did-not-reproduce, or incomplete."""
    real = answers.real
    if real is not None and real.healthy:
        return "did-not-reproduce" if real.captured_bad else "healthy"
    return "verdict" if answers.named is not None or cause_of(answers)[0] is not None else "incomplete"


def _all(parts: tuple[bool | object | None, ...]) -> bool | None:
    known = [bool(part) for part in parts if part is not None]
    return all(known) if known else None
