"""For each check a planted fault that it must find, and a healthy twin on which it must be silent.

One module a category holds `CASES: dict[check id, Case]`; `test_every_check.py` runs them and misses none.
"""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from collections.abc import Callable
from pathlib import Path

from brainbrr_debug.checks.given import Given, Need


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """Each makes what it needs below an empty folder and gives it to the checks.

    `look`: which look of a check with several (the need that tells it apart); `finds`: how many findings at least.
    """

    planted: Callable[[Path], Given]
    healthy: Callable[[Path], Given]
    look: Need | None = None
    finds: int = 1


def all_cases() -> list[tuple[str, Case]]:
    """Of every module here."""
    found = []
    for module in pkgutil.iter_modules(__path__):
        cases = importlib.import_module(f"{__name__}.{module.name}").CASES
        found += [(check, case) for check, some in cases.items() for case in _each(some)]
    return found


def _each(cases: Case | tuple[Case, ...]) -> tuple[Case, ...]:
    return cases if isinstance(cases, tuple) else (cases,)
