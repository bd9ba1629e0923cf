"""Why an operation gave something non-finite, in words a person can act on."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from brainbrr_debug.tracing.events import Event


@dataclasses.dataclass(frozen=True, kw_only=True)
class Explanation:
    """A mechanism's identifier and the sentence with the numbers seen."""

    mechanism: str
    sentence: str


def explain(event: Event, evidence: Sequence[Any]) -> Explanation:
    """The mechanism behind `event`."""
    if event.op == "aten::_linalg_eigh" and event.phase == "backward":
        return Explanation(mechanism="repeated-eigenvalue", sentence="two eigenvalues coincide")
    return Explanation(mechanism="overflow", sentence="?")
