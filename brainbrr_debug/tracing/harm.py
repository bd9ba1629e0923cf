"""What counts as harmful at the end of a step, and what does not.

Harmful: the loss, a parameter, an optimizer state or a buffer in use ends the step non-finite and was not so before
it; an exception that a non-finite value caused. A gradient is not: what the optimizer discards does no harm.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch

from brainbrr_debug.tracing.finiteness import NAN, bad_elements, kinds, values
from brainbrr_debug.tracing.memento import Memento, storage_key

What = Literal["loss", "output", "gradient", "parameter", "optimizer state", "buffer", "exception", "memory"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Symptom:
    """One harmful thing that a step ended with; `tensor` where it is one, `found` its kinds of bad value."""

    what: What
    name: str
    found: int = 0
    tensor: torch.Tensor | None = None


def parameters_of(model: object, optimizer: object) -> dict[str, torch.Tensor]:
    """Parameters by qualified name; those that only the optimizer holds by group and place."""
    found: dict[str, torch.Tensor] = {}
    if isinstance(model, torch.nn.Module):
        found.update(model.named_parameters())
    known = {id(tensor) for tensor in found.values()}
    for optimizer_ in optimizers_in(optimizer):
        for g, group in enumerate(getattr(optimizer_, "param_groups", ())):
            for p, tensor in enumerate(group.get("params", ()) if isinstance(group, Mapping) else ()):
                if isinstance(tensor, torch.Tensor) and id(tensor) not in known:
                    found[f"param_groups.{g}.{p}"] = tensor
    return found


def buffers_of(model: object) -> dict[str, torch.Tensor]:
    """Buffers by qualified name."""
    return dict(model.named_buffers()) if isinstance(model, torch.nn.Module) else {}


def states_of(model: object, optimizer: object) -> dict[str, torch.Tensor | float]:
    """Tensors and floats in the optimizer's state, as "parameter name.key"."""
    names = {id(tensor): name for name, tensor in parameters_of(model, optimizer).items()}
    found: dict[str, torch.Tensor | float] = {}
    for optimizer_ in optimizers_in(optimizer):
        state = getattr(optimizer_, "state", None)
        if isinstance(state, Mapping):
            for key, value in state.items():
                found.update(_leaves(value, names.get(id(key), str(key) if not _is_tensor(key) else "parameter")))
    return found


def optimizers_in(thing: object) -> list[object]:
    """`thing` itself and the torch optimizers that its attributes hold (a wrapper, say one that scales the loss)."""
    found = [thing]
    attributes = getattr(thing, "__dict__", {})
    for value in list(attributes.values()):
        for inner in value if isinstance(value, (list, tuple)) else (value,):
            if isinstance(inner, torch.optim.Optimizer) and inner is not thing:
                found.append(inner)
    return found


def nan_floats(model: object, optimizer: object) -> frozenset[str]:
    """Names of plain floats in the optimizer's state that are NaN."""
    states = states_of(model, optimizer).items()
    return frozenset(name for name, value in states if isinstance(value, float) and value != value)


def symptoms_of_state(
    model: object, optimizer: object, start: Memento, known: frozenset[str] = frozenset()
) -> list[Symptom]:
    """Parameters, optimizer states and buffers with elements that are bad now and were not at `start`.

    A plain float in the optimizer's state counts when it is NaN and its name is not among the `known` ones.
    """
    found: list[Symptom] = []
    named: list[tuple[What, Mapping[str, Any]]] = [
        ("parameter", parameters_of(model, optimizer)),
        ("optimizer state", states_of(model, optimizer)),
        ("buffer", buffers_of(model)),
    ]
    for what, things in named:
        for name, thing in things.items():
            if isinstance(thing, torch.Tensor):
                if newly := new_kinds(thing, start):
                    found.append(Symptom(what=what, name=name, found=newly, tensor=thing))
            elif thing != thing and name not in known:
                found.append(Symptom(what=what, name=name, found=NAN))
    return found


def new_kinds(tensor: torch.Tensor, start: Memento) -> int:
    """Kinds of bad value in elements of `tensor` that were finite at `start`."""
    now = kinds(tensor)
    if not now or (past := start.before(tensor)) is None or not kinds(past):
        return now
    part = values(tensor)[0]
    fresh = bad_elements(part) & ~bad_elements(values(past)[0])
    return kinds(part[fresh]) if bool(fresh.any()) else 0


def in_use(symptom: Symptom, name_to_start: Mapping[str, torch.Tensor], read: set[int]) -> bool:
    """Whether anything read the buffer of `symptom` in the step: what it is now, or what it was at the start."""
    start = name_to_start.get(symptom.name)
    memories = [tensor for tensor in (symptom.tensor, start) if tensor is not None]
    return any(storage_key(tensor) in read for tensor in memories)


def _is_tensor(thing: object) -> bool:
    return isinstance(thing, torch.Tensor)


def _leaves(value: Any, prefix: str) -> Iterator[tuple[str, torch.Tensor | float]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, f"{prefix}.{key}")
    elif isinstance(value, (list, tuple)):
        for place, inner in enumerate(value):
            yield from _leaves(inner, f"{prefix}.{place}")
    elif isinstance(value, (torch.Tensor, float)):
        yield prefix, value
