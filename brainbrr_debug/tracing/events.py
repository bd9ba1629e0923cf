"""What a traced step yields: events (births of non-finite values), records of operations, and what to patch."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Sequence
from typing import Any

import torch

from brainbrr_debug.records import Phase
from brainbrr_debug.tracing.finiteness import Filling

Key = tuple[Hashable, ...]
Site = tuple[Phase, str | None, str, str | None, str | None]


@dataclasses.dataclass(slots=True, kw_only=True)
class Record:
    """One dispatched operation: its `index` among those of the step, and where it was called.

    `recomputed` says that this was in a forward pass run once more, within the backward pass.
    """

    index: int
    op: str
    module: str
    location: str | None
    mutates: bool = False
    recomputed: bool = False
    lineage: frozenset[int] = frozenset()  # events behind non-finite inputs and outputs of the operation


@dataclasses.dataclass(slots=True, kw_only=True)
class Event:
    """A birth: an operation, node or arrival whose elements became non-finite without a cause of the same kind.

    `key` is the same in every replay of the step; `position` counts operations, so that events of two replays can be
    ordered. `op_index` is the forward operation it belongs to (None for arrivals). `deliberate` marks constants that
    somebody wrote there on purpose (a mask of −inf); `arrival` is the tensor if it was bad before the step,
    `shared` until it is known whether it was read as input or as target, if it is both.
    """

    key: Key
    number: int
    position: int
    phase: Phase
    op: str
    module: str | None = None
    location: str | None = None
    node: str | None = None
    found: int = 0
    op_index: int | None = None
    deliberate: bool = False
    arrival: torch.Tensor | None = None
    shared: bool = False
    count: int = 0
    lineage: frozenset[int] = frozenset()
    patched: bool = False

    @property
    def site(self) -> Site:
        """What a person would call the same place: repeated calls of one line are one site."""
        if self.arrival is not None:
            return ("data", "", "data", None, str(self.key))
        return (self.phase, self.module, self.op, self.node, self.location)


def attention_to(events: Sequence[Event]) -> dict[str, Any]:
    """What an Intervention has to look at in order to meet the `events` again."""
    born = [event for event in events if event.arrival is None]
    return {
        "names": frozenset(str(event.key[2]) for event in born),
        "between_nodes": any(event.phase == "backward" and event.key[0] == "op" for event in born),
    }


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Intervention:
    """Which births a replay makes finite.

    Those with a key in `keys`, those at a site in `sites`, and all up to position `until` (None: none) that are not in
    `spared`, deliberate ones among them only if `deliberate`. Where `names` is given, only operations and nodes of
    these names need be looked at, and operations between backward nodes only if `between_nodes`: everything else runs
    at full speed.
    """

    keys: frozenset[Key] = frozenset()
    sites: frozenset[Site] = frozenset()
    until: float | None = None
    spared: frozenset[Key] = frozenset()
    deliberate: bool = False
    filling: Filling = "varied"
    names: frozenset[str] | None = None
    between_nodes: bool = True

    def looks_at(self, name: str, position: int) -> bool:
        """Whether an operation or node of this name can have a birth that matters."""
        if self.names is not None:
            return name in self.names
        return self.until is None or position <= self.until

    def patches(self, event: Event) -> bool:
        """Whether `event` is to be made finite."""
        if event.key in self.keys or event.site in self.sites:
            return True
        if self.until is None or event.position > self.until or event.key in self.spared:
            return False
        return self.deliberate or not event.deliberate
