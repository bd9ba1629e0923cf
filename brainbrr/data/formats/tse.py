"""TSE and TSE_BI, the tables of earlier TUSZ releases: `start stop label probability`, separated by spaces."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from brainbrr.data.errors import LabelError
from brainbrr.data.formats.text import number, read_text, write_lines
from brainbrr.data.labels import BACKGROUND, SEIZURE, SEIZURE_TYPES, Event, LabelFile, Recorded, on_grid

RESOLUTION_S = 1e-4
_VERSION = re.compile(r"version\s*=\s*(\S+)")


def read_tse(path: Path, recording: str) -> LabelFile:
    """Read a TSE or TSE_BI file; it ends where its last row does. Raises LabelError naming file and line."""
    events, others, end_s = [], Counter[str](), 0.0
    for line_number, line in enumerate(read_text(path).splitlines(), start=1):
        where, version = f"{path}:{line_number}", _VERSION.fullmatch(line.strip())
        if version:
            if not version[1].startswith("tse_v1."):
                raise LabelError(f"{where}: version {version[1]!r}; expected tse_v1")
        elif line.strip() and not line.startswith("#"):
            event = _row(where, line.split())
            end_s = max(end_s, event.stop_s)
            if event.label in SEIZURE_TYPES:
                events.append(event)
            elif event.label != BACKGROUND:
                others[event.label] += 1
    if not end_s:
        raise LabelError(f"{path}: no row; expected lines of start, stop, label, probability: the file is empty")
    events.sort(key=lambda event: (event.start_s, event.stop_s))
    return LabelFile(path=path, events=tuple(events), duration_s=end_s, ignored=dict(sorted(others.items())))


def _row(where: str, cells: list[str]) -> Event:
    if len(cells) != 4:
        raise LabelError(f"{where}: {len(cells)} columns; expected 4: start, stop, label, probability")
    start, stop, confidence = (
        number(where, name, cells[i]) for name, i in (("start", 0), ("stop", 1), ("probability", 3))
    )
    if not 0 <= start < stop:
        raise LabelError(f"{where}: from {start:g} to {stop:g} s; expected 0 <= start < stop")
    return Event(start_s=start, stop_s=stop, label=cells[2].lower(), confidence=confidence)


def write_tse(path: Path, events: Sequence[Event], recorded: Recorded) -> None:
    """Write rows that cover the recording; seizures keep their type, in `.tse_bi` they are `seiz`."""
    lines, at = ["version = tse_v1.0.0", ""], 0.0
    for event in on_grid(events, RESOLUTION_S):
        if event.start_s > at:
            lines.append(f"{at:.4f} {event.start_s:.4f} {BACKGROUND} 1.0000")
        label = SEIZURE if path.suffix == ".tse_bi" else event.label
        lines.append(f"{event.start_s:.4f} {event.stop_s:.4f} {label} {event.confidence:.4f}")
        at = event.stop_s
    if at < recorded.duration_s:
        lines.append(f"{at:.4f} {recorded.duration_s:.4f} {BACKGROUND} 1.0000")
    write_lines(path, lines)
