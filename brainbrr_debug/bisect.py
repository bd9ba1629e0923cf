"""From a capture to a verdict: the questions in order, cheapest first, each an experiment on the captured step.

The list is `QUESTIONS`; how each is asked stands in a file of `questions`. One for which the time ran out, whose work
crashed, or that was skipped on request stays unanswered, and the verdict says so.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Collection
from concurrent.futures import Executor
from pathlib import Path

from brainbrr_debug.answers import Answers
from brainbrr_debug.capture import CaptureContent, digest_of, read_capture, require_signal
from brainbrr_debug.errors import CannotRunHere, UsageError
from brainbrr_debug.forward import forwarded
from brainbrr_debug.questions.beginning import when_did_it_begin
from brainbrr_debug.questions.cause import data_or_weights
from brainbrr_debug.questions.components import which_component
from brainbrr_debug.questions.culprits import which_samples
from brainbrr_debug.questions.electrodes import which_electrodes
from brainbrr_debug.questions.matrix import which_matrix
from brainbrr_debug.questions.operation import which_operation
from brainbrr_debug.questions.precision import which_precision
from brainbrr_debug.questions.reality import is_it_real
from brainbrr_debug.questions.repairs import which_repairs
from brainbrr_debug.questions.sequence import always_there
from brainbrr_debug.questions.stability import is_it_stable
from brainbrr_debug.questions.stretch import described
from brainbrr_debug.questions.sufficiency import fails_alone
from brainbrr_debug.records import Verdict
from brainbrr_debug.rundir import RunDir
from brainbrr_debug.samples import batch_size
from brainbrr_debug.subject import Subject
from brainbrr_debug.trial import load_captured_subject
from brainbrr_debug.triallog import Bisected, TrialLog
from brainbrr_debug.triallog import begin as begin_log
from brainbrr_debug.triallog import resume as resume_log
from brainbrr_debug.trials import OutOfBudget, Skipped, Trials
from brainbrr_debug.verdict import verdict_of
from brainbrr_debug.workers import working

REPEATS = 3
INITIALISATIONS = 8
TIME_RAN_OUT, ON_REQUEST = "the time ran out", "skipped on request"


def _real(trials: Trials, answers: Answers) -> None:
    answers.real = is_it_real(trials, times=REPEATS)


def _cause(trials: Trials, answers: Answers) -> None:
    answers.cause = data_or_weights(trials, answers.oracles)


def _samples(trials: Trials, answers: Answers) -> None:
    passes = answers.cause is None or answers.cause.bad("before", "healthy") is not True
    answers.samples = which_samples(trials, answers.oracles, healthy_passes=passes)


def _operation(trials: Trials, answers: Answers) -> None:
    answers.operation = which_operation(trials, answers.oracles, answers.culprits)


def _matrix(trials: Trials, answers: Answers) -> None:
    answers.matrix = which_matrix(trials, answers.origin)


def _component(trials: Trials, answers: Answers) -> None:
    answers.component = which_component(trials, answers.oracles, answers.origin, fresh_fails=answers.fresh_fails)


def _alone(trials: Trials, answers: Answers) -> None:
    answers.alone = fails_alone(trials, answers.named or "")


def _sequence(trials: Trials, answers: Answers) -> None:
    if answers.cause is not None:
        answers.sequence = always_there(trials, answers.oracles, answers.cause)


def _stable(trials: Trials, answers: Answers) -> None:
    answers.stable = is_it_stable(
        trials,
        answers.oracles,
        n=INITIALISATIONS,
        fresh=bool(answers.fresh_fails),
        samples=answers.culprits,
        component=answers.named,
    )


def _precision(trials: Trials, answers: Answers) -> None:
    answers.precision = which_precision(trials, answers.oracles)


def _electrodes(trials: Trials, answers: Answers) -> None:
    if answers.samples is not None:
        answers.samples = which_electrodes(trials, answers.samples, answers.oracles)


def _seconds(trials: Trials, answers: Answers) -> None:
    if answers.samples is not None:
        answers.samples = described(trials, answers.samples, answers.oracles)


def _repair(trials: Trials, answers: Answers) -> None:
    if answers.component is not None:
        answers.repairs = which_repairs(trials, answers.component)


def _search(trials: Trials) -> int:
    """What a search for one culprit among the samples takes."""
    return 2 * sum(batch_size(batch) or 0 for batch in trials.content.micro_batches).bit_length() + 4


def _values(trials: Trials) -> int:
    """How many values the subject's switches can be turned to."""
    return sum(len(switch.values) - 1 for switch in trials.subject.switches().values() if switch.applies is None)


@dataclasses.dataclass(frozen=True, slots=True)
class Question:
    """A question: `ask` puts down its answer; about so many `trials`; asked when it `applies` to the answers so far."""

    name: str
    ask: Callable[[Trials, Answers], None]
    trials: Callable[[Trials], int]
    applies: Callable[[Answers], bool] = lambda answers: True


QUESTIONS = (
    Question("real", _real, lambda trials: REPEATS),
    Question("cause", _cause, lambda trials: 7),
    Question("samples", _samples, _search, lambda answers: answers.may_be_samples),
    Question("operation", _operation, lambda trials: 2),
    Question("matrix", _matrix, lambda trials: 1),
    Question("component", _component, _values),
    Question("alone", _alone, lambda trials: 1, lambda answers: answers.named is not None),
    Question("sequence", _sequence, lambda trials: 6, lambda answers: answers.cause is not None),
    Question("stable", _stable, lambda trials: INITIALISATIONS),
    Question("precision", _precision, lambda trials: 4),
    Question("electrodes", _electrodes, lambda trials: 10, lambda answers: answers.samples is not None),
    Question("seconds", _seconds, lambda trials: 8, lambda answers: answers.samples is not None),
    Question("repair", _repair, lambda trials: 4, lambda answers: answers.component is not None),
)
SKIPPABLE = tuple(question.name for question in QUESTIONS[1:])


def require_questions(skip: Collection[str]) -> None:
    """Raises UsageError for a name to skip that is none of `SKIPPABLE`."""
    for name in skip:
        if name not in SKIPPABLE:
            raise UsageError(f"{name!r} is no question to skip; expected one of {', '.join(SKIPPABLE)}")


def bisect(
    capture: str | Path | CaptureContent,
    *,
    subject: Subject | None = None,
    budget_s: float | None = None,
    timeout_s: float | None = None,
    run: RunDir | None = None,
    log: Path | None = None,
    resume: bool = False,
    jobs: int = 1,
    executor: Executor | None = None,
    skip: Collection[str] = (),
    progress: Callable[[str], None] = lambda line: None,
) -> Verdict:
    """Ask every question about the captured step, but for those to `skip`.

    Where the readings of its `run` (None: those in the capture) show that it began earlier, the questions are about
    that step.

    Every trial runs in a process of its own, `jobs` at a time, or as many as `executor` takes; one that crashes, or is
    not done after `timeout_s` seconds (None: many times what the first one took), is skipped. Only trials of a
    `subject` that is given as an object, in place of the one that the capture names, run in this process.

    No trial begins after `budget_s` seconds. Trials are written to `log`; with `resume` those that it holds already are
    not run again, and without it a log that is there is moved aside. Global random generators are left as they were.

    Raises UsageError for a question that there is not, CaptureError for a capture that cannot be read, TrialLogError
    for a log that is not this capture's, CannotRunHere where the step cannot be repeated or the executor is broken.
    """
    require_questions(skip)
    started = time.monotonic()
    content = capture if isinstance(capture, CaptureContent) else read_capture(capture)
    require_signal(content)
    found = load_captured_subject(content) if subject is None else subject
    beginning = when_did_it_begin(forwarded(content, found), found, run)
    content = beginning.content
    with working(content, subject=subject, jobs=jobs, executor=executor) as runner:
        trials = Trials(
            content,
            found,
            runner=runner,
            log=None if log is None else _open(log, content, resume=resume, progress=progress),
            deadline=None if budget_s is None else started + budget_s,
            timeout_s=timeout_s,
            progress=progress,
        )
        answers = Answers(beginning=beginning)
        _ask_all(trials, answers, skip)
    if answers.real is not None and answers.real.skipped is not None:
        raise CannotRunHere(f"the captured step does not run here: {answers.real.skipped}")
    return verdict_of(trials, answers, time.monotonic() - started)


def _open(log: Path, content: CaptureContent, *, resume: bool, progress: Callable[[str], None]) -> TrialLog:
    """The log, begun or gone on from, and what became of one that was there."""
    about = Bisected(fingerprint=digest_of(content), step=content.step, subject=content.subject)
    if not resume:
        begun, moved = begin_log(log, about)
        if moved is not None:
            progress(f"{log} of an earlier bisection is now {moved.name}")
        return begun
    resumed, torn = resume_log(log, about)
    progress(f"{len(resumed.answers)} trials from {log}{', its last line torn and left out' if torn else ''}")
    return resumed


def _ask_all(trials: Trials, answers: Answers, skip: Collection[str]) -> None:
    """All questions in order, until there is nothing to ask about."""
    for place, question in enumerate(QUESTIONS):
        if question.name in skip:
            answers.unanswered[question.name] = ON_REQUEST
        elif question.applies(answers):
            left = [later for later in QUESTIONS[place:] if later.name not in skip and later.applies(answers)]
            trials.expected = trials.count + sum(later.trials(trials) for later in left)
            try:
                question.ask(trials, answers)
            except OutOfBudget:
                answers.unanswered[question.name] = TIME_RAN_OUT
            except Skipped as reason:
                answers.unanswered[question.name] = str(reason)
        if answers.nothing_to_ask:
            return
