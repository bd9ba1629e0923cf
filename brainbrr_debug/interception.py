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

from brainbrr_debug.factorization import OPERATIONS, Operation, facts_of
from brainbrr_debug.matrices import Call, Limits, Matrix
from brainbrr_debug.measurement import Facts
from brainbrr_debug.quantities import OUTSIDE_SITE
from brainbrr_debug.spectral import THRESHOLD, condition_limit, error_limit, multiplicities, sample_of, wide
from brainbrr_debug.tracing.backward import Roots, engine_code, nodes_below, watched_engine
from brainbrr_debug.tracing.locations import Locator, Place

_sequence_number = torch._C._autograd._get_sequence_nr
QUANTITIES = ("gap", "amplification", "condition", "scaled", "smallest", "residual", "orthogonality")


@dataclasses.dataclass(slots=True, eq=False, kw_only=True)
class _Seen:
    """A call while the step still runs."""

    op: str
    operation: Operation
    place: Place
    site: str
    micro_batch: int
    samples: int | None
    shape: tuple[int, ...]
    dtype: torch.dtype
    facts: Facts
    finite: Tensor
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
        given = {} if operation is None else _bound(func, args, kwargs)
        place = None if operation is None else self._locator.place()
        if operation is None or place is None or not self._readable(given, place):
            return func(*args, **kwargs)
        with torch.no_grad():
            copies = {name: _copy(value) for name, value in given.items()}
        look = functools.partial(self._look, func, operation, place, given, copies, sequence - 1 if made else None)
        try:
            result = func(*args, **kwargs)
        except RuntimeError:
            look(None)
            raise
        look(result if isinstance(result, tuple) else (result,))
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
        copies: Mapping[str, Any],
        sequence: int | None,
        result: tuple[Any, ...] | None,
    ) -> None:
        dtype = next(x.dtype for x in given.values() if isinstance(x, Tensor) and x.dtype != torch.int32)  # no pivots
        with torch.no_grad():
            found = None if result is None else tuple(_copy(x) for x in result)
            facts, finite = facts_of(operation, copies, found, torch.finfo(dtype).eps)
            shape = tuple(operation.matrix(copies).shape)
        # a forward pass that runs in a backward pass belongs to the micro-batch before
        micro_batch = max(0, self.micro_batch - (torch._C._current_autograd_node() is not None))
        seen = _Seen(
            op=func._schema.name,
            operation=operation,
            place=place,
            site=place.module if place.module is not None else self.outside,
            micro_batch=micro_batch,
            samples=self._samples[micro_batch] if micro_batch < len(self._samples) else None,
            shape=shape,
            dtype=dtype,
            facts=facts,
            finite=finite,
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
    return wide(value).clone() if isinstance(value, Tensor) else value


def _plain(name: str) -> str:
    return name.replace("_", "").lower()


# What is wrong with it ----------------------------------------------------------------------------------------------


def _finished(seen: _Seen, *, fatal: bool) -> Call:
    order = max(seen.shape[-2:])
    condition, error = condition_limit(seen.dtype, order), error_limit(seen.dtype, order)
    limits = Limits(gap=THRESHOLD, condition=condition, error=error)
    matrices = _matrices(seen, limits, fatal=fatal)
    call = Call(
        op=seen.op,
        name=seen.operation.name,
        site=seen.site,
        location=seen.place.location or "",
        micro_batch=seen.micro_batch,
        shape=seen.shape,
        dtype=str(seen.dtype).removeprefix("torch."),
        limits=limits,
        gradient=tuple(sorted(seen.gradient)),
        divided_by_gaps=bool(seen.gradient & seen.operation.vectors),
        function=seen.place.function,
        recomputed=seen.place.recomputed,
        matrices=matrices,
        spectra={},
    )
    values = seen.facts.values.reshape(-1, seen.facts.values.shape[-1])
    return dataclasses.replace(
        call,
        spectra={
            name: tuple(_real(values[matrix.index]).tolist())
            for name, matrix in (("worst", call.worst), ("best", call.best))
            if matrix.finite
        },
    )


def _matrices(seen: _Seen, limits: Limits, *, fatal: bool) -> tuple[Matrix, ...]:
    facts, shape = seen.facts, seen.shape[:-2]
    columns = {name: x.reshape(-1).tolist() for name in QUANTITIES if (x := getattr(facts, name)) is not None}
    failed = facts.failed.reshape(-1).tolist() if facts.failed is not None else ()
    values = facts.values.reshape(-1, facts.values.shape[-1])
    found = []
    for index, finite in enumerate(seen.finite.reshape(-1).tolist()):
        numbers = {name: column[index] for name, column in columns.items()}
        grouped = facts.gap is not None and finite and not values.is_complex()
        beyond = _beyond(numbers, limits, finite=finite, failed=bool(failed and failed[index]))
        beyond = [name for name in beyond if name != "condition" or seen.operation.divides != "never"]
        found.append(
            Matrix(
                index=index,
                sample=sample_of(index, shape, seen.samples),
                finite=finite,
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
