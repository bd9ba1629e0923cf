"""The readings of one step, by quantity. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from brainbrr_debug.quantities import ABSMAX
from brainbrr_debug.records import Reading


class Step:
    """Readings of one step in their order; at least one."""

    def __init__(self, readings: Sequence[Reading]) -> None:
        self.number = readings[0].step
        self._readings = readings
        self._values: dict[str, list[float]] = {}
        for reading in readings:
            self._values.setdefault(reading.quantity, []).append(reading.value)

    def has(self, quantity: str) -> bool:
        """Whether there is a reading of `quantity`."""
        return quantity in self._values

    @property
    def sampled(self) -> bool:
        """Whether the watch looked at every module in this step."""
        return self.has(ABSMAX)

    def values(self, quantity: str) -> Sequence[float]:
        """The values of all readings of `quantity`."""
        return self._values.get(quantity, ())

    def readings(self, *quantities: str) -> Iterator[Reading]:
        """The readings of `quantities` in their order."""
        if any(quantity in self._values for quantity in quantities):
            yield from (reading for reading in self._readings if reading.quantity in quantities)


def by_step(readings: Iterable[Reading]) -> Iterator[list[Reading]]:
    """The readings of each step; those of a step stand together."""
    current: list[Reading] = []
    for reading in readings:
        if current and reading.step != current[0].step:
            yield current
            current = []
        current.append(reading)
    if current:
        yield current
