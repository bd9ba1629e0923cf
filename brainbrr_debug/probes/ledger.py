"""Numbers that wait on the device until the end of a step, and are read in one go."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor

from brainbrr_debug.records import Reading

Build = Callable[[Sequence[float]], Iterable[Reading]]
Alarm = Callable[[Tensor], Tensor]
"""Whether a value is too bad to go on with: 0-d bool."""
Guard = Callable[[Callable[..., None]], Callable[..., None]]
"""Makes a hook that cannot break the program it looks at: what goes wrong in it becomes a finding."""


class Ledger:
    """Probes `defer` 0-d tensors; `read` fetches all of them with one synchronisation a device and makes Readings."""

    def __init__(self) -> None:
        self._entries: list[tuple[tuple[Tensor, ...], Build]] = []
        self._alarms: list[tuple[Tensor, Alarm]] = []

    def __len__(self) -> int:
        return len(self._entries)

    def defer(self, values: Sequence[Tensor], build: Build, *, alarm: Alarm | None = None) -> None:
        """Hold real 0-d `values`; `build` gets them as floats and returns their Readings.

        A step in which `alarm` is true of one of them must not update anything.
        """
        self._entries.append((tuple(values), build))
        if alarm is not None:
            self._alarms += [(value, alarm) for value in values]

    def alarm(self) -> Tensor:
        """1 where a value that waits rings its alarm, else 0: 0-d float32, on its device. Nothing is read."""
        with torch.no_grad():
            ringing = [rings(value) for value, rings in self._alarms]
            return torch.stack([each.to(ringing[0].device) for each in ringing]).any().float()

    def read(self) -> list[Reading]:
        """All Readings in the order of the entries, numbered in `order`; the ledger is empty afterwards."""
        entries, self._entries, self._alarms = self._entries, [], []
        numbers = _fetch([value for values, _ in entries for value in values])
        readings: list[Reading] = []
        for values, build in entries:
            for reading in build([next(numbers) for _ in values]):
                readings.append(dataclasses.replace(reading, order=len(readings)))
        return readings

    def clear(self) -> None:
        """Forget everything unread."""
        self._entries, self._alarms = [], []


def nonfinite(x: Tensor) -> Tensor:
    """The alarm of what has to be finite."""
    return ~torch.isfinite(x)


def objections(readings: Iterable[Reading]) -> list[Reading]:
    """Those whose value is not finite: what a probe of many sums has to say, so that healthy steps stay short."""
    return [reading for reading in readings if not math.isfinite(reading.value)]


def _fetch(tensors: Sequence[Tensor]) -> Iterator[float]:
    """The values as Python floats. CPU tensors cost nothing to read; all those of another device go in one copy."""
    found: dict[int, float] = {}
    waiting: dict[torch.device, list[int]] = {}
    for index, x in enumerate(tensors):
        if x.device.type == "cpu":
            found[index] = float(x)
        else:
            waiting.setdefault(x.device, []).append(index)
    for indices in waiting.values():
        found.update(zip(indices, in_one_copy([tensors[i] for i in indices]), strict=True))
    return iter([found[index] for index in range(len(tensors))])


def in_one_copy(tensors: Sequence[Tensor]) -> list[float]:
    """The values of 0-d tensors of one device, with a few kernels for each dtype and one copy from the device."""
    wide = torch.float32 if tensors[0].device.type == "mps" else torch.float64
    kinds: dict[torch.dtype, list[int]] = {}
    for index, x in enumerate(tensors):
        kinds.setdefault(x.dtype, []).append(index)
    stacks = [torch.stack([tensors[i].detach() for i in indices]).to(wide) for indices in kinds.values()]
    values: list[float] = torch.cat(stacks).tolist()
    places = [i for indices in kinds.values() for i in indices]
    return [value for _, value in sorted(zip(places, values, strict=True), key=lambda pair: pair[0])]
