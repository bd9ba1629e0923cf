"""Leading indicators: what is about to go wrong, from the readings of the steps so far. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence

from brainbrr_debug.records import Finding, Reading


class Indicators:
    """Remembers what its checks need of the steps before; `see` takes the healthy steps of a run in their order."""

    def see(self, readings: Sequence[Reading]) -> list[Finding]:
        """The findings that the readings of one step, with those before it, give rise to."""
        return []
