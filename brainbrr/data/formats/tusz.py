"""TUSZ's tables: CSV_BI (`TERM` rows, seizure or background) and the per-channel CSV of seizure types."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from brainbrr.data.errors import LabelError
from brainbrr.data.formats.text import number, read_text, write_lines
from brainbrr.data.labels import BACKGROUND, SEIZURE, SEIZURE_TYPES, Event, LabelFile, Recorded, on_grid, unite

RESOLUTION_S = 1e-4
_COLUMNS = ["channel", "start_time", "stop_time", "label", "confidence"]
_VERSION = re.compile(r"#\s*version\s*=\s*(\S+)")
_DURATION = re.compile(r"^#\s*duration\s*=\s*(\d+(?:\.\d+)?)\s*secs", re.MULTILINE)


def read_csv(path: Path, recording: str) -> LabelFile:
    """Read a CSV_BI file, or a per-channel CSV as the union of the channels' seizures.

    Raises LabelError naming file and line for a line that cannot be understood.
    """
    binary = path.suffix == ".csv_bi"
    text = read_text(path)
    rows = list(_rows(path, text, binary))
    seizures = [row for row in rows if row.label in SEIZURE_TYPES]
    others = Counter(row.label for row in rows if row.label not in {*SEIZURE_TYPES, BACKGROUND})
    header = _DURATION.search(text)
    return LabelFile(
        path=path,
        # A table of one channel may list two seizures that touch; over channels what touches is the same seizure.
        events=unite(seizures, touching=not binary),
        duration_s=float(header[1]) if header else None,
        ignored=dict(sorted(others.items())),
    )


def write_csv_bi(path: Path, events: Sequence[Event], recorded: Recorded) -> None:
    """Write `TERM` rows that cover the recording: seizures and background."""
    _write(path, events, recorded, binary=True)


def write_csv(path: Path, events: Sequence[Event], recorded: Recorded) -> None:
    """Write a table of one channel, `TERM`, with the seizures' types."""
    _write(path, events, recorded, binary=False)


def _write(path: Path, events: Sequence[Event], recorded: Recorded, *, binary: bool) -> None:
    lines = [
        "# version = csv_v1.0.0",
        f"# bname = {recorded.name}",
        f"# duration = {recorded.duration_s:.4f} secs",
        "# montage_file = nedc_eas_default_montage.txt",
        "#",
        ",".join(_COLUMNS),
    ]
    at = 0.0
    for event in on_grid(events, RESOLUTION_S, touching=binary):
        if event.start_s > at:
            lines.append(f"TERM,{at:.4f},{event.start_s:.4f},{BACKGROUND},1.0000")
        label = SEIZURE if binary else event.label
        lines.append(f"TERM,{event.start_s:.4f},{event.stop_s:.4f},{label},{event.confidence:.4f}")
        at = event.stop_s
    if at < recorded.duration_s:
        lines.append(f"TERM,{at:.4f},{recorded.duration_s:.4f},{BACKGROUND},1.0000")
    write_lines(path, lines)


def _rows(path: Path, text: str, binary: bool) -> Iterator[Event]:
    """Every row of the table, background and unknown labels included."""
    seen_columns = False
    for line_number, line in enumerate(text.splitlines(), start=1):
        where = f"{path}:{line_number}"
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
    start, stop, confidence = (number(where, _COLUMNS[i], cells[i]) for i in (1, 2, 4))
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
