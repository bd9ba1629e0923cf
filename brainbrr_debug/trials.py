"""The trials of one bisection: run, counted, logged, and stopped when the time is up.

An answer is kept by what was asked: a second question that needs the same trial gets it for nothing, and so does a
bisection that goes on from its log.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from brainbrr_debug.capture import CaptureContent
from brainbrr_debug.jobs import Answer, Job, Observe, key_of
from brainbrr_debug.observation import Observation
from brainbrr_debug.oracle import Judgement, Oracle
from brainbrr_debug.records import Outcome, from_json
from brainbrr_debug.subject import Subject
from brainbrr_debug.trial import Trial, load_captured_subject
from brainbrr_debug.triallog import TrialLog
from brainbrr_debug.workers import Here, Pending, Runner

FLOOR_S, FIRST_S = 60.0, 600.0
"""A trial may always take so long, and the first one, of which nothing is known, so long."""
MULTIPLE = 20.0
"""A trial may take so many times as long as the first one did."""
LONGER = 10.0
"""What is no trial (a trace, a run from the seed) may take so many times as long as one."""


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


class Trials:
    """Runs trials of one capture, counts them, logs them, and stops when the time is up.

    `subject` is the one to ask in this process (None: the one that the capture names, loaded when it is needed).
    `runner` does the jobs (None: this process does), none longer than `timeout_s` (None: by what the first one took).
    `expected` is a guess of how many trials it will be in all; 0: none was made.
    """

    def __init__(
        self,
        content: CaptureContent,
        subject: Subject | None = None,
        *,
        runner: Runner | None = None,
        log: TrialLog | None = None,
        deadline: float | None = None,
        timeout_s: float | None = None,
        progress: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.content, self._subject = content, subject
        self.results: list[Result] = []
        self.count = 0
        self.expected = 0
        self._runner: Runner = Here(content, self.subject) if runner is None else runner
        self._log, self._deadline, self._progress = log, deadline, progress
        self._timeout_s = timeout_s
        self._asked: set[str] = set()
        logged = log.answers if log is not None else {}
        self._seen = {key: from_json(Answer, answer) for key, answer in logged.items()}
        self._observations: dict[str, Observation] = {}

    @property
    def subject(self) -> Subject:
        """The subject, which is not loaded in this process before somebody needs it here: that alone may crash."""
        if self._subject is None:
            self._subject = load_captured_subject(self.content)
        return self._subject

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
            name = str(getattr(job, "told", type(job).__name__))
            outcome, reason = ("skip", answer.skipped) if answer.skipped is not None else ("done", "")
            self._narrate(question, name, outcome, reason or "")
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
        running: dict[str, Pending] = {}
        for key in map(key_of, jobs):
            if key not in self._seen:
                self._begin(unseen, running)
                if key not in running:
                    raise OutOfBudget
                self._seen[key] = running.pop(key)()
            yield self._seen[key]

    def _begin(self, unseen: dict[str, Job], running: dict[str, Pending]) -> None:
        """Begin as many jobs as there are workers, while there is time."""
        while unseen and len(running) < self._runner.width:
            if self._deadline is not None and time.monotonic() > self._deadline:
                return
            key = next(iter(unseen))
            job = unseen.pop(key)
            running[key] = self._runner.submit(job, self._limit(job))

    def _limit(self, job: Job) -> float:
        """So many seconds may the job take: a generous multiple of what a trial takes."""
        if self._timeout_s is not None:
            return self._timeout_s
        trial = next((answer.seconds for answer in self._seen.values() if answer.skipped is None), None)
        if trial is None:
            return FIRST_S
        limit = max(FLOOR_S, MULTIPLE * trial)
        return limit if isinstance(job, Observe) else LONGER * limit

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
        self._narrate(question, changes, result.outcome, result.reason)
        if new:
            self._write(Observe(trial=trial), answer, as_row(result))
        return result

    def _is_new(self, job: Job) -> bool:
        """Whether the job was not asked about before; then it counts."""
        new = key_of(job) not in self._asked
        self._asked.add(key_of(job))
        self.count += new
        return new

    def _narrate(self, question: str, changes: str, outcome: str, reason: str) -> None:
        count = f"{self.count:>3}" + (f" of about {max(self.expected, self.count)}" if self.expected else "")
        self._progress(f"{count}  {question:<11} {changes:<60} {outcome:<5} {reason}".rstrip())

    def _write(self, job: Job, answer: Answer, row: Mapping[str, Any]) -> None:
        if self._log is not None and key_of(job) not in self._log.answers:
            line = {"trial": self.count, **row, "seconds": round(answer.seconds, 3)}
            self._log.append({**line, "key": key_of(job), "answer": answer})


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
