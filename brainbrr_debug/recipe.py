"""A training as it is named on a command line: a configuration with what is set in it, a Subject, or a capture's."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import importlib
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from brainbrr_debug.capture import CaptureContent
from brainbrr_debug.errors import CannotRunHere, UsageError
from brainbrr_debug.questions.components import captured_value
from brainbrr_debug.subject import Run, Subject, load_subject
from brainbrr_debug.trial import one_line
from brainbrr_debug.yamlfile import read_yaml

CONFIG_SUBJECT = "brainbrr_debug.subjects.brainbrr:DetectorSubject"

BREAKDOWNS = (RuntimeError, TypeError, AttributeError, LookupError, ArithmeticError, ValueError, OSError)
"""What a subject may raise that breaks down."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What is trained, and which `changes` were made to it; `config` holds everything, as plain values.

    Changes of a configuration are in the `subject` already, and `file` is where it begins; any other subject is
    switched by them when it is built.
    """

    subject: Subject
    name: str
    seed: int
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    file: Path | None = None

    def build(self) -> Run:
        """A fresh run."""
        return self.subject.build(self.seed, {} if self.file is not None else dict(self.changes))

    def without(self, change: str) -> Recipe:
        """The same with all changes but one."""
        kept = {name: value for name, value in self.changes.items() if name != change}
        if self.file is None:
            return dataclasses.replace(self, changes=kept)
        values = changed(read_config(self.file), kept)
        return dataclasses.replace(self, changes=kept, config=values, subject=config_subject(values, self.file))

    @property
    def repeated_as(self) -> str:
        """The name by which a capture of this training finds its subject; "" where that would lack the changes."""
        return self.name if self.config or not self.changes else ""


def of_config(path: Path, sets: Sequence[str], switches: Sequence[str], seed: int | None) -> Recipe:
    """The detector's training that a configuration file describes. Raises UsageError, CannotRunHere without it."""
    changes = assignments("--set", sets)
    values = changed(read_config(path), changes)
    changes |= turned(config_subject(values, path), switches)
    values = changed(values, changes)
    chosen = captured_value(values, "experiment.seed", 0) if seed is None else seed
    return Recipe(
        subject=config_subject(values, path),
        name=CONFIG_SUBJECT,
        seed=int(chosen),
        changes=changes,
        config=values,
        file=path,
    )


def of_subject(name: str, switches: Sequence[str], seed: int | None) -> Recipe:
    """The training of `package.module:attribute`. Raises SubjectError, UsageError."""
    subject = load_subject(name)
    changes = turned(subject, switches)
    return Recipe(subject=subject, name=name, seed=seed or 0, changes=changes)


def of_capture(content: CaptureContent, subject: Subject, changes: Mapping[str, Any]) -> Recipe:
    """The training that a capture comes from, from its seed, with `changes`."""
    return Recipe(
        subject=subject,
        name=content.subject,
        seed=content.seed,
        changes=dict(changes),
        config=changed(content.config, changes) if content.config else {},
    )


def read_config(path: Path) -> dict[str, Any]:
    """The plain values of a configuration file. Raises UsageError."""
    file = read_yaml(path)
    if file.error is not None:
        raise UsageError(f"{path}: cannot be read as YAML: {file.error}")
    if not isinstance(file.values, dict):
        raise UsageError(f"{path}: holds a {type(file.values).__name__}; expected a mapping of sections")
    return file.values


def config_subject(values: Mapping[str, Any], path: Path) -> Subject:
    """The detector that plain values describe. Raises CannotRunHere where it is not installed."""
    module, _, attribute = CONFIG_SUBJECT.partition(":")
    try:
        subject: Subject = getattr(importlib.import_module(module), attribute).from_config(values)
    except ImportError as error:
        raise CannotRunHere(f"{path}: the detector is not installed ({error}); pip install 'brainbrr[eeg]'") from error
    return subject


def assignments(option: str, given: Sequence[str]) -> dict[str, Any]:
    """ "a.b=c" as a mapping, the values read as YAML. Raises UsageError."""
    found = {}
    for assignment in given:
        key, equals, value = assignment.partition("=")
        if not equals:
            raise UsageError(f"{option} {assignment}: expected NAME=VALUE")
        try:
            found[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise UsageError(f"{option} {assignment}: the value is not YAML") from error
    return found


def changed(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Nested plain values with dotted keys set. Raises UsageError where a section is a value."""
    result = copy.deepcopy(dict(values))
    for key, value in changes.items():
        *sections, last = key.split(".")
        inner = result
        for section in sections:
            inner = inner.setdefault(section, {})
            if not isinstance(inner, dict):
                raise UsageError(f"{key}: {section} is a value and no section")
        inner[last] = value
    return result


@contextlib.contextmanager
def breakdowns(name: str) -> Iterator[None]:
    """Around a subject's work: what it raises for other reasons than numbers is that it cannot run here."""
    try:
        yield
    except BREAKDOWNS as error:
        if type(error).__module__.startswith("brainbrr"):
            raise  # says for itself what is wrong
        frame = traceback.extract_tb(error.__traceback__)[-1]
        raise CannotRunHere(
            f"{name} breaks down, and not over a number: {one_line(error)} ({frame.filename}:{frame.lineno})"
        ) from error


def turned(subject: Subject, switches: Sequence[str]) -> dict[str, Any]:
    """ "name=value" for switches of the subject. Raises UsageError for one that it does not have."""
    changes, known = assignments("--switch", switches), subject.switches()
    for name in changes:
        if name not in known:
            raise UsageError(f"--switch {name}: the subject has no such switch; it has {', '.join(known) or 'none'}")
    return changes
