"""Sees every matrix decomposition of a step, wherever and however it is called, and measures it.

The seam is where torch dispatches its operators: below `torch.linalg`, its aliases, methods of tensors, names that were
bound before, calls inside of libraries and of torch itself, and below function transforms. Through which results a
gradient came back is asked of the autograd nodes, found by their sequence numbers.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction
from torch.utils._python_dispatch import TorchDispatchMode

from brainbrr_debug.conjugates import lazy_conjugates
from brainbrr_debug.factorization import OPERATIONS, Operation, facts_of
from brainbrr_debug.matrices import DRAWN, Call, Limits, Matrix
from brainbrr_debug.measurement import Facts
from brainbrr_debug.quantities import OUTSIDE_SITE
from brainbrr_debug.spectral import THRESHOLD, condition_limit, error_limit, multiplicities, sample_of, wide
from brainbrr_debug.tracing.backward import Roots, engine_code, nodes_below, watched_engine
from brainbrr_debug.tracing.locations import Locator, Place

_sequence_number = torch._C._autograd._get_sequence_nr
QUANTITIES = ("gap", "amplification", "condition", "scaled", "smallest", "residual", "orthogonality")


@dataclasses.dataclass(slots=True, eq=False, kw_only=True)
class _Seen:
    """A call while the step still runs: copies of its arguments by name and of its results, None if it raised."""

    op: str
    operation: Operation
    place: Place
    site: str
    micro_batch: int
    samples: int | None
    given: Mapping[str, Any]
    found: tuple[Tensor, ...] | None
    results: tuple[str, ...]
    gradient: set[str] = dataclasses.field(default_factory=set)


class Interception(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Attached around one step of `model`, whose micro-batches have `samples`; `calls` are to be asked for afterwards.

    `boundaries` are the code objects that start the step. The step says which `micro_batch` runs, and what goes on
    `outside` of every module. `unseen` counts calls whose matrices hold no numbers that could be read, by the reason;
    `inner` those that belong to the backward formula of another operation.
    """

    def __init__(self, model: nn.Module, samples: Sequence[int | None], boundaries: frozenset[Any]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.micro_batch = 0
        self.outside = OUTSIDE_SITE
        self.unseen: collections.Counter[str] = collections.Counter()
        self.inner = 0
        self._locator = Locator(model, boundaries=boundaries, engine=engine_code())
        self._samples = samples
        self._seen: list[_Seen] = []
        self._by_node: dict[tuple[int, str], _Seen] = {}
        self._sequences: dict[int, int] = {}  # every thread counts by itself

    @contextlib.contextmanager
    def attached(self) -> Iterator[None]:
        """Around the step."""
        with watched_engine(self._running), self:
            yield

    def calls(self, *, failed: bool = False) -> tuple[Call, ...]:
        """Everything that was seen, in order; `failed` says that an error ended the step."""
        last = len(self._seen) - 1
        return tuple(_finished(seen, fatal=failed and place == last) for place, seen in enumerate(self._seen))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        sequence, thread = _sequence_number(), threading.get_ident()
        made = sequence > self._sequences.get(thread, 0)
        self._sequences[thread] = sequence
        operation = OPERATIONS.get(func._schema.name)
        with lazy_conjugates():
            if operation is None:
                return func(*args, **kwargs)
            return self._intercept(func, operation, args, kwargs, sequence - 1 if made else None)

    def _intercept(self, func: Any, operation: Operation, args: Any, kwargs: Any, sequence: int | None) -> Any:
        given, place = _bound(func, args, kwargs), self._locator.place()
        if not self._readable(given, place):
            return func(*args, **kwargs)
        copies = {name: _copy(value) for name, value in given.items()}
        look = functools.partial(self._look, func, operation, place, copies, sequence)
        try:
            result = func(*args, **kwargs)
        except RuntimeError:
            look(None)
            raise
        look(tuple(_copy(x) for x in (result if isinstance(result, tuple) else (result,))))
        return result

    def _readable(self, given: Mapping[str, Any], place: Place) -> bool:
        if _in_a_formula(place):
            self.inner += 1
            return False
        tensors = [x for x in given.values() if isinstance(x, Tensor)]
        for x in tensors:
            if type(x) not in (Tensor, nn.Parameter) or x.layout != torch.strided or x.is_meta:
                self.unseen[f"{x.layout} {type(x).__name__} on {x.device.type}".removeprefix("torch.")] += 1
                return False
        return all(x.numel() for x in tensors)

    def _look(
        self,
        func: Any,
        operation: Operation,
        place: Place,
        given: Mapping[str, Any],
        sequence: int | None,
        found: tuple[Tensor, ...] | None,
    ) -> None:
        # a forward pass that runs in a backward pass belongs to the micro-batch before
        micro_batch = max(0, self.micro_batch - (torch._C._current_autograd_node() is not None))
        seen = _Seen(
            op=func._schema.name,
            operation=operation,
            place=place,
            site=place.module if place.module is not None else self.outside,
            micro_batch=micro_batch,
            samples=self._samples[micro_batch] if micro_batch < len(self._samples) else None,
            given=given,
            found=found,
            results=tuple(returned.name or "result" for returned in func._schema.returns),
        )
        self._seen.append(seen)
        if sequence is not None:
            self._by_node[sequence, _plain(seen.op.removeprefix("aten::"))] = seen

    @contextlib.contextmanager
    def _running(self, roots: Roots) -> Iterator[None]:
        """Asks the nodes of the calls so far, for one run of the engine, what comes back to them."""
        handles = []
        for node in nodes_below(roots):
            seen = self._by_node.get((node._sequence_nr(), _plain(node.name().partition("Backward")[0])))
            if seen is not None:
                handles.append(node.register_prehook(functools.partial(_mark, seen)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _mark(seen: _Seen, gradients: tuple[Tensor | None, ...]) -> None:
    seen.gradient.update(name for name, x in zip(seen.results, gradients, strict=False) if x is not None)


def _bound(func: Any, args: Any, kwargs: Any) -> dict[str, Any]:
    """All arguments by name, with their defaults; but for where results are to be written."""
    declared = [argument for argument in func._schema.arguments if not argument.is_out]
    given = {argument.name: argument.default_value for argument in declared}
    return {**given, **dict(zip(given, args, strict=False)), **{k: x for k, x in kwargs.items() if k in given}}


def _in_a_formula(place: Place) -> bool:
    """Whether one of torch's own backward formulas called; a user's backward or a forward pass run again did not."""
    node = torch._C._current_autograd_node()
    return not (node is None or isinstance(node, BackwardCFunction) or place.recomputed or place.in_engine)


def _copy(value: Any) -> Any:
    return value.detach().to("cpu", copy=True) if isinstance(value, Tensor) else value


def _plain(name: str) -> str:
    return name.replace("_", "").lower()


# What is wrong with it ----------------------------------------------------------------------------------------------


def _finished(seen: _Seen, *, fatal: bool) -> Call:
    dtype = next(x.dtype for x in seen.given.values() if isinstance(x, Tensor) and x.dtype != torch.int32)  # no pivots
    given = {name: wide(x) if isinstance(x, Tensor) else x for name, x in seen.given.items()}
    found = None if seen.found is None else tuple(map(wide, seen.found))
    facts, finite = facts_of(seen.operation, given, found, torch.finfo(dtype).eps)
    matrices = seen.operation.matrix(given)
    shape = tuple(matrices.shape)
    order = max(shape[-2:])
    limits = Limits(gap=THRESHOLD, condition=condition_limit(dtype, order), error=error_limit(dtype, order))
    call = Call(
        op=seen.op,
        name=seen.operation.name,
        site=seen.site,
        location=seen.place.location or "",
        micro_batch=seen.micro_batch,
        shape=shape,
        dtype=str(dtype).removeprefix("torch."),
        limits=limits,
        gradient=tuple(sorted(seen.gradient)),
        divided_by_gaps=bool(seen.gradient & seen.operation.vectors),
        function=seen.place.function,
        recomputed=seen.place.recomputed,
        matrices=_matrices(seen, facts, finite, limits, fatal=fatal),
        spectra={},
    )
    values = facts.values.reshape(-1, facts.values.shape[-1])
    named = (("worst", call.worst), ("best", call.best))
    spectra = {name: tuple(_real(values[matrix.index]).tolist()) for name, matrix in named if matrix.finite}
    return dataclasses.replace(call, spectra=spectra, entries=_entries(matrices, call.worst))


def _entries(matrices: Tensor, worst: Matrix) -> tuple[tuple[float, ...], ...]:
    rows, columns = matrices.shape[-2:]
    if rows != columns or rows > DRAWN or matrices.is_complex() or not worst.finite:
        return ()
    return tuple(tuple(row) for row in matrices.reshape(-1, rows, columns)[worst.index].tolist())


def _matrices(seen: _Seen, facts: Facts, finite: Tensor, limits: Limits, *, fatal: bool) -> tuple[Matrix, ...]:
    columns = {name: x.reshape(-1).tolist() for name in QUANTITIES if (x := getattr(facts, name)) is not None}
    failed = (torch.zeros_like(finite) if facts.failed is None else facts.failed).reshape(-1).tolist()
    values = facts.values.reshape(-1, facts.values.shape[-1])
    found = []
    for index, sound in enumerate(finite.reshape(-1).tolist()):
        numbers = {name: column[index] for name, column in columns.items()}
        grouped = facts.gap is not None and sound and not values.is_complex()
        beyond = _beyond(numbers, limits, finite=sound, failed=failed[index])
        beyond = [name for name in beyond if name != "condition" or seen.operation.divides != "never"]
        found.append(
            Matrix(
                index=index,
                sample=sample_of(index, tuple(finite.shape), seen.samples),
                finite=sound,
                multiplicities=multiplicities(values[index]) if grouped else (),
                degenerate=tuple(name for name in beyond if _matters(name, seen, fatal=fatal)),
                harmless=tuple(name for name in beyond if not _matters(name, seen, fatal=fatal)),
                **numbers,
            )
        )
    return tuple(found)


def _beyond(numbers: Mapping[str, float], limits: Limits, *, finite: bool, failed: bool) -> list[str]:
    """The quantities beyond their limits; what is not a number is beyond all of them."""
    if not finite:
        return ["input"]
    if failed:
        return ["failed"]
    numbers = {"gap": math.inf, "condition": 1.0, "residual": 0.0, "orthogonality": 0.0, **numbers}
    condition = numbers.get("scaled", numbers["condition"])
    sound = {
        "gap": numbers["gap"] > limits.gap,
        "condition": condition < limits.condition,
        "residual": numbers["residual"] <= limits.error,
        "orthogonality": numbers["orthogonality"] <= limits.error,
    }
    return [name for name, holds in sound.items() if not holds]


def _matters(name: str, seen: _Seen, *, fatal: bool) -> bool:
    """Whether anything of the step depends on a quantity that is beyond its limit."""
    if name == "gap":
        return bool(seen.gradient & seen.operation.vectors)
    if name == "condition":
        return seen.operation.divides == "forward" or bool(seen.gradient)
    return name != "failed" or bool(seen.gradient) or fatal


def _real(values: Tensor) -> Tensor:
    return torch.sort(values.abs(), descending=True)[0] if values.is_complex() else values
