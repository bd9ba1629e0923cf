"""A dispatch mode that watches one training step: births in every operation, and what each of them reaches."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from brainbrr_debug.conjugates import lazy_conjugates
from brainbrr_debug.records import Phase
from brainbrr_debug.tracing.births import (
    Births,
    Signature,
    births_of,
    find_births,
    mutated_arguments,
    scalar_kinds_in,
    signature,
    tensors_in,
)
from brainbrr_debug.tracing.events import Event, Intervention, Record
from brainbrr_debug.tracing.evidence import Collector
from brainbrr_debug.tracing.finiteness import INF, NAN, bad_elements, fill_finite_, kinds, values, writable
from brainbrr_debug.tracing.harm import Symptom
from brainbrr_debug.tracing.locations import Locator, Place
from brainbrr_debug.tracing.memento import Path, storage_key

_sequence_number = torch._C._autograd._get_sequence_nr
_UNBORN: frozenset[int] = frozenset()


class Hopeless(BaseException):
    """Ends a replay in which harm has been done; not an Exception, so that no program catches it."""


class Tracer(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Watches one step and makes the births chosen by an `Intervention` finite as they happen.

    After the step: `events` in order, `lineage_of(tensor)` the events whose bad values reached a tensor, `read` the
    storages whose contents an operation used (if that was asked for), `raised_in` the lineage of the operation that
    raised, if one did.
    """

    def __init__(
        self,
        locator: Locator,
        intervention: Intervention,
        *,
        places: dict[int, tuple[str, Place]] | None = None,
        watched: Event | None = None,
        notes_reads: bool = True,
        hasty: bool = False,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.locator = locator
        self.intervention = intervention
        self.events: list[Event] = []
        self.index = 0
        self.read: set[int] | None = set() if notes_reads else None
        self.hasty = hasty
        self.engine_depth = 0
        self.in_node = False
        self.unplaced: list[Event] = []
        self._places = {} if places is None else places
        self.watched = watched.key if watched is not None else None
        self.collector = Collector(watched.op_index) if watched is not None else None
        self._phase: Phase = "forward"
        self._region: str = ""
        self._lineage: dict[int, frozenset[int]] = {}
        self._records: dict[int, list[Record]] = {}
        self._sequences = {threading.get_ident(): _sequence_number()}  # every thread counts by itself
        self._signatures: dict[Any, Signature] = {}
        self._running: list[torch.Tensor] | None = None
        self._read_out = 0
        self._read_out_lineage = _UNBORN

    supports_higher_order_operators = True

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing here is compiled: spare every operation two wrappers

    # What the runner of the step says.

    def enter(self, region: str) -> None:
        """The step goes on to `region`: "forward", "loss", "backward" or "optimizer"."""
        self._phase = "optimizer" if region == "optimizer" else "forward"
        self._region = {"loss": "<loss>", "optimizer": "<optimizer>"}.get(region, "")

    def found(self, symptoms: Sequence[Symptom]) -> None:
        """The step has come to some harm already; a `hasty` tracer need not see the rest of it."""
        if self.hasty and symptoms:
            raise Hopeless

    def arrive(
        self, path: Path, phase: Phase, module: str, tensor: torch.Tensor, *, deliberate: bool, shared: bool = False
    ) -> None:
        """A tensor at `path` in the program's state that is bad before the step; `shared` by input and target."""
        with self.aside():
            found = kinds(tensor)
            event = self._new_event(
                key=("arrival", *path), phase=phase, op="data", module=module, found=found,
                deliberate=deliberate, arrival=tensor, shared=shared, parents=_UNBORN,
            )  # fmt: skip
            if event.patched:
                _make_finite(tensor, self.intervention)
            else:
                self._reach(tensor, event.lineage)

    def backward_event(
        self, *, node: str, occurrence: int, record: Record | None, found: int, count: int, parents: frozenset[int]
    ) -> Event:
        """A backward node that turned finite gradients into bad ones."""
        return self._new_event(
            key=("node", record.index if record else -1, node, occurrence),
            phase="backward",
            op=record.op if record else node,
            module=record.module if record else self._region,
            location=record.location if record else None,
            node=node, found=found, op_index=record.index if record else None, count=count,
            parents=parents | (record.lineage if record else _UNBORN),
        )  # fmt: skip

    def reach(self, tensor: torch.Tensor, lineage: frozenset[int]) -> None:
        """Bad values behind the events `lineage` are in `tensor`."""
        self._reach(tensor, lineage)

    # What the rest of the package asks.

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Operations inside are our own: neither watched nor recorded by autograd."""
        with torch._C._DisableTorchDispatch(), torch.no_grad():
            yield

    def lineage_of(self, *tensors: torch.Tensor) -> frozenset[int]:
        """Numbers of the events whose bad values are in any of the `tensors`."""
        found = _UNBORN
        for tensor in tensors:
            for part in values(tensor):
                found |= self._lineage.get(storage_key(part), _UNBORN)
        return found

    def owner_of(self, parameter: torch.Tensor) -> str:
        """Qualified name of the module that holds a parameter; "" when none does."""
        return self.locator.owner_of(parameter)

    @property
    def raised_in(self) -> frozenset[int]:
        """The lineage of what the operation that raised an exception had been given."""
        return self.lineage_of(*self._running) if self._running else _UNBORN

    def record_of(self, sequence: int, node: str) -> Record | None:
        """The record of the forward operation behind the autograd node of this sequence number and name."""
        wanted = _plain(node.partition("Backward")[0])
        for number in range(sequence, max(sequence - 8, -1), -1):
            found = self._records.get(number, [])
            if node.endswith("::CopySlices"):  # made after the operation's own node, around it
                found = [record for record in found if record.mutates]
            for record in found:
                if _plain(record.op.rpartition("::")[2]) == wanted:
                    return record
            if found:
                return found[-1] if found[-1].mutates else found[0]
        return None

    # Dispatch.

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        sign = self._signatures.get(func) or self._signatures.setdefault(func, signature(func))
        index, self.index = self.index, self.index + 1
        mutated = mutated_arguments(sign, args, kwargs) if sign.mutated else []
        record = self._record(sign, index, mutated)
        given = tensors_in((args, kwargs))
        if not sign.view:
            self._note_reads(sign, given, mutated)
        looked_at = not sign.view and self.intervention.looks_at(sign.name, index)
        # Part of a backward formula, then, and not of a forward pass that is run once more in it.
        formula = self.in_node and not torch.is_grad_enabled()
        past: dict[int, torch.Tensor] = {}
        if mutated and (
            (looked_at and not formula) or (self.collector is not None and self.collector.watched == index)
        ):
            with torch.no_grad():
                past = {id(tensor): tensor.detach().clone() for tensor in mutated if values(tensor)}
        self._running = given
        with lazy_conjugates():
            result = func(*args, **kwargs)
        self._running = None
        if self.collector is not None:
            self.collector.note(index, sign, args, kwargs, result, past)
        if looked_at:
            with torch.no_grad():
                self._after(func, sign, index, record, args, kwargs, result, mutated, past, formula)
        return result

    def _record(self, sign: Signature, index: int, mutated: list[torch.Tensor]) -> Record | None:
        """A record when autograd has just made a node for this operation."""
        sequence, thread = _sequence_number(), threading.get_ident()
        last = self._sequences.get(thread, 0)
        # In place, a copy of what will be overwritten may be dispatched between the node's making and the operation.
        again = sequence == last and any(tensor.requires_grad for tensor in mutated)
        if sequence <= last and not again:
            return None
        self._sequences[thread] = sequence
        place = self._place(index, sign.name)
        record = Record(
            index=index,
            op=place.function or sign.name,
            module=self._module(place),
            location=place.location,
            mutates=bool(mutated),
            recomputed=place.recomputed,
        )
        self._records.setdefault(sequence - 1, []).append(record)
        return record

    def _place(self, index: int, name: str) -> Place:
        """Where the running operation was called; a replay trusts what the first run found."""
        known = self._places.get(index)
        if known is None or known[0] != name:
            known = self._places[index] = (name, self.locator.place())
        return known[1]

    def _phase_of(self, place: Place) -> Phase:
        if place.stepping and self.engine_depth:  # a step may be taken from within the backward pass
            return "optimizer"
        return "backward" if self.engine_depth and not place.recomputed else self._phase

    def _module(self, place: Place) -> str:
        if self._phase_of(place) == "optimizer":
            return "<optimizer>"
        return place.module if place.module is not None else self._region

    def _note_reads(self, sign: Signature, given: list[torch.Tensor], mutated: list[torch.Tensor]) -> None:
        if self.read is not None:
            skipped = {id(tensor) for tensor in mutated} if sign.overwritten else set()
            self.read.update(storage_key(tensor) for tensor in given if id(tensor) not in skipped)

    def _after(
        self, func: Any, sign: Signature, index: int, record: Record | None, args: Any, kwargs: Any, result: Any,
        mutated: list[torch.Tensor], past: dict[int, torch.Tensor], formula: bool,
    ) -> None:  # fmt: skip
        outputs = [*tensors_in(result), *mutated]
        bad = [(place, tensor) for place, tensor in enumerate(outputs) if kinds(tensor)]
        scalars = scalar_kinds_in(result)
        if not bad and not scalars:
            if not mutated:
                self._forget(result)
            elif sign.overwritten:
                self._forget([tensor for tensor in mutated if _fills_its_memory(tensor)])
            return
        parents = self.lineage_of(*tensors_in((args, kwargs)))
        if scalar_kinds_in((args, kwargs)) & self._read_out:
            parents |= self._read_out_lineage
        if scalars:  # `.item()` of a bad tensor: from here on the number travels through Python
            self._read_out |= scalars
            self._read_out_lineage |= parents
        lineage = parents
        if bad and not formula:
            born = self._from_outside(sign, index, args, kwargs, bad, mutated) or find_births(
                func, sign, args, kwargs, bad, past, self._read_out
            )
            lineage = parents if born is None else self._judge(born, sign, index, parents)
        if not mutated:
            self._forget(result)  # fresh memory may have been somebody else's before
        for _, tensor in bad:
            self._reach(tensor, lineage)
        self._name_arrivals(lineage, sign, index)
        if record is not None:
            record.lineage = lineage

    def _from_outside(
        self, sign: Signature, index: int, args: Any, kwargs: Any, bad: Sequence[tuple[int, torch.Tensor]],
        mutated: Sequence[torch.Tensor],
    ) -> Births | None:  # fmt: skip
        """Births in the first operation that reads a bad tensor which no operation has made: `torch.tensor(inf)`,
        an array of NumPy's."""
        if self._phase == "optimizer" or self.engine_depth:
            return None
        if self.intervention.names is not None and ("op", index, sign.name) not in self.intervention.keys:
            return None  # not everything was looked at: what made the tensor may have been missed
        written = {id(tensor) for tensor in mutated}
        read = [tensor for tensor in tensors_in((args, kwargs)) if id(tensor) not in written and kinds(tensor)]
        if not read or any(tensor.requires_grad or self.lineage_of(tensor) for tensor in read):
            return None
        return births_of(bad, NAN | INF, all(tensor.numel() == 1 or kinds(tensor) == INF for tensor in read))

    def _judge(self, born: Births, sign: Signature, index: int, parents: frozenset[int]) -> frozenset[int]:
        """Turn births into an event (or none, inside a backward node); the lineage of the operation's results."""
        place = self._place(index, sign.name)
        if self.engine_depth and self.in_node and not place.recomputed:
            return parents  # part of a backward formula: judged when the node is done
        op = place.function or sign.name
        module = self._module(place)
        if place.recomputed and (twin := self._twin(op, place.location)) is not None:
            if twin.patched:
                _patch(born, self.intervention)
            return parents | twin.lineage
        event = self._new_event(
            key=("op", index, sign.name),
            phase=self._phase_of(place),
            op=op, module=module, location=place.location, found=born.found, op_index=index,
            deliberate=born.deliberate and (sign.fill or self._phase != "optimizer"), parents=parents, count=born.count,
        )  # fmt: skip
        if event.phase == "backward":
            event.location = place.location if place.in_engine else None
            self.unplaced.append(event)
        if event.patched:
            _patch(born, self.intervention)
        return event.lineage

    def _twin(self, op: str, location: str | None) -> Event | None:
        """The event of the forward pass that this recomputation repeats."""
        for event in self.events:
            if event.phase == "forward" and event.op == op and event.location == location:
                return event
        return None

    def _new_event(self, *, parents: frozenset[int], **fields: Any) -> Event:
        number = len(self.events)
        event = Event(number=number, position=self.index, **fields)
        event.lineage = parents | {number}
        event.patched = self.intervention.patches(event)
        self.events.append(event)
        return event

    def _name_arrivals(self, lineage: frozenset[int], sign: Signature, index: int) -> None:
        """A bad parameter or state is reported as the first operation that read it; data as what it was read as."""
        for number in lineage:
            event = self.events[number]
            if event.shared:
                event.module = "<target>" if self._module(self._place(index, sign.name)) == "<loss>" else "<input>"
                event.shared = False
            if event.arrival is not None and event.phase != "data" and event.op_index is None:
                place = self._place(index, sign.name)
                event.op = place.function or sign.name
                event.op_index, event.location, event.phase = index, place.location, self._phase
                event.module = self._module(place)

    def _reach(self, tensor: torch.Tensor, lineage: frozenset[int]) -> None:
        for part in values(tensor):
            key = storage_key(part)
            self._lineage[key] = self._lineage.get(key, _UNBORN) | lineage

    def _forget(self, result: Any) -> None:
        for tensor in tensors_in(result):
            self._lineage.pop(storage_key(tensor), None)


def _fills_its_memory(tensor: torch.Tensor) -> bool:
    return tensor.layout == torch.strided and tensor.nbytes == tensor.untyped_storage().nbytes()


def _plain(name: str) -> str:
    return name.replace("_", "").lower()


def _make_finite(tensor: torch.Tensor, intervention: Intervention) -> None:
    for part in map(writable, values(tensor)):
        fill_finite_(part, bad_elements(part), intervention.filling)


def _patch(born: Births, intervention: Intervention) -> None:
    for part, mask in born.masks:
        fill_finite_(part, mask, intervention.filling)
