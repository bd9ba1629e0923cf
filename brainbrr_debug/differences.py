"""How two environments differ, as `environment` describes them. Imports no torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

EXACT = ("torch", "threads", "cpu_capability", "device", "precision")
"""Keys that must agree before a replay may be expected to reproduce the same bits."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One key in which two environments differ; `exact` says whether it forbids expecting the same bits."""

    key: str
    captured: Any
    here: Any
    exact: bool

    def __str__(self) -> str:
        return f"{self.key} was {_told(self.captured)}, here {_told(self.here)}"


def differences(captured: Mapping[str, Any], here: Mapping[str, Any]) -> tuple[Difference, ...]:
    """In what `here` differs from `captured`, keys that decide over bits first; the command line is left out.

    Of tables only the entries that differ, as "packages.numpy".
    """
    keys = [key for key in dict.fromkeys((*EXACT, *captured)) if key in here and key != "command"]
    return tuple(found for key in keys for found in _apart(key, captured.get(key), here[key], key in EXACT))


def _apart(key: str, captured: Any, here: Any, exact: bool) -> Iterator[Difference]:
    if isinstance(captured, Mapping) and isinstance(here, Mapping):
        for name in dict.fromkeys((*captured, *here)):
            yield from _apart(f"{key}.{name}", captured.get(name), here.get(name), exact)
    elif captured != here:
        yield Difference(key=key, captured=captured, here=here, exact=exact)


def _told(value: Any) -> str:
    return "not there" if value is None else str(value)
