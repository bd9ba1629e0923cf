"""The signal of a culprit, read from its capture and reduced to what a picture needs. Imports no torch.

Letters: B samples of a micro-batch, C channels, L length.
"""

from __future__ import annotations

import dataclasses
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from brainbrr_debug.sealed import CaptureError, opened
from brainbrr_debug.sentence import electrodes_apart, sample_name

COLUMNS = 480
QUANTILE = 0.99
"""A channel's row is as high as this share of all values lies off their channel's median."""
CLIP = 1.6
"""In heights of a row: what lies farther off is cut off."""

Array = np.ndarray[Any, np.dtype[Any]]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """What a channel does in one column of the picture, in heights of a row off its median; `lost`: not all finite."""

    low: float
    high: float
    lost: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """One sample: `channels` by name, their `columns`, `unit` the height of a row; `beyond` values are cut off.

    `start` and `stop` are the ends of the axis, in seconds where `seconds` says so, else in samples; `span` is the
    stretch that suffices, on the same axis.
    """

    title: str
    channels: tuple[str, ...]
    columns: tuple[tuple[Column | None, ...], ...]
    unit: float
    beyond: int
    start: float
    stop: float
    seconds: bool
    span: tuple[float, float] | None
    marked: tuple[str, ...]


def signals_of(path: Path, verdict: Mapping[str, Any]) -> tuple[Signal, ...]:
    """The samples that a verdict names, out of the capture at `path`.

    Raises CaptureError for a file that is no capture, damaged, or a copy without its signal.
    """
    names = [str(name) for name in verdict.get("details", {}).get("channels", ())]
    return tuple(_drawn(_sample(path, sample), sample, names) for sample in verdict["samples"])


def _drawn(values: Array, sample: Mapping[str, Any], names: Sequence[str]) -> Signal:
    """`values` (C, L)."""
    count, length = values.shape
    channels = tuple(names) if len(names) == count else tuple(f"channel {row}" for row in range(count))
    kept = np.where(np.isfinite(values), values, np.nan)
    middle = np.array([np.nanmedian(row) if np.isfinite(row).any() else 0.0 for row in kept])
    centred = kept - middle[:, None]
    sizes = np.abs(centred[np.isfinite(centred)])
    unit = float(np.quantile(sizes, QUANTILE)) if sizes.size else 0.0
    unit = unit or float(sizes.max(initial=0.0)) or 1.0
    seconds = {"start_s", "stop_s"} <= sample.keys()
    start, stop = (float(sample["start_s"]), float(sample["stop_s"])) if seconds else (0.0, float(length))
    span = sample.get("span")
    ends = ("start_s", "stop_s") if seconds else ("start", "stop")
    return Signal(
        title=sample_name(sample),
        channels=channels,
        columns=tuple(tuple(_columns(row / unit)) for row in centred),
        unit=unit,
        beyond=int((sizes > CLIP * unit).sum()),
        start=start,
        stop=stop,
        seconds=seconds,
        span=(float(span[ends[0]]), float(span[ends[1]])) if span and ends[0] in span else None,
        marked=electrodes_apart(sample, count),
    )


def _columns(row: Array) -> Iterator[Column | None]:
    """Lowest and highest value of each column of (L,); None where it holds nothing finite."""
    count = min(COLUMNS, len(row))
    for place in range(count):
        part = row[place * len(row) // count : (place + 1) * len(row) // count]
        finite = part[np.isfinite(part)]
        lost = finite.size < part.size
        yield Column(low=float(finite.min()), high=float(finite.max()), lost=lost) if finite.size else None


# Reading ------------------------------------------------------------------------------------------------------------


def _sample(path: Path, sample: Mapping[str, Any]) -> Array:
    """(C, L) of the first input of the sample, float64."""
    with opened(path) as (file, document):
        batches = _items(document["trees"]["micro_batches"])
        node = next(_tensors(_items(batches[sample.get("micro_batch", 0)])[0]), None)
        if node is None or "meta" in node:
            what = "no tensor among its inputs" if node is None else "shapes only: it was made with --strip-signal"
            raise CaptureError(f"{path}: holds {what}; there is no signal to show")
        values = _values(path, file, document["tensors"][node["tensor"]])[sample["index"]]
    if values.ndim not in (1, 2):
        raise CaptureError(f"{path}: a sample has the shape {values.shape}; expected channels × time to show a signal")
    return np.atleast_2d(values).astype(np.float64)


def _items(node: Mapping[str, Any]) -> list[Any]:
    return list(node["tuple"] if "tuple" in node else node["list"])


def _tensors(node: Any) -> Iterator[Mapping[str, Any]]:
    """The leaves of a tree of a capture's document that are tensors, or were."""
    if not isinstance(node, dict):
        return
    if "tensor" in node or "meta" in node:
        yield node
    for kind in ("tuple", "list"):
        for value in node.get(kind, ()):
            yield from _tensors(value)
    for kind in ("dict", "ordered", "counter"):
        for _, value in node.get(kind, ()):
            yield from _tensors(value)


def _values(path: Path, file: Any, row: Mapping[str, Any]) -> Array:
    """A tensor by its row of the table, its checksum checked."""
    if "bytes" in row:
        data: Array = np.frombuffer(bytes.fromhex(row["bytes"]), np.uint8)
        data = data.view(_DTYPES.get(row["dtype"], row["dtype"]))
    else:
        data = file["tensors"][row["dataset"]][()]
        if zlib.crc32(data.data) != row["crc"]:
            raise CaptureError(f"{path}: changed since it was written: dataset {row['dataset']!r} fails its checksum")
    if row["dtype"] == "bfloat16":
        data = (data.astype(np.uint32) << 16).view(np.float32)
    elif data.dtype.kind != "f":
        raise CaptureError(
            f"{path}: its first input is of {row['dtype']}; expected floating-point numbers for a signal"
        )
    return _arranged(data, row["shape"], row["stride"])


_DTYPES = {"bfloat16": "uint16"}


def _arranged(flat: Array, shape: Sequence[int], stride: Sequence[int]) -> Array:
    """Elements in memory order under their indices; where strides left gaps they were stored in index order."""
    order = sorted(range(len(shape)), key=lambda axis: (-stride[axis], -shape[axis]))
    dense = all(
        stride[axis] == math.prod(shape[other] for other in order[place + 1 :])
        for place, axis in enumerate(order)
        if shape[axis] > 1
    )
    if not dense:
        return flat.reshape(shape)
    return flat.reshape([shape[axis] for axis in order]).transpose(np.argsort(order))
