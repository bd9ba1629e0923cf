"""The index of a split's cache: what is in it, what failed, what was left out, and how it was prepared.

`CACHE_DIR/SPLIT.json` stands beside the folder `CACHE_DIR/SPLIT`. It is removed before anything in the folder changes
and written when all is done, so that a build that was stopped is seen as such.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from brainbrr.data.errors import CacheError
from brainbrr.data.fingerprint import SCHEMA
from brainbrr.data.stored import CachedRecording, from_json, load, to_json
from brainbrr.files import atomic_write

_LOCK_WAIT_S = 20.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A recording that could not be prepared. `source`: its path below the split's folder."""

    name: str
    source: str
    reason: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """Recordings in the order of their sources' paths; `pending`: sources left out by a limit."""

    preprocessing_hash: str
    recordings: tuple[CachedRecording, ...]
    failures: tuple[Failure, ...]
    pending: tuple[str, ...]


def build_command(cache_dir: Path, split: str) -> str:
    """The command that brings the cache of a split up to date."""
    return f"`brainbrr build-cache --data-dir DIR --cache-dir {cache_dir} --split {split}`"


def index_path(cache_dir: Path, split: str) -> Path:
    """Where the index of a split lies."""
    return cache_dir / f"{split}.json"


def write_index(cache_dir: Path, split: str, index: Index) -> None:
    """Write the index of a split."""
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "preprocessing_hash": index.preprocessing_hash,
        "recordings": [to_json(recording) for recording in index.recordings],
        "failures": [dataclasses.asdict(failure) for failure in index.failures],
        "pending": list(index.pending),
    }
    with atomic_write(index_path(cache_dir, split)) as file:
        file.write(json.dumps(document, allow_nan=False).encode())


def read_index(cache_dir: Path, split: str) -> Index:
    """Read the index of a split. Raises CacheError when it is missing, damaged or of another schema."""
    path = index_path(cache_dir, split)
    again = f"run {build_command(cache_dir, split)}"
    if not path.is_file():
        unfinished = (cache_dir / split).is_dir()
        found = "a build that was not finished" if unfinished else "no cache"
        raise CacheError(f"{cache_dir}: {found} for split {split!r}; expected {path.name}: {again}")
    try:
        document = json.loads(path.read_bytes())
        if document["schema"] != SCHEMA:
            raise CacheError(f"{path} has schema {document['schema']}; expected {SCHEMA}: {again}")
        index = Index(
            preprocessing_hash=str(document["preprocessing_hash"]),
            recordings=tuple(from_json(values, cache_dir / split) for values in document["recordings"]),
            failures=tuple(Failure(**values) for values in document["failures"]),
            pending=tuple(map(str, document["pending"])),
        )
        for recording in index.recordings:
            _require_sound(recording)
        return index
    except CacheError:
        raise
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CacheError(f"{path} is damaged ({error}); remove it and {again}") from None


def _require_sound(recording: CachedRecording) -> None:
    """Raises TypeError or ValueError for a name that is no file's, and for numbers that are none."""
    texts = (recording.name, recording.patient, recording.source, recording.preprocessing_hash)
    times = [
        *(time for event in recording.events or () for time in (event.start_s, event.stop_s)),
        *(time for gap in recording.gaps for time in (gap.start_s, gap.stop_s)),
        *recording.clipped,
        recording.clip_sigma,
    ]
    if not all(isinstance(text, str) for text in texts) or set(recording.name) & {"/", "\0"}:
        raise TypeError(f"a recording named {recording.name!r:.60}")
    if type(recording.n_samples) is not int or not 0 < recording.n_samples < 1 << 40:
        raise ValueError(f"{recording.name}: {recording.n_samples!r:.60} samples")
    if not all(math.isfinite(time) for time in times) or not all(type(bad.count) is int for bad in recording.nonfinite):
        raise ValueError(f"{recording.name}: numbers that are not finite")


def list_anew(cache_dir: Path, split: str) -> Index:
    """The index as the folder's own recordings give it, for an index that was lost or is not trusted."""
    folder = cache_dir / split
    names = sorted(path.stem for path in folder.glob("*.json"))
    recordings = [recording for name in names if (recording := load(folder, name)) is not None]
    if not recordings:
        raise CacheError(f"{folder} holds no recording; expected at least one: run {build_command(cache_dir, split)}")
    hashes = {recording.preprocessing_hash for recording in recordings}
    if len(hashes) > 1:
        raise CacheError(
            f"{folder} holds recordings of {len(hashes)} different preprocessings; expected one: "
            f"run {build_command(cache_dir, split)}"
        )
    recordings.sort(key=lambda recording: recording.source)
    return Index(preprocessing_hash=hashes.pop(), recordings=tuple(recordings), failures=(), pending=())


@contextlib.contextmanager
def locked(cache_dir: Path, split: str) -> Iterator[None]:
    """Only one process at a time builds a split; the lock ends with its holder, however that ends."""
    cache_dir.mkdir(parents=True, exist_ok=True)
    path = cache_dir / f".{split}.lock"
    with path.open("w") as file:
        patience = time.monotonic() + _LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > patience:
                    raise CacheError(
                        f"{cache_dir}: another process is building split {split!r}; wait for it, then run this again"
                    ) from None
                time.sleep(0.1)
        yield
