"""Where the data records of a file lie on the axis of true time.

A discontinuous recording (EDF+D) says when each of its records began. Samples are laid on the true axis, so that
sample i is i / rate seconds after the first one and labels in seconds need no translation; what lies between the
pieces is a gap: known by its seconds, filled, never silently closed.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import numpy.typing as npt

from brainbrr.data.errors import RecordingError
from brainbrr.data.header import Header

MOST_GAP_S = 24 * 3600.0  # a longer sum of gaps is two recordings in one file, and would fill the memory with nothing
_JITTER = 1.0  # samples; records that begin this close to the end of the one before follow it


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """A stretch without samples; seconds since the first sample."""

    start_s: float
    stop_s: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """First sample of each data record on the true axis (n_records,), samples of the whole axis, gaps, notes."""

    starts: npt.NDArray[np.int64]
    n_samples: int
    gaps: tuple[Gap, ...]
    notes: tuple[str, ...]


def lay_records(header: Header, onsets: npt.NDArray[np.float64] | None, samples: int, rate: float) -> Timeline:
    """Place the records of `samples` samples at `rate` Hz by their `onsets` (n_records,) s; None: one after another.

    Raises RecordingError for an EDF+D file whose onsets are missing or run backwards, and for gaps beyond a day.
    """
    even = np.arange(header.n_records, dtype=np.int64) * samples
    continuous = Timeline(starts=even, n_samples=int(header.n_records * samples), gaps=(), notes=())
    if onsets is None or not np.isfinite(onsets).all():
        return _without_onsets(header, onsets, continuous)
    expected = np.rint((onsets - onsets[0]) * rate).astype(np.int64)
    if np.abs(expected - even).max() <= _JITTER:
        return continuous
    if (np.diff(expected) < samples - _JITTER).any():
        return _backwards(header, onsets, continuous)
    return _with_gaps(header.path, expected, samples, rate)


def _without_onsets(header: Header, onsets: npt.NDArray[np.float64] | None, continuous: Timeline) -> Timeline:
    if header.kind == "EDF+D":
        lost = header.n_records if onsets is None else int(np.isnan(onsets).sum())
        raise RecordingError(
            f"{header.path}: discontinuous (EDF+D), but {lost} of {header.n_records} data records do not say when they "
            "began; expected a time-keeping annotation in each: the samples cannot be placed in time"
        )
    if onsets is None:
        return continuous
    note = f"{int(np.isnan(onsets).sum())} data records do not say when they began; taken as continuous, as EDF+C says"
    return dataclasses.replace(continuous, notes=(note,))


def _backwards(header: Header, onsets: npt.NDArray[np.float64], continuous: Timeline) -> Timeline:
    record = int(np.argmin(np.diff(onsets))) + 1
    found = f"data record {record} begins at {onsets[record]:g} s, the one before at {onsets[record - 1]:g} s"
    if header.kind == "EDF+D":
        raise RecordingError(
            f"{header.path}: {found} and lasts {header.record_s:g} s; expected records that do not overlap: "
            "the samples cannot be placed in time"
        )
    return dataclasses.replace(continuous, notes=(f"{found}; taken as continuous, as EDF+C says",))


def _with_gaps(path: Path, expected: npt.NDArray[np.int64], samples: int, rate: float) -> Timeline:
    starts = np.empty_like(expected)
    gaps: list[Gap] = []
    cursor = 0
    for record, start in enumerate(expected):
        if start - cursor > _JITTER:
            gaps.append(Gap(start_s=cursor / rate, stop_s=int(start) / rate))
            cursor = int(start)
        starts[record] = cursor
        cursor += samples
    total = sum(gap.stop_s - gap.start_s for gap in gaps)
    if total > MOST_GAP_S:
        raise RecordingError(
            f"{path}: {len(gaps)} gap(s), {total / 3600:.1f} h in all; expected at most {MOST_GAP_S / 3600:g} h: "
            "split the file at its gaps"
        )
    note = f"{len(gaps)} gap(s), {total:g} s in all; time is kept, a gap holds no signal"
    return Timeline(starts=starts, n_samples=cursor, gaps=tuple(gaps), notes=(note,))
