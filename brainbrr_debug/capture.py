"""The capture: one HDF5 file from which a training step can be repeated bit for bit. No pickle inside.

Layout, schema 1:

    /                 attributes: format, schema, digest (BLAKE2b of the document)
    /document         JSON, UTF-8 bytes: everything that is not a tensor, trees with places for tensors, and a table of
                      all tensors (dataset, dtype, shape, strides, CRC-32 of the bytes)
    /tensors/…        one dataset a tensor, named by its place; the element type is the nearest HDF5 has, so that h5ls
                      and h5dump show numbers (bfloat16 and float8 appear as unsigned integers of their size)

Tensors of up to 64 bytes (an optimizer's step counters) stand in the table itself. The document's digest covers the
table, the table's checksums cover the datasets: a file in which anything changed is refused.

In front of the HDF5 part stands the CRC-32 of all of it: the library can loop for ever on a damaged structure, so
damage has to be seen before it opens the file.

Nothing is compressed: lzf and gzip 1 (shuffled) make weights, moments and float32 signals smaller by 6 to 16 % and take
7 to 16 times as long to write; as it is a capture takes 1.4 times as long as `torch.save` and fsync of the same trees.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from brainbrr_debug.errors import CannotRunHere
from brainbrr_debug.lead import LeadStep
from brainbrr_debug.records import Finding, Reading, Severity, dumps, number
from brainbrr_debug.rng import RngState
from brainbrr_debug.rundir import atomic_path
from brainbrr_debug.sealed import FORMAT, SCHEMA, SEAL, CaptureError, digest, opened, seal
from brainbrr_debug.subject import Batch, Run
from brainbrr_debug.tensors import TreeWriter, from_bytes, leaves, read_tree, to_bytes
from brainbrr_debug.training_state import Restored, TrainingState, load_state

INLINE = 64  # bytes


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CaptureContent:
    """A step as it began, and what came of it.

    `identities` says for every sample of every micro-batch where it comes from; empty where the program did not say.
    `healthy_micro_batches` are those of recent healthy steps, the latest step first. Model, optimizer and extra state,
    generators and batches are those of the step's start. `expected` is the step's `fingerprint.fingerprint`, which a
    repeat must reproduce, None of its numbers where the step did not get so far.

    Where the damage is older than the step, `lead_in` holds the steps since the last snapshot, the earliest first; the
    three states are then those of its first step, and playing it leads to the start of the captured step.
    """

    step: int
    subject: str
    seed: int
    config: dict[str, Any]
    environment: dict[str, Any]
    finding: Finding
    micro_batches: tuple[Batch, ...]
    healthy_micro_batches: tuple[Batch, ...] | None
    identities: tuple[tuple[dict[str, Any], ...], ...]
    healthy_identities: tuple[tuple[dict[str, Any], ...], ...]
    model_state: dict[str, Any]
    optimizer_state: dict[str, Any]
    extra_state: dict[str, Any]
    rng: RngState
    readings: tuple[Reading, ...]
    expected: dict[str, Any]
    lead_in: tuple[LeadStep, ...] = ()


_TREES = ("micro_batches", "healthy_micro_batches", "model_state", "optimizer_state", "extra_state")
_PLAIN = ("step", "subject", "seed", "config", "environment", "identities", "healthy_identities", "expected")


def restore(content: CaptureContent, run: Run, *, strict: bool = True, rng: bool = True) -> Restored:
    """Put `run` where the captured step began: model, optimizer, extra state and, with `rng`, all generators.

    Captured tensors are copied. Raises StateError when `strict` and model or optimizer do not fit; see `load_state`;
    and CannotRunHere for a copy without its signal.
    """
    require_signal(content)
    state = TrainingState(model=content.model_state, optimizer=content.optimizer_state, extra=content.extra_state)
    restored = load_state(state, run.model, run.optimizer, run.extra_state, strict=strict)
    if rng:
        content.rng.restore()
    return restored


def is_stripped(content: CaptureContent) -> bool:
    """Whether of the batches only shapes are left, see `strip`."""
    return any(x.is_meta for x in leaves(content.micro_batches))


def require_signal(content: CaptureContent) -> None:
    """Raises CannotRunHere for a copy without its signal."""
    if is_stripped(content):
        raise CannotRunHere(
            "this copy was made with --strip-signal: it holds shapes and no batch, so its step can be looked at, not "
            "repeated; ask whoever made it for the whole capture"
        )


# Writing ------------------------------------------------------------------------------------------------------------


def write_capture(path: str | Path, content: CaptureContent) -> Path:
    """Write `content` to `path`, which appears only when it is complete and synced; returns it.

    Raises CaptureError when something in it is not plain data (naming what and where) or the disk refuses.
    """
    path = Path(path)
    try:
        document, tensors = _document(content)
        with atomic_path(path) as temporary:
            with h5py.File(temporary, "w", libver="v110", userblock_size=SEAL) as file:
                group = file.create_group("tensors")
                table = [_store(group, index, name, x) for index, (name, x) in enumerate(tensors)]
                text = dumps({**document, "tensors": table}).encode()
                file.create_dataset("document", data=np.frombuffer(text, np.uint8))
                file.attrs.update(format=FORMAT, schema=SCHEMA, digest=digest(text))
            seal(temporary)
    except TypeError as error:  # TreeError, or a configuration value that JSON cannot hold
        raise CaptureError(f"{path}: cannot be captured: {error}") from error
    except OSError as error:
        raise CaptureError(f"{path}: cannot be written: {' '.join(str(error).split())}") from error
    return path


def _document(content: CaptureContent) -> tuple[dict[str, Any], list[tuple[str, Tensor]]]:
    writer = TreeWriter()
    trees = {name: writer.write(getattr(content, name), name) for name in _TREES}
    trees["lead_in"] = writer.write([step.to_tree() for step in content.lead_in], "lead_in")
    plain = {name: getattr(content, name) for name in _PLAIN}
    records = {"finding": content.finding, "readings": content.readings, "rng": content.rng.to_dict()}
    return {"plain": plain, "trees": trees, **records}, writer.tensors


def digest_of(content: CaptureContent) -> str:
    """What a capture of `content` is known by: the same text for the same content, wherever it is written."""
    document, tensors = _document(content)
    table = [_row(index, name, x)[0] for index, (name, x) in enumerate(tensors)]
    return digest(dumps({**document, "tensors": table}).encode())


def _store(group: Any, index: int, name: str, x: Tensor) -> dict[str, Any]:
    """Write one tensor and return its row of the table."""
    row, data = _row(index, name, x)
    if "dataset" in row:
        group.create_dataset(row["dataset"], data=data.view(_element(x.dtype)))
    return row


def _row(index: int, name: str, x: Tensor) -> tuple[dict[str, Any], np.ndarray[Any, Any]]:
    """A tensor's row of the table, and its bytes."""
    data = to_bytes(x)
    row: dict[str, Any] = {
        "dtype": str(x.dtype).removeprefix("torch."),
        "shape": list(x.shape),
        "stride": list(x.stride()),
    }
    if data.size <= INLINE:
        return {**row, "bytes": data.tobytes().hex()}, data
    place = f"{index:05d} " + name.replace("/", ".")
    return {**row, "dataset": place, "crc": zlib.crc32(data.data)}, data


def _element(dtype: torch.dtype) -> np.dtype[Any]:
    """The NumPy type with the same bits, or an unsigned integer of that size."""
    if dtype == torch.bool:
        return np.dtype(np.uint8)
    try:
        found: np.dtype[Any] = torch.empty(0, dtype=dtype).numpy().dtype
    except TypeError:
        return np.dtype(f"u{dtype.itemsize}")
    return found


# Reading ------------------------------------------------------------------------------------------------------------


def read_capture(path: str | Path) -> CaptureContent:
    """The content of the capture at `path`, every bit checked.

    Raises CaptureError in one line for a file that is missing, truncated, foreign or changed, and NewerCaptureError
    for one that a later version wrote.
    """
    path = Path(path)
    with opened(path) as (file, document):
        tensors = [_load(path, file, row) for row in document["tensors"]]
        _check_nothing_added(path, file, document["tensors"])
        return _content(document, tensors)


def _load(path: Path, file: Any, row: Mapping[str, Any]) -> Tensor:
    dtype = getattr(torch, row["dtype"])
    if "bytes" in row:
        flat = torch.tensor(list(bytes.fromhex(row["bytes"])), dtype=torch.uint8)
    else:
        dataset = file["tensors"].get(row["dataset"])
        if dataset is None:
            raise CaptureError(f"{path}: changed since it was written: dataset {row['dataset']!r} is missing")
        flat = torch.empty(dataset.size * dataset.dtype.itemsize, dtype=torch.uint8)
        if flat.numel():
            dataset.read_direct(flat.numpy().view(dataset.dtype))
        if zlib.crc32(flat.numpy().data) != row["crc"]:
            raise CaptureError(f"{path}: changed since it was written: dataset {row['dataset']!r} fails its checksum")
    return from_bytes(flat, dtype, tuple(row["shape"]), tuple(row["stride"]))


def _check_nothing_added(path: Path, file: Any, table: list[Mapping[str, Any]]) -> None:
    foreign = set(file["tensors"]) - {row.get("dataset") for row in table} | set(file) - {"document", "tensors"}
    if foreign:
        raise CaptureError(f"{path}: changed since it was written: {sorted(foreign)[0]!r} was added")


def _content(document: Mapping[str, Any], tensors: list[Tensor]) -> CaptureContent:
    values = dict(document["plain"])
    for name in ("identities", "healthy_identities"):
        values[name] = tuple(tuple(samples) for samples in values[name])
    for name in _TREES:
        values[name] = read_tree(document["trees"][name], tensors)
    lead_in = read_tree(document["trees"].get("lead_in"), tensors) or ()
    values["lead_in"] = tuple(LeadStep.from_tree(step) for step in lead_in)
    finding = document["finding"]
    readings = document["readings"]
    return CaptureContent(
        finding=Finding(
            **{**finding, "severity": Severity[finding["severity"]], "commands": tuple(finding["commands"])}
        ),
        readings=tuple(Reading(**{**reading, "value": number(reading["value"])}) for reading in readings),
        rng=RngState.from_dict(document["rng"]),
        **values,
    )
