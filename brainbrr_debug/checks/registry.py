"""The checks of triage by id: every module below this package registers its own. Imports no torch.

    @check("config.unread", Severity.P2, needs="config", summary="a key that no code reads")
    def unread(given: Given) -> Iterable[Finding]: ...

A check imports what is heavy inside its function. One id may look at several things (`config.unread` at a
configuration, at sources and at a smoke run): it is registered once for each need, with the same severity and summary.
A look that advises never fails a CI: it is too often wrong for that.
"""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from collections.abc import Callable, Iterable
from typing import TypeVar

from brainbrr_debug.checks.given import Given, Need, NotApplicable
from brainbrr_debug.records import Finding, Severity

__all__ = ["CHECKS", "Check", "Given", "Look", "NotApplicable", "check", "load"]

Function = TypeVar("Function", bound=Callable[[Given], Iterable[Finding]])


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One function of a check, what it needs to be given, and whether it only advises."""

    needs: tuple[Need, ...]
    function: Callable[[Given], Iterable[Finding]]
    advises: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What can be found, how bad it is at most, and where to look."""

    id: str
    severity: Severity
    summary: str
    looks: tuple[Look, ...]

    @property
    def category(self) -> str:
        """The part of the id before the dot."""
        return self.id.partition(".")[0]

    @property
    def advises(self) -> bool:
        """Whether nothing that it finds fails a CI."""
        return all(look.advises for look in self.looks)


CHECKS: dict[str, Check] = {}


def check(
    id: str, severity: Severity, *, needs: Need | tuple[Need, ...], summary: str, advises: bool = False
) -> Callable[[Function], Function]:
    """Register a function as a check, or as one more look of one; findings of another id than `id` are refused."""

    def register(function: Function) -> Function:
        look = Look(needs=needs if isinstance(needs, tuple) else (needs,), function=function, advises=advises)
        known = CHECKS.get(id)
        looks = (look,) if known is None else (*known.looks, look)
        CHECKS[id] = Check(id=id, severity=severity, summary=summary, looks=looks)
        if known is not None and dataclasses.replace(known, looks=looks) != CHECKS[id]:
            raise ValueError(f"{id} is registered twice, with another severity or summary")
        return function

    return register


def load() -> dict[str, Check]:
    """Every check there is, by id."""
    import brainbrr_debug.checks as package

    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)
    return dict(sorted(CHECKS.items()))
