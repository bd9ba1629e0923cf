"""What one trial does, wherever it is done: a job over the captured step and its subject, and the answer as plain JSON.

A job is a frozen dataclass that can be pickled and called as `job(content, subject)`; what it returns must be safe for
JSON, because that is how it comes back from another process and out of the log of an interrupted bisection.
"""

from __future__ import annotations

import dataclasses
import json
import time
from typing import Any, Protocol

from brainbrr_debug.capture import CaptureContent
from brainbrr_debug.records import dumps, to_json
from brainbrr_debug.rng import preserved
from brainbrr_debug.subject import Subject
from brainbrr_debug.trial import Trial, captured_threads, observe, one_line


class Job(Protocol):
    """Work that costs about a trial or more; a frozen dataclass."""

    def __call__(self, content: CaptureContent, subject: Subject) -> Any:
        """Do it; the value is safe for JSON."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came of a job in so many seconds: its value, or why there is none."""

    value: Any = None
    skipped: str | None = None
    seconds: float = 0.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Observe:
    """One trial: its value is the Observation."""

    trial: Trial

    def __call__(self, content: CaptureContent, subject: Subject) -> Any:
        """Do the step and say what it showed."""
        return to_json(observe(content, subject, self.trial))


def key_of(job: Job) -> str:
    """The same text for the same job."""
    if isinstance(job, Observe):
        return job.trial.key()
    return f"{type(job).__name__} {json.dumps(to_json(job), sort_keys=True)}"


def perform(job: Job, content: CaptureContent, subject: Subject) -> Answer:
    """Do the job with the captured number of threads; whatever it raises is why it was skipped.

    Global generators are left as they were.
    """
    started = time.monotonic()
    value, skipped = None, None
    with captured_threads(content), preserved():
        try:
            value = json.loads(dumps(job(content, subject)))  # the same value as from another process or from the log
        except Exception as error:  # noqa: BLE001 - the seam: whatever a subject raises is an outcome of its trial
            skipped = one_line(error)
    return Answer(value=value, skipped=skipped, seconds=time.monotonic() - started)
