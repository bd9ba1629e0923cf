"""The start of a step, kept so that the step can be repeated: generators, buffers, the batch, modes.

Parameters need no copy: until `optimizer.step()` those in memory are the start's. Buffers do, because a forward pass
may change them (batch statistics).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from brainbrr_debug.rng import RngState
from brainbrr_debug.statistics import finiteness
from brainbrr_debug.subject import Batch
from brainbrr_debug.tensors import leaves

Identities = Sequence[Sequence[Mapping[str, Any]]]

SMALL = 1 << 16
"""Buffers of up to this many elements are copied every step: batch norm's kernel changes its running statistics
without telling the version counter. Larger ones (masks, tables) are copied again only when the counter moved."""


class BufferCopies:
    """Copies of the buffers of all modules that `model` has now, as of the last `take`, in memory allocated once.

    `meant` names those that held infinities and no NaN when they were first seen: masks, running minima.
    """

    def __init__(self, model: nn.Module) -> None:
        # named_buffers() walks the whole tree; this list is walked instead, every step
        self._modules = [(f"{name}." if name else "", module) for name, module in model.named_modules()]
        self._copies: dict[str, Tensor] = {}
        self._versions: dict[str, tuple[int, int]] = {}
        self.meant: set[str] = set()

    def take(self) -> None:
        """Copy what may have changed since the last time."""
        sources, targets = [], []
        seen: dict[str, tuple[int, int]] = {}
        for name, buffer in self._buffers():
            copy, mark = self._copies.get(name), (buffer.data_ptr(), buffer._version)
            seen[name] = mark
            if copy is None or copy.shape != buffer.shape or copy.dtype != buffer.dtype or copy.device != buffer.device:
                self._copies[name] = buffer.detach().clone()
                if copy is None and (found := finiteness(buffer)).inf and not found.nan:
                    self.meant.add(name)
            elif buffer.numel() <= SMALL or self._versions.get(name) != mark:
                sources.append(buffer.detach())
                targets.append(copy)
        if targets:
            torch._foreach_copy_(targets, sources)
        self._copies = {name: self._copies[name] for name in seen}
        self._versions = seen

    def _buffers(self) -> Iterator[tuple[str, Tensor]]:
        for prefix, module in self._modules:
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    yield prefix + name, buffer

    def values(self) -> Mapping[str, Tensor]:
        """The copies by qualified name."""
        return self._copies


@dataclasses.dataclass(slots=True, kw_only=True)
class Batches:
    """References to the micro-batches of one step, and how to name their samples when somebody asks."""

    micro_batches: list[Batch]
    identities: Identities | Callable[[], Identities] | None
    versions: list[int] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        self.versions = _versions(self.micro_batches)

    def add(self, batch: Batch) -> None:
        """One more micro-batch."""
        self.micro_batches.append(batch)
        self.versions.extend(_versions([batch]))

    @property
    def modified(self) -> bool:
        """True when something has written into the tensors since: they are not what the step began with."""
        return self.versions != _versions(self.micro_batches)

    def named(self) -> tuple[tuple[dict[str, Any], ...], ...]:
        """The identity of every sample of every micro-batch; empty where nobody gave any."""
        given = self.identities() if callable(self.identities) else self.identities
        return tuple(tuple(dict(sample) for sample in samples) for samples in given or ())

    def samples(self) -> int | None:
        """Samples of the first micro-batch: the length of its first input tensor, or of the target."""
        for tree in (*self.micro_batches[0][0], self.micro_batches[0][1]) if self.micro_batches else ():
            for x in leaves(tree):
                if x.dim():
                    return int(x.shape[0])
        return None


@dataclasses.dataclass(slots=True, kw_only=True)
class StepStart:
    """What a step began with. Buffers live in the Watch's BufferCopies."""

    step: int
    rng: RngState
    batches: Batches
    groups: list[dict[str, Any]]  # options of the optimizer; empty where nobody needs them


def _versions(batches: Iterable[Batch]) -> list[int]:
    return [x._version for batch in batches for x in leaves(batch) if not x.is_inference()]
