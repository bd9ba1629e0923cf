"""Which elements of an operation's result became non-finite *in* it.

A birth is a transition of kind: finite → inf, finite → NaN, inf → NaN. Where an input was already bad elsewhere, the
operation is computed once more with those elements made finite (and once with only the NaN made finite), so that a
birth behind somebody else's harmless NaN is seen as well.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.utils._pytree import tree_leaves, tree_map

from brainbrr_debug.tracing.finiteness import INF, NAN, bad_elements, is_finite_number, kinds, values

_OVERWRITES = frozenset({
    "copy_", "fill_", "zero_", "uniform_", "normal_", "bernoulli_", "random_", "exponential_", "geometric_",
    "cauchy_", "log_normal_", "eye_", "set_",
})  # fmt: skip
_FILLS = frozenset({
    "full", "full_like", "new_full", "fill", "fill_", "masked_fill", "masked_fill_", "where", "scalar_tensor",
    "constant_pad_nd", "index_fill", "index_fill_", "clamp", "clamp_", "clamp_min", "clamp_min_", "clamp_max",
    "clamp_max_", "nan_to_num", "nan_to_num_",
})  # fmt: skip
_UNINITIALISED = frozenset({
    "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "empty_permuted", "resize_",
    "resize_as_",
})  # fmt: skip
_UNDECLARED = frozenset({"running_mean", "running_var"})  # batch norms write to these and do not say so
_TRANSPORTS = frozenset({  # move elements about and compute nothing with them
    "clone", "copy_", "cat", "stack", "index", "index_select", "gather", "repeat", "flip", "roll", "neg", "abs", "relu",
    "threshold_backward", "embedding", "select_backward", "slice_backward", "triu", "tril", "contiguous", "new_zeros",
})  # fmt: skip
_STAND_IN = 0.5  # inside every domain, and nobody's neutral element


@dataclasses.dataclass(frozen=True, slots=True)
class Signature:
    """What tracing needs to know about an operator: computed once from its schema."""

    name: str
    mutated: tuple[tuple[int | None, str], ...]  # (position or None when keyword-only, name)
    overwritten: bool  # mutated arguments are written without being read
    view: bool
    random: bool
    fill: bool
    uninitialised: bool
    transport: bool


@dataclasses.dataclass(slots=True)
class Births:
    """Result tensors with the mask of elements born bad in each, and whether it was on purpose.

    `found` are the kinds in the first of them: later results are by-products, parts of which nobody may have written.
    """

    masks: list[tuple[torch.Tensor, torch.Tensor]]
    found: int
    deliberate: bool

    @property
    def count(self) -> int:
        """How many elements were born bad."""
        return sum(int(mask.sum()) for _, mask in self.masks)


def signature(func: Any) -> Signature:
    """The signature of a dispatched operator; a higher-order one (attention with a function, cond) has no schema."""
    schema = getattr(func, "_schema", None)
    if schema is None:
        return Signature(
            name=f"higher_order::{func.name()}", mutated=(), overwritten=False, view=False, random=True, fill=False,
            uninitialised=False, transport=False,
        )  # fmt: skip
    name = schema.name
    short = name.partition("::")[2]
    mutated = [
        (None if argument.kwarg_only else position, argument.name)
        for position, argument in enumerate(schema.arguments)
        if (argument.alias_info is not None and argument.alias_info.is_write) or argument.name in _UNDECLARED
    ]
    out_variant = bool(mutated) and all(position is None for position, _ in mutated)
    view = not mutated and any(result.alias_info is not None for result in schema.returns)
    return Signature(
        name=name,
        mutated=tuple(mutated),
        overwritten=out_variant or short in _OVERWRITES,
        view=view or short in ("_unsafe_view", "detach", "alias", "lift_fresh", "_reshape_alias"),
        random=torch.Tag.nondeterministic_seeded in func.tags,
        fill=short in _FILLS,
        uninitialised=short in _UNINITIALISED,
        transport=short in _TRANSPORTS,
    )


def tensors_in(tree: Any) -> list[torch.Tensor]:
    """Every tensor in a nest of containers."""
    if isinstance(tree, torch.Tensor):
        return [tree]
    if type(tree) in (tuple, list):
        return [tensor for inner in tree for tensor in tensors_in(inner)]
    if type(tree) is dict:
        return [tensor for inner in tree.values() for tensor in tensors_in(inner)]
    if tree is None or isinstance(tree, (int, float, str, torch.dtype, torch.device)):
        return []
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def mutated_arguments(sign: Signature, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[torch.Tensor]:
    """The tensors that the operator writes to."""
    found: list[torch.Tensor] = []
    for position, name in sign.mutated:
        if position is not None and position < len(args):
            found.extend(tensors_in(args[position]))
        elif name in kwargs:
            found.extend(tensors_in(kwargs[name]))
    return found


def find_births(
    func: Callable[..., Any],
    sign: Signature,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    bad_outputs: Sequence[tuple[int, torch.Tensor]],
    past: dict[int, torch.Tensor],
    read_out: int = 0,
) -> Births | None:
    """The births among `bad_outputs` (place among all output tensors, tensor), or None.

    `past` maps the id of a mutated argument to a copy of what it held before. `read_out` are the kinds of number that
    the program has read out of bad tensors before (`.item()`): such a number among the arguments is nobody's birth.
    """
    if sign.transport:
        return None
    inputs = list(_inputs(sign, args, kwargs, past))
    tensor_kinds = 0
    for tensor in inputs:
        tensor_kinds |= kinds(tensor)
    scalar_kinds = scalar_kinds_in((args, kwargs))
    deliberate = sign.uninitialised or (sign.fill and bool(scalar_kinds))
    if not tensor_kinds and not scalar_kinds & read_out:
        born = births_of(bad_outputs, NAN | INF, deliberate)
        if born is not None and scalar_kinds and not born.found & NAN:
            born.deliberate = True  # somebody wrote x - inf
        return born
    found: dict[int, torch.Tensor] = {}
    input_kinds = tensor_kinds | scalar_kinds
    hidden = not sign.random and not any(_all_nan(tensor) for tensor in inputs)
    if not input_kinds & NAN:
        _merge(found, {place: bad_elements(part, NAN) for place, part in _parts(bad_outputs)})
    elif input_kinds & INF and hidden:
        _merge(found, _recompute(func, sign, args, kwargs, bad_outputs, past, replaced=NAN))
    if tensor_kinds and hidden:
        _merge(found, _recompute(func, sign, args, kwargs, bad_outputs, past, replaced=NAN | INF))
    return _births_from(bad_outputs, found)


def _inputs(
    sign: Signature, args: tuple[Any, ...], kwargs: dict[str, Any], past: dict[int, torch.Tensor]
) -> Iterator[torch.Tensor]:
    """What the operator read: arguments as they were before, without those that it only overwrote."""
    mutated = {id(tensor) for tensor in mutated_arguments(sign, args, kwargs)}
    for tensor in tensors_in((args, kwargs)):
        if id(tensor) not in mutated:
            yield tensor
        elif not sign.overwritten and id(tensor) in past:
            yield past[id(tensor)]


def scalar_kinds_in(tree: Any) -> int:
    """The kinds of non-finite Python number among the leaves of a nest."""
    if isinstance(tree, (float, complex)):
        return 0 if is_finite_number(tree) else (NAN if tree != tree else INF)
    found = 0
    if type(tree) in (tuple, list, dict):
        for inner in tree.values() if type(tree) is dict else tree:
            found |= scalar_kinds_in(inner)
    return found


def _parts(outputs: Sequence[tuple[int, torch.Tensor]]) -> Iterator[tuple[int, torch.Tensor]]:
    for place, tensor in outputs:
        for part in values(tensor)[:1]:
            yield place, part


def births_of(outputs: Sequence[tuple[int, torch.Tensor]], which: int, deliberate: bool) -> Births | None:
    """All elements of the kinds `which` among the outputs (place, tensor), as births."""
    masks = {place: bad_elements(part, which) for place, part in _parts(outputs)}
    return _births_from(outputs, masks, deliberate)


def _births_from(
    outputs: Sequence[tuple[int, torch.Tensor]], masks: dict[int, torch.Tensor], deliberate: bool = False
) -> Births | None:
    kept: list[tuple[torch.Tensor, torch.Tensor]] = []
    found = 0
    for place, part in _parts(outputs):
        mask = masks.get(place)
        if mask is None or not bool(mask.any()):
            continue
        kept.append((part, mask))
        readable = part.float() if part.dtype.itemsize == 1 else part
        found = found or kinds(readable[mask])
    return Births(kept, found, deliberate) if kept else None


def _all_nan(tensor: torch.Tensor) -> bool:
    """Nothing can hide behind a tensor that is NaN throughout: it decides every element of the result."""
    return any(part.numel() > 0 and bool(bad_elements(part, NAN).all()) for part in values(tensor))


def _merge(into: dict[int, torch.Tensor], masks: dict[int, torch.Tensor]) -> None:
    for place, mask in masks.items():
        into[place] = into[place] | mask if place in into else mask


def _recompute(
    func: Callable[..., Any],
    sign: Signature,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    bad_outputs: Sequence[tuple[int, torch.Tensor]],
    past: dict[int, torch.Tensor],
    replaced: int,
) -> dict[int, torch.Tensor]:
    """Masks of elements still bad when the inputs' bad elements of the kinds `replaced` are made finite."""

    def clean(leaf: Any) -> Any:
        if isinstance(leaf, float) and not is_finite_number(leaf):
            return _STAND_IN if replaced & (NAN if leaf != leaf else INF) else leaf
        if not isinstance(leaf, torch.Tensor):
            return leaf
        copy = past.get(id(leaf), leaf).clone()
        for part in values(copy):
            mask = bad_elements(part, replaced)
            if bool(mask.any()):
                part.copy_(torch.where(mask, torch.full_like(part, _STAND_IN), part))
        return copy

    new_args, new_kwargs = tree_map(clean, (args, kwargs))
    try:
        result = func(*new_args, **new_kwargs)
    except RuntimeError:  # the stand-in does not suit the operator: nothing can be said
        return {}
    outputs = [*tensors_in(result), *mutated_arguments(sign, new_args, new_kwargs)]
    masks: dict[int, torch.Tensor] = {}
    for place, tensor in bad_outputs:
        again = values(outputs[place]) if place < len(outputs) else ()
        now = values(tensor)
        if again and now and again[0].shape == now[0].shape:
            which = NAN if replaced == NAN else NAN | INF
            masks[place] = bad_elements(again[0], which) & bad_elements(now[0], which)
    return masks
