"""Which of the suspects is the cause: the one whose removal heals the step.

Suspects are tried in the order in which they happened, those that the harm descends from first, deliberate constants
last. Many of them are narrowed down by bisection over time. Where no single one heals, all together are made finite,
and whatever is not needed for that is dropped, latest first: of what remains the first is the origin.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Literal

from brainbrr_debug.tracing.events import Event, Intervention, Key, Site, attention_to
from brainbrr_debug.tracing.finiteness import Filling
from brainbrr_debug.tracing.reenactment import Reenactment, Replay

_FILLINGS: tuple[Filling, ...] = ("varied", "zero")
_FEW = 6  # suspects up to which trying one after the other is cheaper than bisecting
_MOST_SITES = 48  # sites beyond which a joint patch is not minimised


@dataclasses.dataclass(frozen=True, kw_only=True)
class Conviction:
    """The origin among the events, how it was proved, and whom the replays acquitted."""

    event: Event
    proof: Literal["healed", "first event"]
    together: tuple[Event, ...] = ()
    acquitted: tuple[Event, ...] = ()


class Court:
    """Tries the suspects of one failing step; gives up proving at the `deadline` (time.monotonic)."""

    def __init__(self, reenactment: Reenactment, baseline: Replay, *, deadline: float) -> None:
        self._reenactment = reenactment
        self._baseline = baseline
        self._deadline = deadline
        self._acquitted: dict[Key, Event] = {}
        self._groups = _ranked(baseline)

    def convict(self) -> Conviction | None:
        """The origin, or None when nothing in the step ever became non-finite."""
        everyone = [event for group in self._groups for event in group]
        if not everyone:
            return None
        considered: list[Event] = []
        for group in self._groups:
            if not group:
                continue
            considered.extend(group)
            for filling in _FILLINGS:
                found = self._alone(group, filling) or self._together(considered, filling)
                if found is not None:
                    return found
            if self._late():
                break
        return Conviction(event=everyone[0], proof="first event")

    def _acquitted_before(self, culprit: Event, together: Sequence[Event] = ()) -> tuple[Event, ...]:
        """Those who came before the culprit and whose removal did not heal."""
        guilty = {event.site for event in (culprit, *together)}
        earlier = (event for event in self._acquitted.values() if event.position < culprit.position)
        return tuple(event for event in earlier if event.site not in guilty)

    def _late(self) -> bool:
        return time.monotonic() > self._deadline

    def _heals(self, intervention: Intervention) -> bool:
        return self._reenactment.replay(intervention).healthy

    def _alone(self, group: Sequence[Event], filling: Filling) -> Conviction | None:
        if len(group) > _FEW:
            first = self._bisect(group, filling)
            group = [] if first is None else [group[first]]
        for event in group:
            if self._late():
                return None
            alone = Intervention(keys=frozenset({event.key}), filling=filling, **attention_to([event]))
            if self._heals(alone):
                return Conviction(event=event, proof="healed", acquitted=self._acquitted_before(event))
            self._acquitted.setdefault(event.key, event)
        return None

    def _bisect(self, group: Sequence[Event], filling: Filling) -> int | None:
        """Smallest n such that making the events 0…n of `group`, and what is born in between, finite heals."""
        low, high = 0, len(group) - 1
        if not self._heals(self._up_to(group, high, filling)):
            return None
        while low < high and not self._late():
            middle = (low + high) // 2
            if self._heals(self._up_to(group, middle, filling)):
                high = middle
            else:
                low = middle + 1
        return high

    def _up_to(self, group: Sequence[Event], last: int, filling: Filling) -> Intervention:
        wanted = frozenset(event.key for event in group[: last + 1])
        others = frozenset(event.key for event in self._baseline.events) - wanted
        return Intervention(keys=wanted, until=group[last].position, spared=others, filling=filling)

    def _together(self, considered: Sequence[Event], filling: Filling) -> Conviction | None:
        """Everyone considered so far, and every birth that then comes to light, made finite at once."""
        wanted = frozenset(event.key for event in considered)
        others = frozenset(event.key for event in self._baseline.events) - wanted
        attempt = Intervention(keys=wanted, until=float("inf"), spared=others, filling=filling)
        replay = self._reenactment.replay(attempt)
        if not replay.healthy:
            return None
        patched = [event for event in replay.events if event.patched]
        sites = self._needed_sites(patched, filling)
        together = tuple(event for event in patched if event.site in sites)
        if not together:
            return None
        known = {event.key: event for event in self._baseline.events}
        first = known.get(together[0].key, together[0])  # unpatched, it shows what it does
        acquitted = self._acquitted_before(first, together)
        return Conviction(event=first, proof="healed", together=together[1:], acquitted=acquitted)

    def _needed_sites(self, patched: Sequence[Event], filling: Filling) -> frozenset[Site]:
        sites = list(dict.fromkeys(event.site for event in patched))
        if len(sites) > _MOST_SITES:
            return frozenset(sites)
        kept = frozenset(sites)
        attention = attention_to(patched)
        for site in reversed(sites):
            if self._late():
                break
            without = kept - {site}
            if without and self._heals(Intervention(sites=without, filling=filling, **attention)):
                kept = without
        return kept


def suspect_first(baseline: Replay) -> Conviction | None:
    """Without replays: the first suspect in the order in which they would have been tried."""
    everyone = [event for group in _ranked(baseline) for event in group]
    return Conviction(event=everyone[0], proof="first event") if everyone else None


def _ranked(baseline: Replay) -> list[list[Event]]:
    """Four groups: behind the harm or not × by accident or deliberate; each in the order of the step."""
    groups: list[list[Event]] = [[], [], [], []]
    for event in baseline.events:
        behind = event.number in baseline.lineage
        groups[(0 if behind else 2) + (1 if event.deliberate else 0)].append(event)
    return groups
