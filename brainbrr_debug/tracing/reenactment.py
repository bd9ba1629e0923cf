"""Runs one step again and again from the same state, each time with other births made finite."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch

from brainbrr_debug.subject import Batch
from brainbrr_debug.tracing import harm
from brainbrr_debug.tracing.backward import BackwardWatch, engine_code
from brainbrr_debug.tracing.events import Event, Intervention
from brainbrr_debug.tracing.finiteness import INF, bad_elements, kinds, values
from brainbrr_debug.tracing.harm import Symptom
from brainbrr_debug.tracing.locations import Locator
from brainbrr_debug.tracing.memento import Memento, storage_key
from brainbrr_debug.tracing.tracer import Tracer


class Scope(Protocol):
    """Told by a step which part of it begins."""

    def enter(self, region: str) -> None:
        """`region` is "forward", "loss", "backward" or "optimizer"."""


class Unobserved:
    """A Scope that does not listen: for the cheap first run of a step."""

    def enter(self, region: str) -> None:
        """Nothing."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """A program and one step of it: `play(scope)` runs the step and returns what it found harmful on the way.

    `tensor` (optional) is watched instead of everything else: was it bad at the end?
    """

    model: Any
    optimizer: Any
    batches: Sequence[Batch]
    play: Callable[[Scope], list[Symptom]]
    start: Memento
    known: frozenset[str] = frozenset()
    tensor: torch.Tensor | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Replay:
    """What one re-enactment came to."""

    events: Sequence[Event]
    symptoms: Sequence[Symptom]
    lineage: frozenset[int]
    error: Exception | None
    evidence: Sequence[Any]

    @property
    def healthy(self) -> bool:
        """Whether the step did no harm."""
        return not self.symptoms


class Reenactment:
    """Re-enacts one step; counts how often."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.count = 0
        self._locator = Locator(stage.model, boundaries=frozenset({_play.__code__}), engine=engine_code())

    def replay(self, intervention: Intervention | None = None, *, watched: int | None = None) -> Replay:
        """One run from the start of the step, with the births that `intervention` chooses made finite.

        `watched` is the index of an operation whose arguments and results are to be kept as evidence.
        """
        stage = self.stage
        stage.start.restore()
        self.count += 1
        buffers = harm.buffers_of(stage.model)
        tracer = Tracer(self._locator, intervention or Intervention(), watched=watched)
        _announce_arrivals(tracer, stage)
        error: Exception | None = None
        found: list[Symptom] = []
        with BackwardWatch(tracer).attached(), tracer:
            try:
                found = _play(stage.play, tracer)
            except Exception as caught:  # noqa: BLE001 - whether a non-finite value caused it is what replays decide
                error = caught
        with torch.no_grad():
            symptoms = self._symptoms(found, error, tracer, buffers)
        return Replay(
            events=tracer.events,
            symptoms=symptoms,
            lineage=_lineage(symptoms, tracer),
            error=error,
            evidence=tracer.evidence,
        )

    def _symptoms(
        self, found: list[Symptom], error: Exception | None, tracer: Tracer, buffers: Mapping[str, torch.Tensor]
    ) -> list[Symptom]:
        stage = self.stage
        if stage.tensor is not None:
            newly = harm.new_kinds(stage.tensor, stage.start)
            return [Symptom(what="memory", name="", found=newly, tensor=stage.tensor)] if newly else []
        if error is not None:
            return [Symptom(what="exception", name=type(error).__name__)]
        state = harm.symptoms_of_state(stage.model, stage.optimizer, stage.start, stage.known)
        used = [s for s in state if s.what != "buffer" or harm.in_use(s, buffers, tracer.read)]
        return [*found, *used]


def _play(play: Callable[[Scope], list[Symptom]], scope: Scope) -> list[Symptom]:
    """The frame below which the stack is the user's program."""
    return play(scope)


def _lineage(symptoms: Sequence[Symptom], tracer: Tracer) -> frozenset[int]:
    found: frozenset[int] = frozenset()
    for symptom in symptoms:
        if symptom.tensor is not None:
            found |= tracer.lineage_of(symptom.tensor)
        elif symptom.what == "exception":
            found |= tracer.raised_in
    return found


def _announce_arrivals(tracer: Tracer, stage: Stage) -> None:
    """Everything that is bad before the step: data first, then what the program holds."""
    announced: set[int] = set()
    with torch.no_grad():
        for number, (inputs, target) in enumerate(stage.batches):
            for part, module in ((inputs, "<input>"), (target, "<target>")):
                for place, tensor in enumerate(_tensors(part)):
                    if kinds(tensor):
                        announced.add(storage_key(tensor))
                        label = f"{module[1:-1]} {place} of micro-batch {number}"
                        tracer.arrive(label, "data", module, tensor, deliberate=_is_mask(tensor))
        buffers = {id(tensor) for tensor in harm.buffers_of(stage.model).values()}
        for place, tensor in enumerate(stage.start.tensors):
            key = storage_key(tensor)
            if (key and key in announced) or not kinds(tensor):
                continue
            announced.add(key)
            constant = kinds(tensor) == INF and (id(tensor) in buffers or not tensor.requires_grad)
            tracer.arrive(f"tensor {place}", "forward", "", tensor, deliberate=constant)


def _tensors(tree: Any) -> list[torch.Tensor]:
    from brainbrr_debug.tracing.births import tensors_in

    return tensors_in(tree)


def _is_mask(tensor: torch.Tensor) -> bool:
    """An additive mask: −inf where it masks, one and the same number elsewhere."""
    if kinds(tensor) != INF:
        return False
    part = values(tensor)[0]
    bad = bad_elements(part)
    rest = part[~bad]
    return bool((part[bad] < 0).all()) and (rest.numel() == 0 or bool((rest == rest[0]).all()))
