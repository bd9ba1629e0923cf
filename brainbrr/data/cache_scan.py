"""What a cache holds: label coverage, and for every recording how many windows of which kind it gives."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from brainbrr.config import SAMPLING_RATE, Preprocessing
from brainbrr.data.cache_index import Failure, Index, build_command, index_path, read_index
from brainbrr.data.corpus import check_disjoint
from brainbrr.data.errors import CacheError
from brainbrr.data.fingerprint import preprocessing_hash
from brainbrr.data.layouts import SPLITS
from brainbrr.data.stored import CachedRecording
from brainbrr.data.windows import BACKGROUND, FULL, PARTIAL, window_kinds, window_starts

T = TypeVar("T")

_SHOWN = 10
_KINDS = {"background": BACKGROUND, "partial": PARTIAL, "full": FULL}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RecordingScan:
    """One line of the manifest; `seizures` is None for an unlabelled recording, which gives no windows."""

    name: str
    patient: str
    hours: float
    seizures: int | None
    windows: dict[str, int]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SplitScan:
    """One split: sums, and the manifest in the order of the recordings' paths."""

    split: str
    patients: int
    hours: float
    labelled: int
    unlabelled: int
    with_seizures: int
    seizures: int
    seizure_seconds: float
    types: dict[str, int]
    windows: dict[str, int]
    interpolated: int
    nonfinite: int
    failed: tuple[Failure, ...]
    pending: int
    recordings: tuple[RecordingScan, ...]


ProblemKind = Literal["labels", "stale", "empty", "dangling", "corrupt", "leakage"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What keeps a cache from being used, in one sentence, and the file or folder that it is about."""

    kind: ProblemKind
    path: Path
    message: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ScanReport:
    """All splits of a cache, and what keeps it from being used."""

    splits: tuple[SplitScan, ...]
    found: tuple[Problem, ...]

    @property
    def problems(self) -> tuple[str, ...]:
        """The problems, a sentence each."""
        return tuple(problem.message for problem in self.found)

    @property
    def trainable(self) -> bool:
        """Whether a training split is there, holds a seizure, and nothing is wrong with the cache."""
        return not self.problems and any(split.split == "train" for split in self.splits)

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        splits = [dataclasses.asdict(split) for split in self.splits]
        return {"splits": splits, "problems": list(self.problems), "trainable": self.trainable}

    def text(self) -> str:
        """For a person; the manifest itself and the problems are not in it."""
        lines = [line for split in self.splits for line in _lines(split)]
        if not any(split.split == "train" for split in self.splits):
            lines.append("no training split")
        return "\n".join(lines)


def scan(
    cache_dir: str | Path,
    *,
    window_size: float = 60.0,
    stride: float = 10.0,
    verify: int | None = 0,
    preprocessing: Preprocessing | None = None,
) -> ScanReport:
    """Scan every split of a cache; windows of `window_size` s every `stride` s.

    Of `verify` recordings of each split (None: of all) every sample is read and the checksum compared. `preprocessing`
    is what the cache must have been made with (None: whatever it was). What is wrong becomes a problem of the report.
    Raises CacheError where there is no cache at all.
    """
    cache_dir = Path(cache_dir)
    present = [split for split in SPLITS if (cache_dir / f"{split}.json").is_file() or (cache_dir / split).is_dir()]
    if not present:
        raise CacheError(
            f"{cache_dir} holds no cache; expected {', '.join(f'{split}.json' for split in SPLITS)} as "
            f"`brainbrr build-cache --data-dir DIR --cache-dir {cache_dir} --split SPLIT` writes them"
        )
    splits, problems = [], []
    for split in present:
        path = index_path(cache_dir, split)
        try:
            index = read_index(cache_dir, split)
        except CacheError as error:
            kind: ProblemKind = "corrupt" if path.is_file() else "empty"
            problems.append(Problem(kind=kind, path=path, message=str(error)))
            continue
        manifest = [_scan_recording(recording, window_size, stride) for recording in index.recordings]
        splits.append(_sum(split, index.recordings, manifest, index.failures, len(index.pending)))
        problems += _stale(path, index, preprocessing)
        problems += _damage(path, index.recordings, verify)
    try:
        check_disjoint({split.split: {recording.patient for recording in split.recordings} for split in splits})
    except CacheError as error:
        problems.append(Problem(kind="leakage", path=cache_dir, message=str(error)))
    problems += [_no_seizure(cache_dir, split) for split in splits if split.split == "train" and not split.seizures]
    return ScanReport(splits=tuple(splits), found=tuple(problems))


def check_patients(cache_dir: str | Path) -> None:
    """Raises CacheError when a patient stands in two splits of a cache."""
    cache_dir = Path(cache_dir)
    present = [split for split in SPLITS if (cache_dir / f"{split}.json").is_file()]
    check_disjoint(
        {split: {recording.patient for recording in read_index(cache_dir, split).recordings} for split in present}
    )


def _scan_recording(recording: CachedRecording, window_size: float, stride: float) -> RecordingScan:
    counts = dict.fromkeys(_KINDS, 0)
    if recording.events is not None:
        length = round(window_size * SAMPLING_RATE)
        starts = window_starts(recording.n_samples, length, round(stride * SAMPLING_RATE))
        kinds, recorded = window_kinds(recording, starts, length)
        counts = {name: int(np.count_nonzero((kinds == kind) & (recorded > 0))) for name, kind in _KINDS.items()}
    return RecordingScan(
        name=recording.name,
        patient=recording.patient,
        hours=recording.duration_s / 3600,
        seizures=None if recording.events is None else len(recording.events),
        windows=counts,
    )


def _sum(
    split: str,
    recordings: Sequence[CachedRecording],
    manifest: Sequence[RecordingScan],
    failed: tuple[Failure, ...],
    pending: int,
) -> SplitScan:
    events = [event for recording in recordings for event in recording.events or ()]
    return SplitScan(
        split=split,
        patients=len({recording.patient for recording in recordings}),
        hours=sum(line.hours for line in manifest),
        labelled=sum(line.seizures is not None for line in manifest),
        unlabelled=sum(line.seizures is None for line in manifest),
        with_seizures=sum(bool(line.seizures) for line in manifest),
        seizures=len(events),
        seizure_seconds=sum(event.stop_s - event.start_s for event in events),
        types=dict(sorted(Counter(event.label for event in events).items())),
        windows={name: sum(line.windows[name] for line in manifest) for name in _KINDS},
        interpolated=sum(bool(recording.interpolated) for recording in recordings),
        nonfinite=sum(bad.count for recording in recordings for bad in recording.nonfinite),
        failed=failed,
        pending=pending,
        recordings=tuple(manifest),
    )


def _stale(path: Path, index: Index, preprocessing: Preprocessing | None) -> Iterator[Problem]:
    wanted = index.preprocessing_hash if preprocessing is None else preprocessing_hash(preprocessing)
    others = {recording.preprocessing_hash for recording in index.recordings} | {index.preprocessing_hash}
    for other in sorted(others - {wanted}):
        message = f"{path}: built with other preprocessing: hash {other[:12]}, expected {wanted[:12]}"
        yield Problem(kind="stale", path=path, message=f"{message}; run {build_command(path.parent, path.stem)}")


def spread(items: Sequence[T], count: int | None) -> Sequence[T]:
    """`count` of the items, evenly spread from the first on; all of them for None."""
    if count is None or count >= len(items):
        return items
    return [items[number * len(items) // count] for number in range(count)]


def _damage(path: Path, recordings: Sequence[CachedRecording], verify: int | None) -> list[Problem]:
    found = []
    verified = {recording.name for recording in spread(recordings, verify)}
    for recording in recordings:
        try:
            recording.check_size()
            if recording.name in verified:
                recording.check_content()
        except CacheError as error:
            kind: ProblemKind = "corrupt" if recording.path.is_file() else "dangling"
            found.append(Problem(kind=kind, path=recording.path, message=str(error)))
    if len(found) > _SHOWN:
        rest = f"and {len(found) - _SHOWN} more damaged recordings"
        return [*found[:_SHOWN], Problem(kind="corrupt", path=path, message=rest)]
    return found


def _no_seizure(cache_dir: Path, split: SplitScan) -> Problem:
    return Problem(
        kind="labels",
        path=index_path(cache_dir, split.split),
        message=(
            f"{split.split}: no seizure in {len(split.recordings)} recordings ({split.labelled} labelled, "
            f"{split.unlabelled} without labels); expected at least one: are the .csv_bi files beside the .edf files?"
        ),
    )


def _lines(split: SplitScan) -> list[str]:
    types = ", ".join(f"{count} {label}" for label, count in split.types.items()) or "none"
    lines = [
        f"{split.split}: {len(split.recordings)} recordings, {split.hours:.2f} h, {split.patients} patients",
        f"  labels: {split.labelled} labelled ({split.with_seizures} with seizures), {split.unlabelled} without",
        f"  seizures: {split.seizures} ({types}), {split.seizure_seconds:.0f} s",
        "  windows: " + ", ".join(f"{count} {name}" for name, count in split.windows.items()),
        f"  {split.interpolated} with interpolated electrodes, {split.nonfinite} non-finite samples",
    ]
    lines += [f"  failed: {failure.name}: {failure.reason}" for failure in split.failed[:_SHOWN]]
    if len(split.failed) > _SHOWN:
        lines.append(f"  and {len(split.failed) - _SHOWN} more that failed")
    return [*lines, f"  {split.pending} recordings left out by a limit"] if split.pending else lines
