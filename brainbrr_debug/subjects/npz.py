"""A foreign cache: a folder of NPZ files with windows and labels, as many programs for recordings write it."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from brainbrr.data.cache_scan import spread
from brainbrr_debug.facts import CachedItem, CacheFacts, Damage

UNREADABLE = (
    OSError, ValueError, KeyError, EOFError, MemoryError, NotImplementedError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
LABELS = ("label", "target", "mask", "y")


def foreign_facts(cache: Path, count: int) -> CacheFacts:
    """Of `count` files, spread over all: largest magnitude, labels, patient (the name up to the first "_")."""
    paths = sorted(cache.rglob("*.npz"))
    items, damage = [], []
    for path in spread(paths, count):
        try:
            items.append(_item(cache, path))
        except UNREADABLE as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            damage.append(Damage(kind="corrupt", path=path, message=f"{path}: cannot be read: {reason}"))
    notes = [f"cache.range: {count} of {len(paths)} NPZ files were read"] if count < len(paths) else []
    return CacheFacts(
        path=cache,
        foreign=True,
        rebuild="make the cache anew with the program that wrote it",
        items=tuple(items),
        damage=(*damage, *_no_labels(cache, items)),
        notes=tuple(notes),
    )


def _item(cache: Path, path: Path) -> CachedItem:
    with path.open("rb") as handle, np.load(handle, allow_pickle=False) as file:
        arrays = {name: array for name in file.files if isinstance(array := file[name], np.ndarray)}
    labels = next((arrays[name] for name in arrays if name.lower().startswith(LABELS)), None)
    signals = [a for name, a in arrays.items() if a is not labels and a.dtype.kind == "f" and a.ndim >= 2 and a.size]
    if not signals:
        raise ValueError(f"holds no array of floating-point windows, only {', '.join(arrays) or 'nothing'}")
    folder = path.relative_to(cache).parent
    return CachedItem(
        name=path.stem,
        path=path,
        split=folder.parts[0] if folder.parts else "train",
        group=path.stem.partition("_")[0],
        positives=None if labels is None or labels.dtype.kind not in "fiub" else _positive(labels),
        positive_seconds=0.0,
        largest=max(float(np.max(np.abs(signal))) for signal in signals),
    )


def _positive(labels: Any) -> int:
    """Windows with a label that is not zero."""
    return int(np.count_nonzero(labels.reshape(len(labels), -1).any(axis=1))) if labels.ndim and labels.size else 0


def _no_labels(cache: Path, items: list[CachedItem]) -> list[Damage]:
    training = [item for item in items if item.split == "train"]
    if not training or any(item.positives for item in training):
        return []
    unlabelled = sum(item.positives is None for item in training)
    message = f"train: no positive label in {len(training)} files ({unlabelled} without labels); expected at least one"
    return [Damage(kind="labels", path=cache, message=message)]
