"""Runs one step again and again from the same state, each time with other births made finite."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch

from brainbrr_debug.subject import Batch
from brainbrr_debug.tracing import harm
from brainbrr_debug.tracing.backward import BackwardWatch, engine_code
from brainbrr_debug.tracing.events import Event, Intervention
from brainbrr_debug.tracing.evidence import Evidence
from brainbrr_debug.tracing.finiteness import INF, bad_elements, kinds, values
from brainbrr_debug.tracing.harm import Symptom
from brainbrr_debug.tracing.locations import Locator, Place
from brainbrr_debug.tracing.memento import Memento, Path, storage_key
from brainbrr_debug.tracing.tracer import Hopeless, Tracer


class Scope(Protocol):
    """Told by a step which part of it begins."""

    def enter(self, region: str) -> None:
        """`region` is "forward", "loss", "backward" or "optimizer"."""

    def found(self, symptoms: Sequence[Symptom]) -> None:
        """Harm that is certain already: the loss of the step, or of a micro-batch, is not finite."""


class Unobserved:
    """A Scope that does not listen: for the cheap first run of a step."""

    def enter(self, region: str) -> None:
        """Nothing."""

    def found(self, symptoms: Sequence[Symptom]) -> None:
        """Nothing."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """A program and one step of it: `play(scope)` runs the step and returns what it found harmful on the way.

    `roots` are what `start` was taken of. With a `path` only the tensor there counts: is it bad at the end? `born` are
    the memories (storage keys) that earlier steps made bad: no infinity in them was meant.
    """

    model: Any
    optimizer: Any
    batches: Sequence[Batch]
    play: Callable[[Scope], list[Symptom]]
    start: Memento
    known: frozenset[str] = frozenset()
    roots: Sequence[object] = ()
    path: Path | None = None
    born: frozenset[int] = frozenset()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Replay:
    """What one re-enactment came to."""

    events: Sequence[Event]
    symptoms: Sequence[Symptom]
    lineage: frozenset[int]
    error: Exception | None
    evidence: Evidence | None

    @property
    def healthy(self) -> bool:
        """Whether the step did no harm."""
        return not self.symptoms


class Reenactment:
    """Re-enacts one step; counts how often."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.count = 0
        self._places: dict[int, tuple[str, Place]] = {}
        self._data: tuple[frozenset[int], frozenset[int]] | None = None
        self._locator = Locator(stage.model, boundaries=frozenset({_play.__code__}), engine=engine_code())

    def replay(
        self, intervention: Intervention | None = None, *, watched: Event | None = None, restore: bool = True
    ) -> Replay:
        """One run from the start of the step, with the births that `intervention` chooses made finite.

        `watched` is the event about which evidence is to be kept. Without `restore` the step runs from the state that
        the program is in: for the first run of a step that cannot be repeated.
        """
        stage = self.stage
        if restore:
            stage.start.restore()
        self.count += 1
        buffers = harm.buffers_of(stage.model)
        tracer = Tracer(
            self._locator,
            intervention or Intervention(),
            places=self._places,
            watched=watched,
            notes_reads=bool(buffers),
            hasty=intervention is not None and watched is None and stage.path is None,
        )
        if self._data is None:
            self._data = _data_of(stage)
        _announce_arrivals(tracer, stage, self._data)
        error: Exception | None = None
        found: list[Symptom] = []
        with _eagerly(), BackwardWatch(tracer).attached(), tracer:
            try:
                found = _play(stage.play, tracer)
            except Hopeless:
                found = [Symptom(what="loss", name="")]
            except Exception as caught:  # noqa: BLE001 - whether a non-finite value caused it is what replays decide
                error = caught
        with torch.no_grad():
            symptoms = self._symptoms(found, error, tracer, buffers)
        return Replay(
            events=tracer.events,
            symptoms=symptoms,
            lineage=_lineage(symptoms, tracer),
            error=error,
            evidence=tracer.collector.result() if tracer.collector is not None else None,
        )

    def _symptoms(
        self, found: list[Symptom], error: Exception | None, tracer: Tracer, buffers: Mapping[str, torch.Tensor]
    ) -> list[Symptom]:
        stage = self.stage
        if stage.path is not None:
            there = Memento(stage.roots).tensors.get(stage.path)
            newly = harm.new_kinds(there, stage.start) if there is not None else 0
            return [Symptom(what="memory", name=str(stage.path), found=newly, tensor=there)] if newly else []
        if error is not None:
            return [Symptom(what="exception", name=type(error).__name__)]
        state = harm.symptoms_of_state(stage.model, stage.optimizer, stage.start, stage.known)
        used = [s for s in state if s.what != "buffer" or harm.in_use(s, buffers, tracer.read or set())]
        return [*found, *used]


def _eagerly() -> contextlib.AbstractContextManager[object]:
    """Compiled modules run as they were written: operations inside a compiled region cannot be seen."""
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else contextlib.nullcontext()


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


def _data_of(stage: Stage) -> tuple[frozenset[int], frozenset[int]]:
    """The tensors of the batches, whatever objects they are in, by identity: of the inputs and of the targets."""
    held = {id(tensor) for tensor in harm.parameters_of(stage.model, stage.optimizer).values()}
    inputs, targets = ([batch[part] for batch in stage.batches] for part in (0, 1))
    found = [{id(tensor) for tensor in Memento(part).tensors.values()} - held for part in (inputs, targets)]
    return frozenset(found[0]), frozenset(found[1])


def _announce_arrivals(tracer: Tracer, stage: Stage, data: tuple[frozenset[int], frozenset[int]]) -> None:
    """Everything that is bad before the step: data first, then what the program holds."""
    inputs, targets = data
    buffers = {id(tensor) for tensor in harm.buffers_of(stage.model).values()}
    with torch.no_grad():
        found = [(path, tensor) for path, tensor in stage.start.tensors.items() if kinds(tensor)]
        announced: set[int] = set()
        for path, tensor in sorted(found, key=lambda item: id(item[1]) not in inputs | targets):
            key = storage_key(tensor)
            if key and key in announced:
                continue
            announced.add(key)
            if id(tensor) in inputs | targets:
                name = "<input>" if id(tensor) in inputs else "<target>"
                shared = id(tensor) in inputs & targets
                tracer.arrive(path, "data", name, tensor, deliberate=_is_mask(tensor), shared=shared)
            else:
                constant = kinds(tensor) == INF and (id(tensor) in buffers or not tensor.requires_grad)
                constant = constant and key not in stage.born
                tracer.arrive(path, "forward", "", tensor, deliberate=constant)


def _is_mask(tensor: torch.Tensor) -> bool:
    """An additive mask: −inf where it masks, one and the same number elsewhere."""
    if kinds(tensor) != INF:
        return False
    part = values(tensor)[0]
    bad = bad_elements(part)
    rest = part[~bad]
    return bool((part[bad] < 0).all()) and (rest.numel() == 0 or bool((rest == rest[0]).all()))
