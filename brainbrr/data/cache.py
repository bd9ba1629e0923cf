"""The cache of preprocessed recordings: each stored once, continuous, as int16 over ±clip_sigma σ, memory-mapped.

Against compressed NPZ files of overlapping windows this takes a tenth of the disk and next to none of the time for a
random window (tests/benchmarks/cache_windows.py measures it): 60-s windows every 10 s hold each sample six times, and
a compressed file must be inflated whole for one of its windows.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from brainbrr.config import Preprocessing
from brainbrr.data.cache_build import build_cache
from brainbrr.data.cache_index import Failure, Index, build_command, list_anew, read_index, write_index
from brainbrr.data.cache_report import CacheReport
from brainbrr.data.cache_scan import ScanReport, check_patients, scan
from brainbrr.data.errors import CacheError
from brainbrr.data.fingerprint import preprocessing_hash
from brainbrr.data.stored import CachedRecording

__all__ = [
    "Cache",
    "CacheError",
    "CacheReport",
    "CachedRecording",
    "Failure",
    "ScanReport",
    "build_cache",
    "check_patients",
    "open_cache",
    "scan",
]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    """The recordings of a split in the order of their paths; `failed`: those that are not in the cache, and why."""

    split: str
    recordings: tuple[CachedRecording, ...]
    failed: tuple[Failure, ...]

    @property
    def patients(self) -> frozenset[str]:
        """Who was recorded."""
        return frozenset(recording.patient for recording in self.recordings)

    @property
    def has_seizures(self) -> bool:
        """Whether any recording holds one."""
        return any(recording.events for recording in self.recordings)


def open_cache(
    cache_dir: str | Path,
    split: str,
    preprocessing: Preprocessing | None = None,
    limit_files: int | None = None,
    rebuild_index: bool = False,
) -> Cache:
    """Open the cache of a split; no sample is read yet.

    `preprocessing`: what the cache must have been made with (None: whatever it was). `limit_files`: the first of the
    corpus by path, as in `build_cache`. `rebuild_index`: list the recordings on disk instead of reading the index.
    Raises CacheError, with what to run, for a cache that is missing, unfinished, stale or damaged.
    """
    cache_dir = Path(cache_dir)
    index = list_anew(cache_dir, split) if rebuild_index else read_index(cache_dir, split)
    if preprocessing is not None and index.preprocessing_hash != preprocessing_hash(preprocessing):
        raise CacheError(
            f"{cache_dir}: split {split!r} was built with other preprocessing (or by another version of this program): "
            f"hash {index.preprocessing_hash[:12]}, expected {preprocessing_hash(preprocessing)[:12]}; run "
            f"{build_command(cache_dir, split)} with the present configuration, or set data.cache_dir to another folder"
        )
    if rebuild_index:
        write_index(cache_dir, split, index)
    recordings = _first(cache_dir, split, index, limit_files)
    if not recordings:
        reasons = "; ".join(f"{failure.name}: {failure.reason}" for failure in index.failures[:3])
        raise CacheError(f"{cache_dir}: no recording of split {split!r} is in the cache ({reasons or 'none built'})")
    for recording in recordings:
        recording.check_size()
    return Cache(split=split, recordings=recordings, failed=index.failures)


def _first(cache_dir: Path, split: str, index: Index, limit_files: int | None) -> tuple[CachedRecording, ...]:
    """The recordings among the first `limit_files` sources. Raises CacheError when one of those was never built."""
    sources = sorted(
        [
            *(recording.source for recording in index.recordings),
            *(failure.source for failure in index.failures),
            *index.pending,
        ]
    )[:limit_files]
    unbuilt = set(index.pending) & set(sources)
    if unbuilt:
        raise CacheError(
            f"{cache_dir}: {len(unbuilt)} of the first {len(sources)} recordings of split {split!r} were left out by a "
            f"limit when it was built; run {build_command(cache_dir, split)} without --limit-files"
        )
    wanted = set(sources)
    return tuple(recording for recording in index.recordings if recording.source in wanted)
