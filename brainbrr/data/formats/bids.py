"""BIDS `events.tsv` with HED-SCORE seizure types, as SzCORE reads and writes it.

Columns: onset, duration (s, two decimals), eventType (`bckg`, `sz`, `sz_foc…`, `sz_gen…`), confidence, channels,
dateTime, recordingDuration; others may stand between them. SzCORE's evaluator takes a table without a row for all
zeros, so a recording without seizure has one `bckg` row over its whole length.
"""

from __future__ import annotations

import csv
import datetime
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from brainbrr.data.errors import LabelError
from brainbrr.data.formats.text import number, read_text, write_lines
from brainbrr.data.labels import BACKGROUND, Event, LabelFile, Recorded, on_grid

RESOLUTION_S = 0.01
COLUMNS = ("onset", "duration", "eventType", "confidence", "channels", "dateTime", "recordingDuration")
_NOT_GIVEN = ("n/a", "")
_UNKNOWN_START = datetime.datetime(2000, 1, 1)  # what SzCORE's own tools write where a date was removed

# TUSZ's type of a HED-SCORE type is that of the longest prefix here, and the other way the first with that value.
_TYPES = {
    "sz": "seiz",
    "sz_foc": "fnsz",
    "sz_foc_a": "spsz",
    "sz_foc_ia": "cpsz",
    "sz_gen": "gnsz",
    "sz_gen_nm": "absz",
    "sz_gen_m_tonic": "tnsz",
    "sz_gen_m_tonicClonic": "tcsz",
    "sz_gen_m_myoclonic": "mysz",
}
_HED = {tusz: hed for hed, tusz in _TYPES.items()}


def read_events_tsv(path: Path, recording: str) -> LabelFile:
    """Read the table. Raises LabelError naming file and line for what cannot be understood."""
    rows = list(csv.DictReader(read_text(path).splitlines(), delimiter="\t"))
    if not rows or not {"onset", "duration", "eventType"} <= set(rows[0]):
        raise LabelError(f"{path}: no table of events; expected the columns {', '.join(COLUMNS)} and at least one row")
    events, others = [], Counter[str]()
    for line_number, row in enumerate(rows, start=2):
        kind = row["eventType"] or ""
        if kind == "sz" or kind.startswith("sz_"):
            events.append(_event(f"{path}:{line_number}", row, kind))
        elif kind != BACKGROUND:
            others[kind] += 1
    events.sort(key=lambda event: (event.start_s, event.stop_s))
    return LabelFile(
        path=path,
        events=tuple(events),
        duration_s=_optional_number(f"{path}:2", rows[0], "recordingDuration"),
        start=_start(f"{path}:2", rows[0]),
        ignored=dict(sorted(others.items())),
    )


def _event(where: str, row: dict[str, str], kind: str) -> Event:
    onset, duration = number(where, "onset", row["onset"]), number(where, "duration", row["duration"] or "")
    if onset < 0 or duration <= 0:
        raise LabelError(f"{where}: onset {onset:g} s, duration {duration:g} s; expected 0 or more, and more than 0")
    confidence = _optional_number(where, row, "confidence")
    label = _TYPES[max((prefix for prefix in _TYPES if kind.startswith(prefix)), key=len)]
    # The sum of two decimals: anything below is rounding of the sum, not time.
    return Event(
        start_s=onset,
        stop_s=round(onset + duration, 6),
        label=label,
        confidence=1.0 if confidence is None else confidence,
    )


def _optional_number(where: str, row: dict[str, str], column: str) -> float | None:
    text = row.get(column) or ""
    return None if text in _NOT_GIVEN else number(where, column, text)


def _start(where: str, row: dict[str, str]) -> datetime.datetime | None:
    text = row.get("dateTime") or ""
    if text in _NOT_GIVEN:
        return None
    try:
        return datetime.datetime.strptime(text, "%Y-%m-%d %H:%M:%S")
    except ValueError:
        raise LabelError(f"{where}: dateTime is {text!r}; expected YYYY-MM-DD HH:MM:SS or n/a") from None


def write_events_tsv(path: Path, events: Sequence[Event], recorded: Recorded) -> None:
    """Write one row a seizure, or one `bckg` row over the recording."""
    rows = [
        (event.start_s, event.stop_s - event.start_s, _HED[event.label], f"{event.confidence:.2f}")
        for event in on_grid(events, RESOLUTION_S)
    ] or [(0.0, recorded.duration_s, BACKGROUND, "n/a")]
    when = (recorded.start or _UNKNOWN_START).strftime("%Y-%m-%d %H:%M:%S")
    lines = ["\t".join(COLUMNS)]
    for onset, duration, kind, confidence in rows:
        channels = "n/a" if kind == BACKGROUND else "all"
        cells = (f"{onset:.2f}", f"{duration:.2f}", kind, confidence, channels, when, f"{recorded.duration_s:.2f}")
        lines.append("\t".join(cells))
    write_lines(path, lines)
