"""What was seen at the origin: the operation's arguments, its results, and the gradients that came and went."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils._pytree import tree_map

from brainbrr_debug.tracing.births import Signature, tensors_in
from brainbrr_debug.tracing.memento import storage_key

_PASSED_ON = frozenset({"aten::clone", "aten::contiguous", "aten::detach", "aten::lift_fresh"})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evidence:
    """One operation as it ran without any patch.

    `args` and `kwargs` hold copies of tensors as they were before it ran; `producers` says which operations made one
    of them ("sqrt(sum)"), `memory` where it came from (its storage key), both by the id of the copy. `received` and
    `produced` are the gradients of a backward node; `chosen_among`: the operation's result went into a selection.
    """

    op: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    results: Sequence[torch.Tensor]
    producers: Mapping[int, str]
    memory: Mapping[int, int]
    received: Sequence[torch.Tensor] = ()
    produced: Sequence[torch.Tensor] = ()
    chosen_among: bool = False

    @property
    def short(self) -> str:
        """The operation's name without namespace, in-place mark and decoration: "aten::_foreach_div_" is "div"."""
        name = self.op.rpartition("::")[2].removeprefix("_foreach_").strip("_")
        return name.removeprefix("special_").removeprefix("linalg_")

    @property
    def tensors(self) -> list[torch.Tensor]:
        """Every tensor among the arguments."""
        return tensors_in((self.args, dict(self.kwargs)))

    def tensor(self, place: int) -> torch.Tensor | None:
        """The argument at `place` as a tensor (a number becomes one); None when it is neither."""
        if place >= len(self.args):
            return None
        value = self.args[place]
        if isinstance(value, torch.Tensor):
            return value
        return torch.tensor(value) if isinstance(value, (int, float)) else None

    def producer(self, place: int) -> str:
        """Which operations made the tensor argument at `place`; "" when it was there before."""
        value = self.args[place] if place < len(self.args) else None
        return self.producers.get(id(value), "") if isinstance(value, torch.Tensor) else ""


class Collector:
    """Gathers Evidence about the operation of index `watched` while a step is replayed."""

    def __init__(self, watched: int | None) -> None:
        self.watched = watched
        self.evidence: Evidence | None = None
        self._gradients: dict[str, Any] = {}
        self._producers: dict[int, str] = {}

    def result(self) -> Evidence | None:
        """The evidence, with the gradients of the backward node if that was what was watched."""
        if self.evidence is None:
            return None
        return dataclasses.replace(self.evidence, **self._gradients)

    def note(
        self, index: int, sign: Signature, args: Any, kwargs: Any, result: Any, past: Mapping[int, torch.Tensor]
    ) -> None:
        """An operation has run; inside, no operation is traced."""
        if index == self.watched:
            with torch.no_grad():
                self._keep(sign, args, kwargs, result, past)
        made = self._description(sign.name, args, kwargs)
        for tensor in tensors_in(result):
            self._producers[storage_key(tensor)] = made

    def note_gradients(
        self, received: Sequence[torch.Tensor], produced: Sequence[torch.Tensor], *, chosen_among: bool
    ) -> None:
        """The watched backward node has run."""
        self._gradients = {
            "received": [tensor.clone() for tensor in received],
            "produced": [tensor.clone() for tensor in produced],
            "chosen_among": chosen_among,
        }

    def _description(self, name: str, args: Any, kwargs: Any) -> str:
        heads = [self._producers.get(storage_key(tensor), "") for tensor in tensors_in((args, kwargs))]
        if name in _PASSED_ON and heads:
            return heads[0]
        inner = ",".join(head.partition("(")[0] for head in heads if head)
        short = name.rpartition("::")[2]
        return f"{short}({inner})" if inner else short

    def _keep(self, sign: Signature, args: Any, kwargs: Any, result: Any, past: Mapping[int, torch.Tensor]) -> None:
        producers: dict[int, str] = {}
        memory: dict[int, int] = {}

        def copy(leaf: Any) -> Any:
            if not isinstance(leaf, torch.Tensor):
                return leaf
            copied = past.get(id(leaf), leaf).detach().clone()
            memory[id(copied)] = storage_key(leaf)
            producers[id(copied)] = self._producers.get(storage_key(leaf), "")
            return copied

        copied_args, copied_kwargs = tree_map(copy, (tuple(args), dict(kwargs)))
        self.evidence = Evidence(
            op=sign.name,
            args=copied_args,
            kwargs=copied_kwargs,
            results=[tensor.detach().clone() for tensor in tensors_in(result)],
            producers=producers,
            memory=memory,
        )
