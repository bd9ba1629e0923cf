"""Inverses and solutions of systems that are singular to the precision they are computed in. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable

from brainbrr_debug.quantities import CONDITION
from brainbrr_debug.records import Finding, Reading, Severity

NEAR_SINGULAR = "run.condition"


def near_singular(readings: Iterable[Reading]) -> list[Finding]:
    """A P1 finding for each reading of a condition number that leaves the precision no digit.

    What is not a number is left to the other checks.
    """
    return [
        Finding(
            check=NEAR_SINGULAR,
            severity=Severity.P1,
            message=(
                f"step {r.step}: a matrix inverted or solved with in {r.site or 'the root module'}"
                + (f", sample {r.sample}," if r.sample is not None else "")
                + f" is singular to its precision: its condition number is at least {r.value:.3g}/eps"
            ),
            where=r.site,
            step=r.step,
            evidence={"condition_times_eps": r.value, "sample": r.sample},
            why="every factor of ten in the condition number costs a digit of the solution and of its gradient",
            remedy="add to the diagonal, solve a least-squares problem, or compute this operation in float64",
        )
        for r in readings
        if r.quantity == CONDITION and r.value >= 1
    ]
