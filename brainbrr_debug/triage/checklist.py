"""A checklist: which checks, how severe, with which thresholds; data that a laboratory writes without touching code.

    checks:
      config.warmup: {severity: P2, max_epochs: 3}
      env.known_bad:

Thresholds that a checklist leaves out are those of the shipped one, `triage/default.yaml`. Imports no torch.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from brainbrr_debug.errors import UsageError
from brainbrr_debug.records import Severity
from brainbrr_debug.triage.shipped import shipped
from brainbrr_debug.yamlfile import read_yaml

_SEVERITIES = {severity.name: severity for severity in Severity}


class ChecklistError(UsageError):
    """A checklist that cannot be used: where, what was found, what was expected."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Checklist:
    """`checks` in their order, each with the severity to report instead of its own; `settings`: thresholds by check."""

    checks: Mapping[str, Severity | None]
    settings: Mapping[str, Mapping[str, Any]]


@functools.cache
def default_checklist() -> Checklist:
    """The shipped one: every check, with its own severity."""
    path = shipped("default.yaml")
    entries = {name: dict(entry or {}) for name, entry in _entries(path).items()}
    return Checklist(checks=dict.fromkeys(entries), settings=entries)


def read_checklist(path: Path) -> Checklist:
    """A laboratory's own. Raises ChecklistError for an unknown check or key, naming the nearest known one."""
    known = default_checklist().settings
    checks: dict[str, Severity | None] = {}
    settings = dict(known)
    for name, entry in _entries(path).items():
        if name not in known:
            raise ChecklistError(f"{path}: unknown check {name}{nearest(name, known)}")
        values = {} if entry is None else entry
        if not isinstance(values, dict):
            raise ChecklistError(f"{path}: {name} is {values!r:.60}; expected a mapping such as {{severity: P2}}")
        values = dict(values)
        checks[name] = _severity(path, name, values.pop("severity", None))
        settings[name] = {**known[name], **_thresholds(path, name, values, known[name])}
    return Checklist(checks=checks, settings=settings)


def nearest(name: object, known: Iterable[str]) -> str:
    """A hint at the nearest of the known names, or at all of them where they are few."""
    names = sorted(known)
    match = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    if match:
        return f"; did you mean {match[0]}?"
    return f"; expected one of {', '.join(names)}" if 0 < len(names) <= 12 else ""


def _entries(path: Path) -> dict[str, Any]:
    try:
        file = read_yaml(path)
    except OSError as error:
        raise ChecklistError(f"{path}: {error.strerror}; expected a checklist such as triage/default.yaml") from error
    if file.error is not None:
        raise ChecklistError(f"{path}: not YAML: {file.error}")
    document = file.values
    entries = document.get("checks") if isinstance(document, dict) else None
    if not isinstance(document, dict) or set(document) != {"checks"} or not isinstance(entries, dict):
        raise ChecklistError(f"{path}: expected one key, checks, with a mapping of check ids under it")
    return entries


def _severity(path: Path, name: str, value: object) -> Severity | None:
    if value is None:
        return None
    if value not in _SEVERITIES:
        raise ChecklistError(f"{path}: severity of {name} is {value!r:.60}; expected one of {', '.join(_SEVERITIES)}")
    return _SEVERITIES[str(value)]


def _thresholds(path: Path, name: str, values: Mapping[str, Any], known: Mapping[str, Any]) -> Mapping[str, Any]:
    for key, value in values.items():
        if key not in known:
            raise ChecklistError(f"{path}: {name} knows no {key}{nearest(key, ['severity', *known])}")
        if _kind(value) is not _kind(known[key]):
            raise ChecklistError(
                f"{path}: {name}.{key} is {value!r:.60}; expected a value of the kind of {known[key]!r:.60}"
            )
    return values


def _kind(value: object) -> type:
    return float if type(value) is int else type(value)
