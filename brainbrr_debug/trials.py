"""The trials of one bisection: run, counted, logged, and stopped when the time is up.

An observation is kept by what was asked: a second question that needs the same trial gets it for nothing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from brainbrr_debug.capture import CaptureContent
from brainbrr_debug.observation import Observation
from brainbrr_debug.oracle import Judgement, Oracle
from brainbrr_debug.records import Outcome, dumps
from brainbrr_debug.rng import RngState
from brainbrr_debug.subject import Subject
from brainbrr_debug.training_state import StateError
from brainbrr_debug.trial import Trial, observe, one_line

FAILURES = (
    RuntimeError,
    ValueError,
    TypeError,
    ArithmeticError,
    LookupError,
    AttributeError,
    AssertionError,
    OSError,
    StateError,
)
"""What a step that does not run here may raise."""


class OutOfBudget(Exception):
    """No time left for another trial."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of one trial for one question; `observation` is None when it was skipped."""

    question: str
    trial: Trial
    outcome: Outcome
    reason: str
    seconds: float
    observation: Observation | None

    @property
    def bad(self) -> bool | None:
        """True, False, or None for cannot tell."""
        return {Outcome.BAD: True, Outcome.GOOD: False}.get(self.outcome)


class Trials:
    """Runs trials of one capture, counts them, logs them, and stops when the time is up."""

    def __init__(
        self,
        content: CaptureContent,
        subject: Subject,
        *,
        log: Path | None = None,
        deadline: float | None = None,
        progress: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.content, self.subject = content, subject
        self.results: list[Result] = []
        self.count = 0
        self._log, self._deadline, self._progress = log, deadline, progress
        self._asked: set[str] = set()
        self._seen: dict[str, tuple[Observation | None, str, float]] = {}

    def ask(self, question: str, trial: Trial, oracle: Oracle) -> Result:
        """The trial's result, from memory when it was run before. Raises OutOfBudget."""
        known = trial.key() in self._asked
        self._asked.add(trial.key())
        observation = self.observation(trial)
        _, skipped, seconds = self._seen[trial.key()]
        judgement = Judgement(outcome=Outcome.SKIP, reason=skipped) if observation is None else oracle(observation)
        result = Result(
            question=question,
            trial=trial,
            outcome=judgement.outcome,
            reason=judgement.reason,
            seconds=0.0 if known else seconds,
            observation=observation,
        )
        self.results.append(result)
        self._write(result, known=known)
        return result

    def observation(self, trial: Trial) -> Observation | None:
        """What the trial showed, None when it was skipped; run unless it was before. Raises OutOfBudget."""
        if trial.key() not in self._seen:
            self._seen[trial.key()] = self._observe(trial)
        return self._seen[trial.key()][0]

    @contextlib.contextmanager
    def counted(self, question: str) -> Iterator[None]:
        """Around work that costs about a trial and is none; generators are put back. Raises OutOfBudget."""
        if self._deadline is not None and time.monotonic() > self._deadline:
            raise OutOfBudget
        self.count += 1
        self._progress(f"{self.count:>3}  {question}")
        generators = RngState.take()
        try:
            yield
        finally:
            generators.restore()

    def _observe(self, trial: Trial) -> tuple[Observation | None, str, float]:
        if self._deadline is not None and time.monotonic() > self._deadline:
            raise OutOfBudget
        self.count += 1
        started = time.monotonic()
        generators = RngState.take()
        try:
            return observe(self.content, self.subject, trial), "", time.monotonic() - started
        except FAILURES as error:
            return None, one_line(error), time.monotonic() - started
        finally:
            generators.restore()

    def _write(self, result: Result, *, known: bool) -> None:
        changes = ", ".join(f"{key}={_short(value)}" for key, value in result.trial.changes().items()) or "as captured"
        self._progress(f"{self.count:>3}  {result.question:<11} {changes:<60} {result.outcome:<5} {result.reason}")
        if self._log is not None and not known:
            line = {"trial": self.count, **as_row(result)}
            with self._log.open("a", encoding="utf-8") as file:
                file.write(dumps(line) + "\n")


def as_row(result: Result) -> dict[str, Any]:
    """One line of the trial table."""
    seen = result.observation
    gap = None if seen is None else seen.smallest_gap()
    return {
        "question": result.question,
        "changes": json.loads(json.dumps(result.trial.changes(), default=str)),
        "outcome": result.outcome.value,
        "reason": result.reason,
        "seconds": round(result.seconds, 3),
        "loss": None if seen is None else seen.loss,
        "gradient_norm": None if seen is None else seen.gradient_norm,
        "gap": None if gap is None else gap.gap,
    }


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        return ",".join(f"{key}={item}" for key, item in value.items())
    text = str(value).replace(" ", "")
    return text if len(text) <= 60 else text[:57] + "..."
