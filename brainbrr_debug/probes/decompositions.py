"""Gaps of the decompositions that a step computes, and how near to singular what it inverts; with the place of each.

While a recorder is active, functions of torch are wrappers (see replacement.py). A wrapper stores a few small tensors
on the device and reads nothing back.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from brainbrr_debug.probes.divisions import ALARM, Division
from brainbrr_debug.probes.ledger import Guard, Ledger
from brainbrr_debug.probes.replacement import Function, activate, caller, deactivate
from brainbrr_debug.quantities import CONDITION, EIGENGAP, EIGENGAP_DETACHED
from brainbrr_debug.records import Reading
from brainbrr_debug.spectral import Values, eigengap, exact_eigengap, sample_of, scattered_eigengap

Say = Callable[[list[Tensor], float, int], list[Reading]]
"""The reading of a value that stands at an index in some tensors, one behind the other."""

PAIRS = 2**16
"""So many pairs of eigenvalues in no order are compared in one call; gaps of more are left to `spectrum`."""


@dataclasses.dataclass(slots=True, eq=False)
class Call:
    """One decomposition: where from, the matrices, their gaps, and whether a gradient reached the vectors."""

    op: str
    site: str
    location: str
    matrices: Tensor  # (…, n, n), shared with the program, not copied
    version: int
    upper: bool
    values: Values
    gaps: Tensor  # (…)
    micro_batch: int = 0
    differentiated: bool = False

    def exact_gaps(self, flat: Tensor) -> Tensor | None:
        """Gaps (len(flat),) of the matrices with those flat indices, in float64; None if they changed since."""
        if self.matrices._version != self.version:
            return None
        chosen = (
            self.matrices.detach().flatten(0, -3)[flat] if self.matrices.dim() > 2 else self.matrices.detach()[None]
        )
        if not bool(torch.isfinite(chosen).all()):
            return None
        return exact_eigengap(chosen.mH if self.upper else chosen, self.values)


class Decompositions:
    """Records the calls of one step. `names` maps id(module) to the module's qualified name."""

    def __init__(self, ledger: Ledger, names: Mapping[int, str]) -> None:
        self._ledger, self._names = ledger, names
        self.step: int | None = None
        self.samples: int | None = None
        self.micro_batch = 0  # whose forward pass runs
        self.calls: list[Call] = []
        self.divisions: list[Division] = []
        self._see: Callable[..., None] = self._record
        self.unseen = 0  # calls under a function transform, whose values exist only inside it, and too large ones

    def attach(self, guard: Guard) -> None:
        """Start to record; nested and overlapping recorders are fine."""
        self._see = guard(self._record)
        activate(self)

    def detach(self) -> None:
        """Stop; with the last recorder torch's own functions come back."""
        deactivate(self)
        self.clear()

    def clear(self) -> None:
        """Forget the step."""
        self.step, self.calls, self.divisions = None, [], []

    def record(self, function: Function, result: Any, matrices: Tensor, rest: Mapping[str, Any]) -> None:
        """Take one call's result."""
        if self.step is not None and matrices.numel():
            self._see(function, result, matrices, rest)

    def _record(self, function: Function, result: Any, matrices: Tensor, rest: Mapping[str, Any]) -> None:
        if torch._C._functorch.is_functorch_wrapped_tensor(matrices):
            self.unseen += 1
        elif function.divides is not None:
            site, inverse = caller(self._names)[0], function.divides == "inverse"
            division = Division.of(site, matrices, result, rest, inverse=inverse)
            if division.x.numel():
                self.divisions.append(division)
        elif function.values is not None:
            self._taken_apart(function, function.values, result, matrices, rest)

    def _taken_apart(
        self, function: Function, kind: Values, result: Any, matrices: Tensor, rest: Mapping[str, Any]
    ) -> None:
        values = result if function.index is None else result[function.index]
        if kind == "eigen" and values.numel() * values.shape[-1] > PAIRS:
            self.unseen += 1
            return
        site, location = caller(self._names)
        call = Call(
            op=function.name,
            site=site,
            location=location,
            matrices=matrices.detach(),
            version=matrices._version,
            upper=rest.get("UPLO", "L") in ("U", "u"),
            values=kind,
            gaps=scattered_eigengap(values) if kind == "eigen" else eigengap(values),
            # a checkpoint's second forward runs in the backward pass of the micro-batch before
            micro_batch=max(0, self.micro_batch - (torch._C._current_graph_task_id() != -1)),
        )
        self.calls.append(call)
        if function.index is not None:
            for vectors in (x for i, x in enumerate(result) if i != function.index and x.requires_grad):
                vectors.register_hook(functools.partial(_mark, call))

    def finish(self) -> None:
        """At the end of the step: defer what is worst at each site, gaps apart by whether a gradient came back."""
        gaps: dict[Hashable, list[Call]] = {}
        for call in self.calls:
            gaps.setdefault((call.site, call.op, call.differentiated, call.gaps.device), []).append(call)
        for calls in gaps.values():
            quantity, phase = (EIGENGAP, "backward") if calls[0].differentiated else (EIGENGAP_DETACHED, "forward")
            found = [call.gaps for call in calls]
            say = self._say(phase, calls[0].site, quantity)
            self._ledger.defer(_joined(found).min(dim=0), functools.partial(_smallest, found, say))
        lost: dict[Hashable, list[Division]] = {}
        for division in self.divisions:
            lost.setdefault((division.site, division.lost.device), []).append(division)
        for divisions in lost.values():
            say = self._say("forward", divisions[0].site, CONDITION)
            screened = _joined([division.lost for division in divisions]).max(dim=0)
            self._ledger.defer(screened, functools.partial(self._largest, divisions, say))

    def _say(self, phase: str, site: str, quantity: str) -> Say:
        step, samples = self.step if self.step is not None else -1, self.samples

        def say(found: list[Tensor], value: float, index: int) -> list[Reading]:
            sample = _owner(found, index, samples)
            return [Reading(step=step, phase=phase, site=site, quantity=quantity, value=value, sample=sample)]

        return say

    def _largest(self, divisions: list[Division], say: Say, v: Sequence[float]) -> list[Reading]:
        """The reading of a site; an alarm of the screening is confirmed with exact numbers."""
        if v[0] < ALARM:
            return say([division.lost for division in divisions], v[0], int(v[1]))
        exact = [found for division in divisions if (found := division.exact()) is not None]
        self.unseen += len(divisions) - len(exact)
        if not exact:
            return []
        value, index = _joined(exact).max(dim=0)
        return say(exact, float(value), int(index))


def _smallest(gaps: list[Tensor], say: Say, v: Sequence[float]) -> list[Reading]:
    return say(gaps, v[0], int(v[1]))


def _joined(tensors: list[Tensor]) -> Tensor:
    flats = [x.reshape(-1) for x in tensors]
    return flats[0] if len(flats) == 1 else torch.cat(flats)


def _owner(tensors: list[Tensor], index: int, samples: int | None) -> int | None:
    """The sample that an element of `_joined(tensors)` belongs to."""
    for x in tensors:
        if index < x.numel():
            return sample_of(index, tuple(x.shape), samples)
        index -= x.numel()
    raise IndexError(f"{index} matrices too many")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Degenerate:
    """One matrix whose relative gap is small, as observed and (where the matrix is still there) in float64."""

    op: str
    site: str
    location: str
    micro_batch: int
    sample: int | None
    matrix: int
    gap: float
    exact_gap: float | None


def degenerate(calls: list[Call], threshold: float, samples: int | None, *, at_most: int = 256) -> list[Degenerate]:
    """The matrices of differentiated calls with a gap at or below `threshold`, smallest first. Reads back.

    A gap that float32 found small but not zero must also be small in float64.
    """
    found: list[Degenerate] = []
    for call in (call for call in calls if call.differentiated):
        gaps = call.gaps.reshape(-1)
        flat = (~(gaps > threshold)).nonzero().reshape(-1)
        if not len(flat):
            continue
        exact = call.exact_gaps(flat)
        exacts = [None] * len(flat) if exact is None else exact.tolist()
        for index, gap, exact_gap in zip(flat.tolist(), gaps[flat].tolist(), exacts, strict=True):
            if exact_gap is None or gap == 0 or exact_gap <= threshold:
                sample = sample_of(index, tuple(call.gaps.shape), samples)
                found.append(
                    Degenerate(
                        op=call.op,
                        site=call.site,
                        location=call.location,
                        micro_batch=call.micro_batch,
                        sample=sample,
                        matrix=index,
                        gap=gap,
                        exact_gap=exact_gap,
                    )
                )
    return sorted(found, key=lambda d: (not math.isnan(d.gap), d.gap))[:at_most]


def _mark(call: Call, gradient: Tensor | None) -> None:
    if gradient is not None:  # None: only the values carried a gradient
        call.differentiated = True
