"""Seizure labels beside a recording: TUSZ's CSV_BI and its per-channel CSV; and from events to masks and back.

Only seizures are events. Background is what lies between them, whether or not a file spells it out.
"""

from __future__ import annotations

import csv
import dataclasses
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from brainbrr.data.errors import LabelError
from brainbrr.files import atomic_write

SEIZURE = "seiz"
BACKGROUND = "bckg"
# The types that count as seizure; any other label (`nesz`, a non-epileptic one, say) is reported and is none.
SEIZURE_TYPES = frozenset({SEIZURE, "gnsz", "fnsz", "cpsz", "absz", "spsz", "tcsz", "tnsz", "mysz"})
_COLUMNS = ["channel", "start_time", "stop_time", "label", "confidence"]
_VERSION = re.compile(r"#\s*version\s*=\s*(\S+)")
_DURATION = re.compile(r"^#\s*duration\s*=\s*(\d+(?:\.\d+)?)\s*secs", re.MULTILINE)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A seizure: seconds since the first sample, its type, and how certain it is (0 to 1)."""

    start_s: float
    stop_s: float
    label: str = SEIZURE
    confidence: float = 1.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LabelFile:
    """What a label file says. `ignored` counts its rows that are neither seizure nor background, by label.

    `duration_s`: length of the recording, from the file's header or, without one, where its last row ends.
    """

    path: Path
    events: tuple[Event, ...]
    ignored: dict[str, int]
    duration_s: float


def label_path(edf_path: str | Path) -> Path | None:
    """The label file beside a recording: `.csv_bi` before `.csv`; None when there is neither."""
    for suffix in (".csv_bi", ".csv"):
        path = Path(edf_path).with_suffix(suffix)
        if path.is_file():
            return path
    return None


def read_labels(edf_path: str | Path) -> tuple[Event, ...] | None:
    """The seizures of a recording in order of time; empty when it is labelled and has none, None when unlabelled.

    Raises LabelError naming file and line for a line that cannot be understood.
    """
    path = label_path(edf_path)
    return None if path is None else read_label_file(path).events


def read_label_file(path: str | Path) -> LabelFile:
    """Read a CSV_BI file (`TERM` rows, seiz and bckg) or a per-channel CSV (union of the channels' seizures)."""
    path = Path(path)
    binary = path.suffix == ".csv_bi"
    text = _text(path)
    rows = list(_rows(path, text, binary))
    seizures = [row for row in rows if row.label in SEIZURE_TYPES]
    others = Counter(row.label for row in rows if row.label not in {*SEIZURE_TYPES, BACKGROUND})
    # A table of one channel may list two seizures that touch; over channels what touches is the same seizure.
    events = unite(seizures, touching=not binary)
    header = _DURATION.search(text)
    duration_s = float(header[1]) if header else max((row.stop_s for row in rows), default=0.0)
    return LabelFile(path=path, events=events, ignored=dict(sorted(others.items())), duration_s=duration_s)


def unite(events: Iterable[Event], *, touching: bool) -> tuple[Event, ...]:
    """Events in order of time with overlapping ones (and, with `touching`, adjacent ones) joined.

    A joined event keeps a type that all its parts share, else is a plain seizure, and takes the highest confidence.
    """
    united: list[Event] = []
    for event in sorted(events, key=lambda event: (event.start_s, event.stop_s)):
        last = united[-1] if united else None
        if last is None or event.start_s > last.stop_s or (event.start_s == last.stop_s and not touching):
            united.append(event)
            continue
        united[-1] = Event(
            start_s=last.start_s,
            stop_s=max(last.stop_s, event.stop_s),
            label=last.label if last.label == event.label else SEIZURE,
            confidence=max(last.confidence, event.confidence),
        )
    return tuple(united)


def clip_events(events: Sequence[Event], duration_s: float) -> tuple[tuple[Event, ...], tuple[str, ...]]:
    """Events cut to a recording of `duration_s` seconds, and a note for each that was cut or lies past the end."""
    kept, notes = [], []
    for event in events:
        if event.start_s >= duration_s:
            notes.append(f"event {_span(event)} lies past the end of the signal at {duration_s:g} s; left out")
        elif event.stop_s > duration_s:
            notes.append(f"event {_span(event)} ends past the end of the signal at {duration_s:g} s; cut")
            kept.append(dataclasses.replace(event, stop_s=duration_s))
        else:
            kept.append(event)
    return tuple(kept), tuple(notes)


def sample_bounds(events: Iterable[Event], n: int, rate: float) -> npt.NDArray[np.int64]:
    """(events, 2) first and one past the last sample of each event, rounded to the nearest and cut to [0, n]."""
    bounds = np.array([(event.start_s, event.stop_s) for event in events], dtype=np.float64).reshape(-1, 2)
    return np.clip(np.rint(bounds * rate), 0, n).astype(np.int64)


def mask(events: Iterable[Event], n: int, rate: float) -> npt.NDArray[np.bool_]:
    """(n,) bool: True for the samples at `rate` Hz that lie in an event; event times are rounded to samples."""
    inside = np.zeros(n, dtype=np.bool_)
    for start, stop in sample_bounds(events, n, rate):
        inside[start:stop] = True
    return inside


def write_csv_bi(
    path: str | Path,
    events: Iterable[Event],
    duration_s: float,
    *,
    bname: str | None = None,
    montage_file: str = "nedc_eas_default_montage.txt",
) -> None:
    """Write a CSV_BI file whose `TERM` rows cover the recording from 0 to `duration_s` s: seizures and background.

    `bname`: name of the recording, by default that of the file. Raises ValueError for an event outside the recording.
    """
    path = Path(path)
    lines = [
        "# version = csv_v1.0.0",
        f"# bname = {bname or path.stem}",
        f"# duration = {duration_s:.4f} secs",
        f"# montage_file = {montage_file}",
        "#",
        ",".join(_COLUMNS),
    ]
    at = 0.0
    for event in unite(events, touching=False):
        if not 0 <= event.start_s < event.stop_s <= duration_s:
            raise ValueError(f"event {_span(event)}; expected 0 <= start < stop <= {duration_s:g} s")
        if event.start_s > at:
            lines.append(f"TERM,{at:.4f},{event.start_s:.4f},{BACKGROUND},1.0000")
        lines.append(f"TERM,{event.start_s:.4f},{event.stop_s:.4f},{SEIZURE},{event.confidence:.4f}")
        at = event.stop_s
    if at < duration_s:
        lines.append(f"TERM,{at:.4f},{duration_s:.4f},{BACKGROUND},1.0000")
    with atomic_write(path) as file:
        file.write(("\n".join(lines) + "\n").encode())


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise LabelError(f"{path}: not a text file ({error.reason} at byte {error.start}); expected UTF-8") from None


def _rows(path: Path, text: str, binary: bool) -> Iterator[Event]:
    """Every row of the table, background and unknown labels included."""
    seen_columns = False
    for number, line in enumerate(text.splitlines(), start=1):
        where = f"{path}:{number}"
        if line.startswith("#"):
            _check_version(where, line)
        elif line.strip():
            cells = [cell.strip() for cell in next(csv.reader([line]))]
            if cells == _COLUMNS:
                seen_columns = True
                continue
            if not seen_columns:
                raise LabelError(f"{where}: found {line!r} before the line of columns; expected {','.join(_COLUMNS)}")
            yield _row(where, cells, binary)
    if not seen_columns:
        raise LabelError(f"{path}: no line of columns; expected {','.join(_COLUMNS)}: the file is empty or cut short")


def _check_version(where: str, line: str) -> None:
    found = _VERSION.match(line)
    if found and not found[1].startswith("csv_v1."):
        raise LabelError(f"{where}: version {found[1]!r}; expected csv_v1: another version's columns may mean others")


def _row(where: str, cells: list[str], binary: bool) -> Event:
    if len(cells) != len(_COLUMNS):
        raise LabelError(f"{where}: {len(cells)} columns; expected {len(_COLUMNS)}: {','.join(_COLUMNS)}")
    channel, label = cells[0], cells[3].lower()
    start, stop, confidence = (_number(where, _COLUMNS[i], cells[i]) for i in (1, 2, 4))
    # A background row of no length says nothing and is harmless; a seizure of no length is a mistake.
    if not 0 <= start <= stop or (start == stop and label in SEIZURE_TYPES):
        raise LabelError(f"{where}: {label!r} from {start:g} to {stop:g} s; expected 0 <= start_time < stop_time")
    if not 0 <= confidence <= 1:
        raise LabelError(f"{where}: confidence {confidence:g}; expected 0 to 1")
    if binary and (channel != "TERM" or label not in (SEIZURE, BACKGROUND)):
        raise LabelError(f"{where}: channel {channel!r}, label {label!r}; expected TERM with {SEIZURE} or {BACKGROUND}")
    if not label:
        raise LabelError(f"{where}: no label; expected a seizure type, {BACKGROUND} or another TUSZ label")
    return Event(start_s=start, stop_s=stop, label=label, confidence=confidence)


def _number(where: str, column: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise LabelError(f"{where}: {column} is {text!r}; expected a number")
    return value


def _span(event: Event) -> str:
    return f"{event.start_s:g} to {event.stop_s:g} s"
