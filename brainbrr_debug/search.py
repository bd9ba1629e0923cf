"""Delta debugging: the smallest part that still fails, in few trials. Imports no torch.

An oracle answers `True` (fails), `False` (healthy) or `None` (cannot tell). It is *monotone* when everything that
contains a failing set fails. Then the answer is 1-minimal: it fails, and with any one item taken away it does not.
Real oracles may break that promise, because rounding or an unseeded generator decides; the search ends all the same,
within its bound, and says so.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item", bound=Hashable)
Ask = Callable[[tuple[Item, ...]], "bool | None"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Search(Generic[Item]):
    """What a search found.

    `minimal` is the smallest failing set in the order of the items, None when the whole does not fail or cannot be
    judged. `complete` is False when the trials ran out first. `inconsistent` says how the oracle contradicted itself;
    None when it did not.
    """

    minimal: tuple[Item, ...] | None
    trials: int
    complete: bool
    inconsistent: str | None = None


def bound(n: int) -> int:
    """The most trials that `ddmin` spends on n items: n² + 3n + 2 (Zeller and Hildebrandt 2002, and one repeat)."""
    return n * n + 3 * n + 2


def ddmin(items: Sequence[Item], fails: Ask[Item], *, max_trials: int | None = None) -> Search[Item]:
    """The smallest set of `items` for which `fails` is True, by Zeller's ddmin.

    No set is asked about twice, except the answer itself, once more at the end: an oracle that changes its mind is
    inconsistent. At most `max_trials` questions, and never more than `bound(len(items))`.
    Raises ValueError when an item occurs twice.
    """
    if len(set(items)) != len(items):
        raise ValueError(f"{len(items) - len(set(items))} of {len(items)} items occur twice; every item needs a name")
    memory = _Memory(items, fails, limit=bound(len(items)) if max_trials is None else max_trials)
    try:
        whole = memory.ask(items)
        if not whole:
            return Search(minimal=None, trials=memory.trials, complete=True)
        minimal = () if memory.ask(()) else _reduce(tuple(items), memory)
        memory.confirm(minimal)
    except _Spent:
        return Search(
            minimal=memory.smallest, trials=memory.trials, complete=False, inconsistent=memory.contradiction()
        )
    return Search(minimal=minimal, trials=memory.trials, complete=True, inconsistent=memory.contradiction())


def all_minimal(
    items: Sequence[Item], fails: Ask[Item], *, most: int = 4, max_trials: int | None = None
) -> tuple[Search[Item], ...]:
    """Disjoint culprits: finds one, sets it aside, looks again in the rest, until the rest is healthy.

    At most `most` searches, together at most `max_trials` questions.
    """
    found: list[Search[Item]] = []
    rest = tuple(items)
    left = bound(len(rest)) * most if max_trials is None else max_trials
    while len(found) < most and left > 0 and rest:
        search = ddmin(rest, fails, max_trials=min(left, bound(len(rest))))
        left -= search.trials
        found.append(search)
        if not search.minimal:
            break
        rest = tuple(item for item in rest if item not in search.minimal)
    return tuple(found)


def one_that_heals(items: Iterable[Item], fails: Ask[Item]) -> tuple[Item, ...]:
    """Every single item that heals when it alone is turned."""
    return tuple(item for item in items if fails((item,)) is False)


def fewest_that_heal(items: Sequence[Item], fails: Ask[Item], *, max_trials: int | None = None) -> Search[Item]:
    """The smallest set of items that heals when turned together; for when none does alone."""

    def heals(chosen: tuple[Item, ...]) -> bool | None:
        answer = fails(chosen)
        return None if answer is None else not answer

    return ddmin(items, heals, max_trials=max_trials)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """[start, stop) of a row of n items, the shortest that still fails, and the questions it took."""

    start: int
    stop: int
    trials: int


def shortest_interval(n: int, fails: Callable[[int, int], bool | None]) -> Interval | None:
    """Halve towards the latest start, then towards the earliest stop, of the interval of n items that still fails.

    `fails(start, stop)` is True when [start, stop) alone fails. None when the whole does not. For a monotone oracle the
    answer is minimal: it fails, and without its first or its last item it does not. At most 2 log2(n) + 3 questions.
    """
    trials = 0

    def ask(start: int, stop: int) -> bool:
        nonlocal trials
        trials += 1
        return fails(start, stop) is True

    if not ask(0, n):
        return None
    start, beyond = 0, n  # [start, n) fails, [beyond, n) does not
    while beyond - start > 1:
        middle = (start + beyond) // 2
        start, beyond = (middle, beyond) if ask(middle, n) else (start, middle)
    stop, short = n, start  # [start, stop) fails, [start, short) does not
    while stop - short > 1:
        middle = (stop + short) // 2
        stop, short = (middle, short) if ask(start, middle) else (stop, middle)
    return Interval(start=start, stop=stop, trials=trials)


class _Spent(Exception):
    """No trials left."""


class _Memory(Generic[Item]):
    """Asks each set once, counts, and notices contradictions."""

    def __init__(self, items: Sequence[Item], fails: Ask[Item], *, limit: int) -> None:
        self._order = {item: place for place, item in enumerate(items)}
        self._fails, self._limit = fails, limit
        self._answers: dict[frozenset[Item], bool | None] = {}
        self._changed_its_mind = False
        self.trials = 0
        self.smallest: tuple[Item, ...] | None = None

    def ask(self, items: Iterable[Item]) -> bool:
        """Whether the set fails; "cannot tell" counts as not failing."""
        key = frozenset(items)
        if key not in self._answers:
            self._answers[key] = self._call(key)
        return self._answers[key] is True

    def confirm(self, items: Iterable[Item]) -> None:
        """Ask once more about a set that failed."""
        if self._call(frozenset(items)) is False:
            self._changed_its_mind = True

    def _call(self, key: frozenset[Item]) -> bool | None:
        if self.trials >= self._limit:
            raise _Spent
        self.trials += 1
        ordered = tuple(sorted(key, key=self._order.__getitem__))
        answer = self._fails(ordered)
        if answer and (self.smallest is None or len(ordered) < len(self.smallest)):
            self.smallest = ordered
        return answer

    def contradiction(self) -> str | None:
        """How the answers contradict each other or the promise of monotony."""
        if self._changed_its_mind:
            return "the same set failed and then did not"
        bad = [key for key, answer in self._answers.items() if answer]
        good = [key for key, answer in self._answers.items() if answer is False]
        for part in bad:
            if any(part < whole for whole in good):
                return f"{len(part)} items fail by themselves but not together with others"
        return None


def _reduce(items: tuple[Item, ...], memory: _Memory[Item]) -> tuple[Item, ...]:
    parts = 2
    while len(items) > 1:
        chunks = _split(items, parts)
        smaller = next((chunk for chunk in chunks if memory.ask(chunk)), None)
        if smaller is not None:
            items, parts = smaller, 2
            continue
        rests = (tuple(item for item in items if item not in set(chunk)) for chunk in chunks)
        smaller = next((rest for rest in rests if memory.ask(rest)), None) if parts > 2 else None
        if smaller is not None:
            items, parts = smaller, max(parts - 1, 2)
        elif parts >= len(items):
            break
        else:
            parts = min(2 * parts, len(items))
    return items


def _split(items: tuple[Item, ...], parts: int) -> list[tuple[Item, ...]]:
    cuts = [len(items) * part // parts for part in range(parts + 1)]
    return [items[start:stop] for start, stop in itertools.pairwise(cuts)]
