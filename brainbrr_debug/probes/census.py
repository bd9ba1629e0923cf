"""How many bytes each module's operations allocate that are still alive when the forward pass ends.

That is what waits for the backward pass, and what the program itself holds on to. Storages are followed by weak
references: unlike hooks on saved tensors, these change neither autograd's checks nor what a program may do.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef


class Census:
    """Storages born during one forward pass, each counted once, for the site whose operation bore it."""

    def __init__(self, model: nn.Module) -> None:
        # By the address of their C++ object, which a weak reference keeps from being given to another.
        self._seen: dict[int, tuple[StorageWeakRef, int, str | None]] = {}
        for x in (*model.parameters(), *model.buffers()):
            self._take(x, None)

    def see(self, site: str, arguments: Iterable[Any], result: Any) -> None:
        """Take the result of an operation that `site` ran; an argument's storage was there before."""
        for x in _tensors(arguments):
            self._take(x, None)
        for x in _tensors(result):
            self._take(x, site)

    def _take(self, x: Tensor, site: str | None) -> None:
        if _followed(x):
            storage = x.untyped_storage()
            if storage._cdata not in self._seen:
                reference = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
                self._seen[storage._cdata] = (reference, storage.nbytes(), site)

    def alive(self) -> Mapping[str, int]:
        """Bytes by site, of the storages that are alive now."""
        held: collections.Counter[str] = collections.Counter()
        for reference, size, site in self._seen.values():
            if site is not None and not reference.expired():  # type: ignore[no-untyped-call]
                held[site] += size
        return held


def _tensors(values: Any) -> Iterable[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, (list, tuple)):
        for value in values:
            yield from _tensors(value)


def _followed(x: Tensor) -> bool:
    """Whether `x` has one storage; sparse tensors have several and are not counted."""
    return x.layout is torch.strided and x.device.type != "meta"
