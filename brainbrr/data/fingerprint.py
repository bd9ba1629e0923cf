"""What a cached recording was made from: the source's bytes, its labels, and how they were prepared.

A source counts as unchanged while its size and time of change are the same; when only the time differs (a copied
corpus) its content decides, by hash of size, first and last MiB.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from brainbrr.config import Preprocessing
from brainbrr.data.formats import find_labels

# Raised whenever the same file and options give other numbers or other fields: every cache is then built anew.
SCHEMA = 2
_ENDS = 1 << 20


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FileState:
    """Size and time of change (ns) of recording and labels; -1 for labels that are not there."""

    bytes: int
    changed_ns: int
    label_bytes: int
    label_changed_ns: int

    def to_list(self) -> list[int]:
        """For JSON."""
        return [self.bytes, self.changed_ns, self.label_bytes, self.label_changed_ns]


def file_state(edf_path: Path) -> FileState:
    """The state of a recording and of the labels beside it. Raises OSError."""
    recording = edf_path.stat()
    labels = find_labels(edf_path)
    label = None if labels is None else labels.stat()
    return FileState(
        bytes=recording.st_size,
        changed_ns=recording.st_mtime_ns,
        label_bytes=-1 if label is None else label.st_size,
        label_changed_ns=-1 if label is None else label.st_mtime_ns,
    )


def content_hash(edf_path: Path) -> str:
    """Hash of a recording's size, first and last MiB, and of the whole label file beside it with its kind."""
    digest = hashlib.sha256()
    size = edf_path.stat().st_size
    digest.update(str(size).encode())
    with edf_path.open("rb") as file:
        digest.update(file.read(_ENDS))
        file.seek(max(0, size - _ENDS))
        digest.update(file.read(_ENDS))
    labels = find_labels(edf_path)
    if labels is None:
        digest.update(b"unlabelled")
    elif labels != edf_path:  # else they are annotations of the recording, whose ends stand for it already
        digest.update(labels.suffix.encode() + labels.read_bytes())
    return digest.hexdigest()


def preprocessing_hash(preprocessing: Preprocessing) -> str:
    """Hash of every option that changes the numbers in the cache, and of the schema."""
    content: dict[str, Any] = {"schema": SCHEMA, **preprocessing.model_dump(mode="json")}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
