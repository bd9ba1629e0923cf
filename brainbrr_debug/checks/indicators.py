"""Leading indicators: what is about to go wrong, from the readings of the steps so far. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from brainbrr_debug.checks.constant import Constancy
from brainbrr_debug.checks.growth import ClosingGap, Growth, Spikes
from brainbrr_debug.checks.masking import Masking
from brainbrr_debug.checks.steps import Step, by_step
from brainbrr_debug.checks.updates import LearningRate, Updates
from brainbrr_debug.records import Finding, Reading


class Indicators:
    """Remembers what its checks need of the steps before; `see` takes the healthy steps of a run in their order.

    `eigengap` is the relative gap at or below which a differentiated decomposition is a finding of its own.
    """

    def __init__(self, eigengap: float = 1e-6) -> None:
        self._checks = (
            Growth(),
            ClosingGap(eigengap),
            Spikes(),
            Masking(),
            Constancy(),
            LearningRate(),
            Updates(),
        )

    def see(self, readings: Sequence[Reading]) -> list[Finding]:
        """The findings that the readings of one step, with those before it, give rise to."""
        if not readings:
            return []
        step = Step(readings)
        return [finding for check in self._checks for finding in check.see(step)]


def indications(readings: Iterable[Reading], eigengap: float = 1e-6) -> Iterator[Finding]:
    """All that Indicators find in the readings of a whole run."""
    indicators = Indicators(eigengap)
    for step in by_step(readings):
        yield from indicators.see(step)
