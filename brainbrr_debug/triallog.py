"""The log of a bisection, `bisect.jsonl`: what it was, then a line a trial, whole enough to go on from.

    {"log": "bisect", "schema": 1, "fingerprint": "…", "step": 6, "subject": "package.module:attribute"}
    {"trial": 1, "question": "real", "outcome": "bad", …, "key": "…", "answer": {"value": {…}, …}}

A line is one write, synced before the next trial is judged: kill -9 costs what was being computed and at most tears the
last line, which is ignored and said. Imports no torch.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from brainbrr_debug.errors import UsageError
from brainbrr_debug.records import SCHEMA, dumps


class TrialLogError(UsageError):
    """A log that cannot be gone on from: which, why, and what to do instead."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Bisected:
    """What a log is about: the capture's fingerprint, and its step and subject for people."""

    fingerprint: str
    step: int
    subject: str


class TrialLog:
    """A log to append to; `answers` holds what it held when it was opened, by the job's key."""

    def __init__(self, path: Path, answers: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        self.path = path
        self.answers = dict(answers or {})

    def append(self, line: Mapping[str, Any]) -> None:
        """Write one line and sync it."""
        with self.path.open("ab", buffering=0) as file:
            file.write(dumps(line).encode() + b"\n")
            os.fsync(file.fileno())


def begin(path: Path, about: Bisected) -> tuple[TrialLog, Path | None]:
    """A new log at `path`, and where the one that was there is now: beside it, with the next free number."""
    moved = _free_name(path) if path.exists() else None
    if moved is not None:
        path.rename(moved)
    path.parent.mkdir(parents=True, exist_ok=True)
    log = TrialLog(path)
    log.append({"log": "bisect", "schema": SCHEMA, **dataclasses.asdict(about)})
    return log, moved


def resume(path: Path, about: Bisected) -> tuple[TrialLog, bool]:
    """The log at `path` with its answers, and whether its last line was torn (it is cut off).

    Raises TrialLogError for a file that is missing, no log, or the log of another capture.
    """
    try:
        text = path.read_bytes()
    except FileNotFoundError as error:
        raise TrialLogError(f"{path}: no such file; leave --resume out to begin") from error
    whole = text[: text.rfind(b"\n") + 1]
    try:
        head, *lines = [json.loads(line) for line in whole.splitlines()]
        found = Bisected(**{field.name: head[field.name] for field in dataclasses.fields(Bisected)})
        answers = {line["key"]: line["answer"] for line in lines}
    except (ValueError, KeyError, TypeError) as error:
        raise TrialLogError(f"{path}: no log of a bisection, or damaged: {error!r}; begin without --resume") from error
    if found != about:
        raise TrialLogError(
            f"{path}: the log of another capture, {_name(found)}; this one is {_name(about)}. Begin without --resume, "
            "or name the log of this capture with --log"
        )
    torn = len(whole) < len(text)
    if torn:
        os.truncate(path, len(whole))
    return TrialLog(path, answers), torn


def _free_name(path: Path) -> Path:
    names = (path.with_name(f"{path.stem}-{number}{path.suffix}") for number in itertools.count(1))
    return next(name for name in names if not name.exists())


def _name(about: Bisected) -> str:
    return f"step {about.step} of {about.subject} (fingerprint {about.fingerprint[:12]})"
