"""Sanitisers that act while the loss looks fine. Imports no torch."""

from __future__ import annotations

import collections
from collections.abc import Iterator

from brainbrr_debug.checks.steps import Step
from brainbrr_debug.quantities import CLAMPED, LOSS, SANITISED, SANITISED_DATA
from brainbrr_debug.records import Finding, Reading, Severity

MASKED_FAILURE = "run.masked_failure"

SATURATED = 0.5
"""A clamp that alters this share of its values in two sampled steps in a row is saturated."""


class Masking:
    """Finds non-finite values that were replaced, and clamps that hold most of their values at a bound."""

    def __init__(self) -> None:
        self._saturated: dict[str, float] = {}

    def see(self, step: Step) -> Iterator[Finding]:
        """The findings of one step."""
        for reading in step.readings(SANITISED, SANITISED_DATA):
            yield _replaced(reading, step)
        before, now = self._saturated, collections.defaultdict[str, float](float)
        for reading in step.readings(CLAMPED):
            now[reading.site] = max(now[reading.site], reading.value)
        for site, share in now.items():
            if min(share, before.get(site, 0.0)) >= SATURATED:
                yield _held(site, share, step)
        if step.sampled:
            self._saturated = dict(now)


def _loss(step: Step) -> str:
    losses = step.values(LOSS)
    return f"; the loss is {sum(losses) / len(losses):.4g}" if losses else ""


def _replaced(reading: Reading, step: Step) -> Finding:
    data = reading.quantity == SANITISED_DATA
    place = reading.site or "the root module"
    what = "values that carry no gradient" if data else "values"
    return Finding(
        check=MASKED_FAILURE,
        severity=Severity.P2 if data else Severity.P0,
        message=(
            f"step {step.number}: a nan_to_num or clamp in {place} made {reading.value:.0f} non-finite {what} finite"
            + _loss(step)
        ),
        where=reading.site,
        step=step.number,
        evidence={"replaced": reading.value, "losses": list(step.values(LOSS))},
        why="what should have stopped the run goes on as numbers that mean nothing, and the loss does not show it",
        remedy=(
            "find out why the data hold such values, and drop those samples"
            if data
            else "take the sanitiser away, and repair what bears the values"
        ),
    )


def _held(site: str, share: float, step: Step) -> Finding:
    return Finding(
        check=MASKED_FAILURE,
        severity=Severity.P1,
        message=(
            f"step {step.number}: a clamp in {site or 'the root module'} holds {share:.0%} of its values at a bound, "
            "as in the sampled step before" + _loss(step)
        ),
        where=site,
        step=step.number,
        evidence={"share": share, "losses": list(step.values(LOSS))},
        why="no gradient passes a clamp where it acts: what is before it learns nothing any more",
        remedy="find what drives the values against the bound; a smooth bound (tanh) keeps a gradient",
    )
