"""Watches the nodes of every backward pass of a step: the one of the loss, and those inside a forward pass.

Every call of the autograd engine from Python goes through one function of torch. While a step is traced it is
replaced, and hooks are put on all nodes below the call's roots for the length of that call.
"""

from __future__ import annotations

import collections
import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.autograd.graph import GradientEdge, Node

from brainbrr_debug.tracing.events import Record
from brainbrr_debug.tracing.finiteness import INF, NAN, bad_elements, fill_finite_, kinds, values
from brainbrr_debug.tracing.locations import within_function
from brainbrr_debug.tracing.tracer import Tracer

Gradients = tuple[torch.Tensor | None, ...]
Roots = Sequence[torch.Tensor | GradientEdge]
Running = Callable[[Roots], contextlib.AbstractContextManager[None]]

_CHOICES = ("WhereB", "MaskedFillB", "MaskedScatterB", "MaskedSelectB", "IndexB", "NanToNumB", "MaximumB", "MinimumB")
_NEAR = 5
_MODULE_HOOK = "BackwardHookFunctionBackward"  # runs the full backward hooks of a module, and nothing of its own


class BackwardWatch:
    """Feeds a Tracer with the births in backward nodes."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._occurrences: collections.Counter[tuple[int, str]] = collections.Counter()
        self._nodes: list[Node] = []

    @contextlib.contextmanager
    def attached(self) -> Iterator[None]:
        """While inside, every backward pass is watched."""
        with watched_engine(self.running):
            yield

    @contextlib.contextmanager
    def running(self, roots: Roots) -> Iterator[None]:
        """Hooks on every node below `roots`, for one run of the engine."""
        tracer = self._tracer
        nodes = nodes_below(roots)
        if tracer.engine_depth and within_function(engine_code()) and not any(self._recomputed(node) for node in nodes):
            yield  # a part of the formula of that function's node: judged when the node is done
            return
        outer, outer_nodes = tracer.in_node, self._nodes
        self._nodes = nodes
        handles = [handle for node in self._nodes for handle in self._hook(node)]
        tracer.engine_depth += 1
        tracer.in_node = not tracer.intervention.between_nodes
        try:
            yield
        finally:
            tracer.engine_depth -= 1
            tracer.in_node, self._nodes = outer, outer_nodes
            for handle in handles:
                handle.remove()

    def _recomputed(self, node: Node) -> bool:
        record = self._record(node)
        return record is not None and record.recomputed

    def _hook(self, node: Node) -> Iterator[Any]:
        accumulates = node.name() == "torch::autograd::AccumulateGrad"
        hooked = node.name() == _MODULE_HOOK
        intervention = self._tracer.intervention

        def enter(gradients: Gradients) -> None:
            self._tracer.in_node = not (accumulates or hooked)
            self._place(node)

        def leave(produced: Gradients, received: Gradients) -> Gradients | None:
            self._tracer.in_node = not intervention.between_nodes
            if hooked:
                self._place(node)
            return self._judge(node, produced, received)

        if intervention.between_nodes:
            yield node.register_prehook(enter)
        if not accumulates and (intervention.names is None or node.name() in intervention.names):
            yield node.register_hook(leave)

    def _place(self, node: Node) -> None:
        """Births between nodes (a tensor hook, gradients added up) belong to the node that is about to run."""
        for event in self._tracer.unplaced:
            event.node = node.name()
            if isinstance(parameter := getattr(node, "variable", None), torch.Tensor):
                event.module = self._tracer.owner_of(parameter)
            elif (record := self._record(node)) is not None:
                event.module = record.module
                event.location = event.location or record.location
        self._tracer.unplaced.clear()

    def _record(self, node: Node) -> Record | None:
        return self._tracer.record_of(node._sequence_nr(), node.name())

    def _judge(self, node: Node, produced: Gradients, received: Gradients) -> Gradients | None:
        tracer = self._tracer
        if not tracer.intervention.looks_at(node.name(), tracer.index):
            return None
        with tracer.aside():
            out_kinds = _kinds(produced)
            if not out_kinds:
                return None
            in_kinds = _kinds(received)
            parents = tracer.lineage_of(*_tensors(received))
            born = NAN | INF if not in_kinds else (NAN if in_kinds == INF else 0)
            if not out_kinds & born:
                for tensor in _tensors(produced):
                    tracer.reach(tensor, parents)
                return None
            record = self._record(node)
            identity = (record.index if record else -1, node.name())
            self._occurrences[identity] += 1
            event = tracer.backward_event(
                node=node.name(),
                occurrence=self._occurrences[identity],
                record=record,
                found=out_kinds & born,
                count=sum(int(bad_elements(p, born).sum()) for t in _tensors(produced) for p in values(t)),
                parents=parents,
            )
            if tracer.collector is not None and event.key == tracer.watched:
                tracer.collector.note_gradients(
                    _tensors(received), _tensors(produced), chosen_among=_chosen_among(node, self._nodes)
                )
            for tensor in _tensors(produced):
                if kinds(tensor):
                    tracer.reach(tensor, event.lineage)
        if not event.patched:
            return None
        with torch._C._DisableTorchDispatch():
            return tuple(_patched(tensor, born) if tensor is not None else None for tensor in produced)


@contextlib.contextmanager
def watched_engine(running: Running) -> Iterator[None]:
    """While inside, every run of the autograd engine from Python goes on within `running(roots)`."""
    engine = torch.autograd._engine_run_backward  # type: ignore[attr-defined]

    def run(roots: Any, *args: Any, **kwargs: Any) -> Any:
        return _run_engine(engine, running, roots, args, kwargs)

    torch.autograd._engine_run_backward = run  # type: ignore[attr-defined, assignment]
    try:
        yield
    finally:
        torch.autograd._engine_run_backward = engine  # type: ignore[attr-defined]


def engine_code() -> Any:
    """The code object that marks the start of a backward pass on the stack."""
    return _run_engine.__code__


def _run_engine(engine: Callable[..., Any], running: Running, roots: Any, args: Any, kwargs: Any) -> Any:
    with running(roots):
        return engine(roots, *args, **kwargs)


def nodes_below(roots: Roots) -> list[Node]:
    """Every node of the autograd graph that a backward pass from `roots` may run."""
    pending = [root.node if isinstance(root, GradientEdge) else root.grad_fn for root in roots]
    seen: dict[Node, None] = {}
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen[node] = None
        pending.extend(following for following, _ in node.next_functions)
    return list(seen)


def _chosen_among(node: Node, nodes: Sequence[Node]) -> bool:
    """Whether the result of the node's operation went, within a few operations, into one that picks elements."""
    front = {node}
    for _ in range(_NEAR):
        front = {n for n in nodes if any(following in front for following, _ in n.next_functions)}
        if any(n.name().startswith(_CHOICES) for n in front):
            return True
    return False


def _tensors(gradients: Gradients) -> list[torch.Tensor]:
    return [tensor for tensor in gradients if tensor is not None]


def _kinds(gradients: Gradients) -> int:
    found = 0
    for tensor in _tensors(gradients):
        found |= kinds(tensor)
    return found


def _patched(tensor: torch.Tensor, born: int) -> torch.Tensor:
    """`tensor` with its bad elements zero; differentiable where the engine was asked to record a graph."""
    if not kinds(tensor) & born:
        return tensor
    if torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        return torch.where(torch.isfinite(tensor), tensor, torch.zeros_like(tensor))
    if tensor.layout == torch.strided:
        return torch.where(bad_elements(tensor, born), torch.zeros_like(tensor), tensor)
    with torch.no_grad():
        copy = tensor.clone()
        for part in values(copy):
            fill_finite_(part, bad_elements(part, born), "zero")
        return copy
