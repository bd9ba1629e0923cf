"""The trials of one bisection: run, counted, logged, and stopped when the time is up.

An answer is kept by what was asked: a second question that needs the same trial gets it for nothing.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Protocol

from brainbrr_debug.capture import CaptureContent
from brainbrr_debug.jobs import Answer, Job, Observe, key_of, perform
from brainbrr_debug.observation import Observation
from brainbrr_debug.oracle import Judgement, Oracle
from brainbrr_debug.records import Outcome, dumps, from_json
from brainbrr_debug.subject import Subject
from brainbrr_debug.trial import Trial


class OutOfBudget(Exception):
    """No time left for another trial."""


class Skipped(Exception):
    """A job that came to no value, and why: it crashed, hung, or raised something."""


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


class Runner(Protocol):
    """Where jobs are done, `width` at a time."""

    width: int

    def submit(self, job: Job) -> Future[Answer]:
        """Begin the job."""


class Here:
    """Jobs done in this process, one after the other; a crash is the end of it, and nothing stops a hang."""

    width = 1

    def __init__(self, content: CaptureContent, subject: Subject) -> None:
        self._content, self._subject = content, subject

    def submit(self, job: Job) -> Future[Answer]:
        """Do the job at once."""
        done: Future[Answer] = Future()
        done.set_result(perform(job, self._content, self._subject))
        return done


class Trials:
    """Runs trials of one capture, counts them, logs them, and stops when the time is up."""

    def __init__(
        self,
        content: CaptureContent,
        subject: Subject,
        *,
        runner: Runner | None = None,
        log: Path | None = None,
        deadline: float | None = None,
        progress: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.content, self.subject = content, subject
        self.results: list[Result] = []
        self.count = 0
        self._runner: Runner = Here(content, subject) if runner is None else runner
        self._log, self._deadline, self._progress = log, deadline, progress
        self._asked: set[str] = set()
        self._seen: dict[str, Answer] = {}
        self._observations: dict[str, Observation] = {}

    def ask(self, question: str, trial: Trial, oracle: Oracle) -> Result:
        """The trial's result, from memory when it was run before. Raises OutOfBudget."""
        return self.ask_all(question, [trial], oracle)[0]

    def ask_all(self, question: str, trials: Sequence[Trial], oracle: Oracle) -> list[Result]:
        """The results of trials none of which hangs on another, as many at a time as there are workers.

        Raises OutOfBudget when not all of them could begin; those that did are logged.
        """
        answers = self._answers([Observe(trial=trial) for trial in trials])
        return [self._judge(question, trial, oracle, next(answers)) for trial in trials]

    def run(self, question: str, job: Job) -> Any:
        """The job's value, from memory when it was run before. Raises OutOfBudget, and Skipped when it has none."""
        answer = next(self._answers([job]))
        if self._is_new(job):
            name = type(job).__name__
            outcome, reason = ("skip", answer.skipped) if answer.skipped is not None else ("done", "")
            self._progress(f"{self.count:>3}  {question:<11} {name:<60} {outcome:<5} {reason}".rstrip())
            row = {"question": question, "changes": {"job": name}, "outcome": outcome, "reason": reason}
            self._write(job, answer, row)
        if answer.skipped is not None:
            raise Skipped(answer.skipped)
        return answer.value

    def observation(self, trial: Trial) -> Observation | None:
        """What the trial showed, None when it was skipped; run unless it was before. Raises OutOfBudget."""
        answer = next(self._answers([Observe(trial=trial)]))
        key = trial.key()
        if answer.skipped is None and key not in self._observations:
            self._observations[key] = from_json(Observation, answer.value)
        return self._observations.get(key)

    def _answers(self, jobs: Sequence[Job]) -> Iterator[Answer]:
        """The answers in the order of the jobs; nothing is begun after the deadline. Raises OutOfBudget."""
        unseen = {key_of(job): job for job in jobs if key_of(job) not in self._seen}
        running: dict[str, Future[Answer]] = {}
        for key in map(key_of, jobs):
            if key not in self._seen:
                self._begin(unseen, running)
                if key not in running:
                    raise OutOfBudget
                self._seen[key] = running.pop(key).result()
            yield self._seen[key]

    def _begin(self, unseen: dict[str, Job], running: dict[str, Future[Answer]]) -> None:
        """Begin as many jobs as there are workers, while there is time."""
        while unseen and len(running) < self._runner.width:
            if self._deadline is not None and time.monotonic() > self._deadline:
                return
            key = next(iter(unseen))
            running[key] = self._runner.submit(unseen.pop(key))

    def _judge(self, question: str, trial: Trial, oracle: Oracle, answer: Answer) -> Result:
        seen = self.observation(trial)
        new = self._is_new(Observe(trial=trial))
        skipped = Judgement(outcome=Outcome.SKIP, reason=answer.skipped or "")
        judgement = skipped if seen is None else oracle(seen)
        result = Result(
            question=question,
            trial=trial,
            outcome=judgement.outcome,
            reason=judgement.reason,
            seconds=answer.seconds if new else 0.0,
            observation=seen,
        )
        self.results.append(result)
        changes = ", ".join(f"{key}={_short(value)}" for key, value in trial.changes().items()) or "as captured"
        self._progress(f"{self.count:>3}  {question:<11} {changes:<60} {result.outcome:<5} {result.reason}")
        if new:
            self._write(Observe(trial=trial), answer, as_row(result))
        return result

    def _is_new(self, job: Job) -> bool:
        """Whether the job was not asked about before; then it counts."""
        new = key_of(job) not in self._asked
        self._asked.add(key_of(job))
        self.count += new
        return new

    def _write(self, job: Job, answer: Answer, row: Mapping[str, Any]) -> None:
        if self._log is not None:
            line = {"trial": self.count, **row, "seconds": round(answer.seconds, 3)}
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
