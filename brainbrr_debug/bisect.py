"""From a capture to a verdict: the questions in order, cheapest first, each an experiment on the captured step.

    real?        repeat the step                        reality
    cause        weights × batch                        cause
    samples      delta debugging over the batch         culprits
    operation    the traced step                        operation
    component    every switch at its safe value         components
    alone        the component on its recorded input    sufficiency
    sequence     runs from the seed                     sequence
    stable       other weights                          stability
    seconds      delta debugging over the signal        culprits

Time that runs out leaves the later ones unanswered, and the verdict says which.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from brainbrr_debug.capture import CaptureContent, digest_of, read_capture, require_signal
from brainbrr_debug.errors import CannotRunHere
from brainbrr_debug.forward import forwarded
from brainbrr_debug.questions.cause import Matrix, data_or_weights
from brainbrr_debug.questions.components import Components, repairs, which_component
from brainbrr_debug.questions.culprits import Culprits, described, which_samples
from brainbrr_debug.questions.operation import Operation, which_operation
from brainbrr_debug.questions.reality import Reality, is_it_real
from brainbrr_debug.questions.sequence import Sequence, always_there
from brainbrr_debug.questions.stability import Stability, is_it_stable
from brainbrr_debug.questions.sufficiency import Alone, fails_alone
from brainbrr_debug.records import Cause, Origin, Verdict, to_json
from brainbrr_debug.sentence import disagreements, tell
from brainbrr_debug.subject import Subject
from brainbrr_debug.trial import load_captured_subject
from brainbrr_debug.triallog import Bisected, TrialLog
from brainbrr_debug.triallog import begin as begin_log
from brainbrr_debug.triallog import resume as resume_log
from brainbrr_debug.trials import OutOfBudget, Skipped, Trials, as_row
from brainbrr_debug.workers import working

QUESTIONS = ("real", "cause", "samples", "operation", "component", "alone", "sequence", "stable", "seconds")
REPEATS = 3
INITIALISATIONS = 8


@dataclasses.dataclass(slots=True, kw_only=True)
class Answers:
    """What has been answered so far; the defaults stand for "not asked"."""

    real: Reality | None = None
    cause: Matrix | None = None
    samples: Culprits | None = None
    operation: Operation | None = None
    component: Components | None = None
    alone: Alone | None = None
    sequence: Sequence | None = None
    stable: Stability | None = None
    unanswered: dict[str, str] = dataclasses.field(default_factory=dict)

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


def bisect(
    capture: str | Path | CaptureContent,
    *,
    subject: Subject | None = None,
    budget_s: float | None = None,
    timeout_s: float | None = None,
    log: Path | None = None,
    resume: bool = False,
    jobs: int = 1,
    executor: Executor | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> Verdict:
    """Ask every question about the captured step.

    Every trial runs in a process of its own, `jobs` at a time, or as many as `executor` takes; one that crashes, or is
    not done after `timeout_s` seconds (None: many times what the first one took), is skipped. Only trials of a
    `subject` that is given as an object, in place of the one that the capture names, run in this process.

    No trial begins after `budget_s` seconds. Trials are written to `log`; with `resume` those that it holds already are
    not run again, and without it a log that is there is moved aside. Global random generators are left as they were.

    Raises CaptureError for a capture that cannot be read, TrialLogError for a log that is not this capture's,
    CannotRunHere where the step cannot be repeated or the executor is broken.
    """
    started = time.monotonic()
    content = capture if isinstance(capture, CaptureContent) else read_capture(capture)
    require_signal(content)
    found = load_captured_subject(content) if subject is None else subject
    content = forwarded(content, found)
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
        answers = Answers()
        _ask(trials, answers)
    if answers.real is not None and answers.real.skipped is not None:
        raise CannotRunHere(f"the captured step does not run here: {answers.real.skipped}")
    return _verdict(trials, answers, time.monotonic() - started)


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


def _ask(trials: Trials, answers: Answers) -> None:
    """All questions in order, until the time is up or there is nothing to ask about."""
    with _timed(answers, "real"):
        answers.real = is_it_real(trials, times=REPEATS)
    if answers.real is None or answers.real.skipped is not None or answers.real.healthy:
        return
    oracles = answers.real.oracles
    with _timed(answers, "cause"):
        answers.cause = data_or_weights(trials, oracles)
    matrix = answers.cause
    everything = matrix is not None and matrix.everything_fails and matrix.cause != "rng"
    if matrix is None or matrix.cause in ("batch", None) or everything:
        with _timed(answers, "samples"):
            passes = matrix is None or matrix.bad("before", "healthy") is not True
            answers.samples = which_samples(trials, oracles, healthy_passes=passes)
    samples = answers.samples.samples if answers.samples is not None else ()
    with _timed(answers, "operation"):
        answers.operation = which_operation(trials, oracles, samples)
    fresh_fails = matrix.bad("fresh", "this") if matrix is not None else None
    with _timed(answers, "component"):
        answers.component = which_component(trials, oracles, answers.origin, fresh_fails=fresh_fails)
    component = answers.component.component if answers.component is not None else None
    if component is not None:
        with _timed(answers, "alone"):
            answers.alone = fails_alone(trials, component)
    if matrix is not None:
        with _timed(answers, "sequence"):
            answers.sequence = always_there(trials, oracles, matrix)
    with _timed(answers, "stable"):
        answers.stable = is_it_stable(
            trials, oracles, n=INITIALISATIONS, fresh=bool(fresh_fails), samples=samples, component=component
        )
    if answers.samples is not None:
        with _timed(answers, "seconds"):
            answers.samples = described(trials, answers.samples, oracles)


@contextlib.contextmanager
def _timed(answers: Answers, question: str) -> Iterator[None]:
    try:
        yield
    except OutOfBudget:
        answers.unanswered[question] = "the time ran out"
    except Skipped as reason:
        answers.unanswered[question] = str(reason)


def _verdict(trials: Trials, answers: Answers, seconds: float) -> Verdict:
    content, real = trials.content, answers.real
    verdict = Verdict(
        question=f"why did step {content.step} fail?",
        step=content.step,
        component=answers.component.component if answers.component is not None else None,
        origin=answers.origin,
        samples=_samples(answers),
        cause=_cause(answers)[0],
        necessary=answers.necessary,
        sufficient=answers.sufficient,
        stable={"k": answers.stable.k, "n": answers.stable.n} if answers.stable is not None else {"k": 0, "n": 0},
        replay={"reproduced": real.reproduced, "of": real.of} if real is not None else {"reproduced": 0, "of": 0},
        mechanism=answers.origin.mechanism,
        repairs=repairs(answers.component.tried) if answers.component is not None else (),
        trials=trials.count,
        seconds=round(seconds, 3),
        sentence="",
        details=_details(trials, answers),
    )
    return dataclasses.replace(verdict, sentence=tell(verdict))


def _samples(answers: Answers) -> tuple[dict[str, Any], ...]:
    if answers.samples is None:
        return ()
    rows = answers.samples.described or tuple({"index": sample[1]} for sample in answers.samples.samples)
    return tuple(dict(row) for row in rows)


def _cause(answers: Answers) -> tuple[Cause | None, str]:
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
    named = answers.component is not None and answers.component.component is not None
    return "verdict" if named or _cause(answers)[0] is not None else "incomplete"


def _details(trials: Trials, answers: Answers) -> dict[str, Any]:
    content, real = trials.content, answers.real
    details: dict[str, Any] = {
        "outcome": outcome(answers),
        "unanswered": answers.unanswered,
        "finding": content.finding,
        "subject": content.subject,
        "environment": content.environment,
        "rows": [as_row(result) for result in trials.results],
    }
    if real is not None:
        details["replay"] = {
            "failed": real.failed,
            "bit_exact": real.exact,
            "deterministic": real.deterministic,
            "differences": real.differences,
            "mismatches": real.mismatches,
            "oracle": real.oracles.leading or "harm",
            "threshold": real.oracles.threshold if real.oracles.leading else None,
        }
    if answers.cause is not None:
        cells = {name: {"outcome": r.outcome, "reason": r.reason} for name, r in answers.cause.cells.items()}
        only = answers.cause.only_these_weights
        details["cause"] = {"evidence": _cause(answers)[1], "only_these_weights": only, "cells": cells}
        details["sequence"] = answers.sequence
    if answers.samples is not None:
        found = answers.samples
        details["samples"] = {
            "sets": [[list(sample) for sample in part] for part in found.sets],
            "necessary": found.necessary,
            "sufficient": found.sufficient,
            "inconsistent": found.inconsistent,
            "skipped": found.skipped,
            "replaced": found.replaced,
        }
    if answers.operation is not None:
        details["operation"] = {"cut_down": answers.operation.cut_down}
    if answers.component is not None:
        details["component"] = _component_details(answers.component)
    if answers.alone is not None:
        details["alone"] = {"fails": answers.alone.fails, "reason": answers.alone.reason}
    if answers.stable is not None:
        details["stable"] = {"how": answers.stable.how}
    details["disagreements"] = disagreements(details)
    plain: dict[str, Any] = to_json(details)
    return plain


def _component_details(found: Components) -> dict[str, Any]:
    return {
        "necessary": found.necessary,
        "together": found.together,
        "disagreement": found.disagreement,
        "switches": [
            {
                "name": t.name,
                "value": t.value,
                "component": t.switch.component,
                "weights": t.weights,
                "outcome": t.result.outcome if t.result is not None and not t.skipped else "skip",
                "reason": t.skipped or (t.result.reason if t.result is not None else ""),
                "notes": t.result.observation.notes if t.result is not None and t.result.observation else (),
                "hides": t.switch.hides,
            }
            for t in found.tried
        ],
    }


def _all(parts: tuple[bool | object | None, ...]) -> bool | None:
    known = [bool(part) for part in parts if part is not None]
    return all(known) if known else None
