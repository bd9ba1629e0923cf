"""Remembers in which step a bad value came into the program's state, for failures that show only steps later.

A hidden state carried along, a gradient accumulated over several steps, a dataset changed in place: none of them is
harm by itself, and when it does harm the step to look at is an earlier one.
"""

from __future__ import annotations

import dataclasses

import torch

from brainbrr_debug.subject import Batch
from brainbrr_debug.tracing.finiteness import kinds
from brainbrr_debug.tracing.memento import Memento, Path, storage_key


@dataclasses.dataclass(frozen=True, kw_only=True)
class Moment:
    """The start of a step."""

    step: int
    batch: Batch
    start: Memento


@dataclasses.dataclass(frozen=True, kw_only=True)
class Birthday:
    """The step in which the tensor at `path` became bad."""

    moment: Moment
    path: Path
    tensor: torch.Tensor


class History:
    """Told of the start of every step; keeps a step's start only as long as something born in it is still bad."""

    def __init__(self) -> None:
        self._last: Moment | None = None
        self._births: dict[int, Birthday] = {}

    def begin(self, moment: Moment) -> None:
        """A step starts from this state."""
        last, self._last = self._last, moment
        present: dict[int, tuple[Path, torch.Tensor]] = {}
        for path, tensor in moment.start.tensors.items():
            key = storage_key(tensor)
            if key and key not in present and kinds(tensor):
                present[key] = (path, tensor)
        kept = {key: birth for key, birth in self._births.items() if self._still_bad(key, birth, present)}
        if last is not None:
            for key, (path, tensor) in present.items():
                past = last.start.before(tensor)
                newly = past is None or not kinds(past)
                if key not in kept and newly and not _came_with_the_batch(tensor, moment, last):
                    kept[key] = self._carried(path, tensor, last) or Birthday(moment=last, path=path, tensor=tensor)
        self._births = kept

    @property
    def born(self) -> frozenset[int]:
        """The memories (storage keys) that are bad because of something that happened in a step seen here."""
        return frozenset(self._births)

    def _carried(self, path: Path, tensor: torch.Tensor, last: Moment) -> Birthday | None:
        """The birthday of what stood in this place before, if it was bad in the same way: a state carried along."""
        before = last.start.tensors.get(path)
        if before is None or kinds(tensor) & ~kinds(before):
            return None
        return self._births.get(storage_key(before))

    def birthday(self, tensor: torch.Tensor) -> Birthday | None:
        """When the memory behind `tensor` became bad, if that was in a step seen here."""
        return self._births.get(storage_key(tensor))

    @staticmethod
    def _still_bad(key: int, birth: Birthday, present: dict[int, tuple[Path, torch.Tensor]]) -> bool:
        if key in present:
            return True
        from_batch = birth.path[0] == BATCH_ROOT
        return from_batch and bool(kinds(birth.tensor))  # the data may come round again


BATCH_ROOT = 3  # place of the batch among the roots of a step's Memento: model, optimizer, loss, batch


def _came_with_the_batch(tensor: torch.Tensor, moment: Moment, last: Moment) -> bool:
    """Whether the tensor is part of a batch that the last step had not seen."""
    key = storage_key(tensor)
    in_batch = any(path[0] == BATCH_ROOT and storage_key(t) == key for path, t in moment.start.tensors.items())
    return in_batch and last.start.before(tensor) is None
