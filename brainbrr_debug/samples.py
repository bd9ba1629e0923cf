"""Altered batches: samples, whole batches and time spans replaced by healthy material.

Letters: B samples of a micro-batch, C channels, L length. A sample is a (micro-batch, index) pair. Everything along the
first axis of inputs and target belongs to the samples; a tensor whose first axis is not B long is shared by them and
stays as it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from brainbrr_debug.subject import Batch

Sample = tuple[int, int]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A stretch [start, stop) of the last axis of one sample of the first input tensor, in some `channels` of the axis
    before it; without any, in all of them.
    """

    sample: Sample
    start: int
    stop: int
    channels: tuple[int, ...] = ()


class SamplesError(ValueError):
    """Why batches cannot be taken apart into samples."""


def batch_size(batch: Batch) -> int | None:
    """B: the first axis that the first input tensor has in common with everything of at least one axis; else None."""
    tensors = [x for x in tree_leaves(batch[0]) if isinstance(x, torch.Tensor) and x.dim() > 0]
    return int(tensors[0].shape[0]) if tensors else None


def samples_of(batches: Sequence[Batch]) -> tuple[Sample, ...]:
    """Every sample in order. Raises SamplesError when a batch has no first axis."""
    sizes = [batch_size(batch) for batch in batches]
    if any(size is None for size in sizes):
        raise SamplesError("the inputs hold no tensor with a first axis, so there are no samples to take apart")
    return tuple((place, index) for place, size in enumerate(sizes) for index in range(size or 0))


def replaceable(captured: Sequence[Batch], healthy: Sequence[Batch] | None) -> str | None:
    """Why samples cannot be replaced by healthy ones; None when they can."""
    if not healthy:
        return "the capture holds no healthy batch"
    for place, batch in enumerate(captured):
        ours, theirs = _tensors(batch), _tensors(healthy[place % len(healthy)])
        if len(ours) != len(theirs):
            return f"the healthy batch holds {len(theirs)} tensors and the captured one {len(ours)}"
        for mine, other in zip(ours, theirs, strict=True):
            if mine.shape[1:] != other.shape[1:] or mine.dtype != other.dtype:
                return f"a healthy sample is {tuple(other.shape[1:])} and a captured one {tuple(mine.shape[1:])}"
    return None


def keep_samples(
    captured: Sequence[Batch], healthy: Sequence[Batch] | None, keep: Collection[Sample]
) -> tuple[Batch, ...]:
    """The captured micro-batches with every sample outside `keep` replaced by a healthy one, in turn.

    Without healthy ones (None) they are dropped, and with them the micro-batches that lose all their samples.
    """
    result = []
    for place, batch in enumerate(captured):
        size = batch_size(batch) or 0
        kept = [index for index in range(size) if (place, index) in keep]
        if healthy is None:
            if kept:
                result.append(_merge(batch, batch, _rows_kept(kept)))
            continue
        gone = [index for index in range(size) if index not in kept]
        spare = healthy[place % len(healthy)]
        result.append(_merge(batch, spare, _rows_replaced(gone, batch_size(spare) or 0)))
    return tuple(result)


def replace_spans(captured: Sequence[Batch], healthy: Sequence[Batch], spans: Collection[Span]) -> tuple[Batch, ...]:
    """The captured micro-batches with the spans of the first input tensor taken from healthy samples."""
    result = list(captured)
    for span in spans:
        place, index = span.sample
        inputs, structure = tree_flatten(result[place][0])
        spare = _tensors(healthy[place % len(healthy)])[0]
        first = _first(inputs)
        altered = inputs[first].clone()
        mine, other = altered[index], spare[index % spare.shape[0]]
        rows: Any = (..., list(span.channels)) if span.channels else (...,)
        mine[(*rows, slice(span.start, span.stop))] = other[(*rows, slice(span.start, span.stop))].to(mine.device)
        inputs[first] = altered
        result[place] = (tree_unflatten(inputs, structure), result[place][1])
    return tuple(result)


def signal_of(batches: Sequence[Batch], sample: Sample) -> torch.Tensor | None:
    """The sample's part of the first input tensor when that is a real signal of at least one axis beyond B."""
    inputs = tree_leaves(batches[sample[0]][0])
    tensors = [x for x in inputs if isinstance(x, torch.Tensor) and x.dim() > 0]
    if not tensors or not tensors[0].is_floating_point() or tensors[0].dim() < 2:
        return None
    return tensors[0][sample[1]]


def _merge(batch: Batch, spare: Batch, merge: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Batch:
    size = batch_size(batch)
    leaves, structure = tree_flatten(batch)
    others = iter(_tensors(spare))
    merged: list[Any] = []
    for leaf in leaves:
        if not isinstance(leaf, torch.Tensor) or leaf.dim() == 0:
            merged.append(leaf)
            continue
        other = next(others)
        merged.append(merge(leaf, other) if leaf.shape[0] == size else leaf)
    result: Batch = tree_unflatten(merged, structure)
    return result


def _rows_kept(kept: Sequence[int]) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    return lambda mine, other: mine[list(kept)]


def _rows_replaced(gone: Sequence[int], spares: int) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    def merge(mine: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        if not gone:
            return mine
        merged = mine.clone()
        merged[list(gone)] = other[[index % spares for index in gone]].to(mine.device)
        return merged

    return merge


def _tensors(batch: Batch) -> list[torch.Tensor]:
    return [x for x in tree_leaves(batch) if isinstance(x, torch.Tensor) and x.dim() > 0]


def _first(leaves: Sequence[Any]) -> int:
    return next(place for place, x in enumerate(leaves) if isinstance(x, torch.Tensor) and x.dim() > 0)
