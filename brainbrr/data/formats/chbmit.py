"""CHB-MIT's `chbNN-summary.txt`: one text file for all recordings of a patient, seizures in whole seconds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from brainbrr.data.errors import LabelError
from brainbrr.data.formats.text import number, read_text, write_lines
from brainbrr.data.labels import Event, LabelFile, Recorded, on_grid

RESOLUTION_S = 1.0
_FILE = re.compile(r"File Name:\s*(\S+)")
_COUNT = re.compile(r"Number of Seizures in File:\s*(\d+)")
_EDGE = re.compile(r"Seizure(?:\s+\d+)?\s+(Start|End)\s+Time:\s*(\S+)(?:\s+seconds?)?", re.IGNORECASE)


def read_summary(path: Path, recording: str) -> LabelFile:
    """The seizures of `recording` (its file's name, or that without `.edf`).

    Raises LabelError where the file does not list it, or lists another number of seizures than it announces.
    """
    block = _block(path, read_text(path).splitlines(), Path(recording).stem)
    starts, stops, announced = list[float](), list[float](), None
    for line_number, line in block:
        if found := _COUNT.match(line.strip()):
            announced = int(found[1])
        elif found := _EDGE.match(line.strip()):
            edge = number(f"{path}:{line_number}", f"Seizure {found[1]} Time", found[2])
            (starts if found[1].lower() == "start" else stops).append(edge)
    if not announced == len(starts) == len(stops) or any(a >= b for a, b in zip(starts, stops, strict=True)):
        raise LabelError(
            f"{path}: {recording}: {announced} seizures announced, {len(starts)} starts and {len(stops)} ends found; "
            "expected as many of each, and every end after its start"
        )
    return LabelFile(
        path=path, events=tuple(Event(start_s=a, stop_s=b) for a, b in sorted(zip(starts, stops, strict=True)))
    )


def _block(path: Path, lines: list[str], stem: str) -> list[tuple[int, str]]:
    """The numbered lines from the recording's own `File Name` to the next."""
    names = {number: found[1] for number, line in enumerate(lines) if (found := _FILE.match(line.strip()))}
    for first, name in names.items():
        if Path(name).stem == stem:
            last = min((number for number in names if number > first), default=len(lines))
            return list(enumerate(lines[first:last], start=first + 1))
    raise LabelError(f"{path}: lists no {stem}.edf; it lists {', '.join(names.values()) or 'no recording'}")


def write_summary(path: Path, events: Sequence[Event], recorded: Recorded) -> None:
    """Write a summary of this one recording."""
    lines = [f"File Name: {Path(recorded.name).stem}.edf", f"Number of Seizures in File: {len(events)}"]
    for index, event in enumerate(on_grid(events, RESOLUTION_S), start=1):
        which = f" {index}" if len(events) > 1 else ""
        lines += [f"Seizure{which} Start Time: {event.start_s:.0f} seconds"]
        lines += [f"Seizure{which} End Time: {event.stop_s:.0f} seconds"]
    write_lines(path, lines)
