"""Siena's `Seizures-list-PNNN.txt`: one text file for all recordings of a patient, in times of day."""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence
from pathlib import Path

from brainbrr.data.errors import LabelError
from brainbrr.data.formats.text import read_text, write_lines
from brainbrr.data.labels import Event, LabelFile, Recorded, on_grid

RESOLUTION_S = 1.0
_FIELD = re.compile(
    r"(File name|Registration (?:start|end) time|(?:Seizure )?(?:start|end) time)\s*:\s*(.*)", re.IGNORECASE
)
_CLOCK = re.compile(r"(\d{1,2})[.:](\d{1,2})[.:](\d{1,2})")
_DAY_S = 86_400


def read_seizure_list(path: Path, recording: str) -> LabelFile:
    """The seizures of `recording`; its length is that of the registration. Midnight may lie in between.

    Raises LabelError where the file does not list the recording or a time cannot be understood.
    """
    stem, current, names = Path(recording).stem, "", list[str]()
    registration: dict[str, int] = {}
    starts, stops = list[int](), list[int]()
    for line_number, line in enumerate(read_text(path).splitlines(), start=1):
        found = _FIELD.match(line.strip())
        if found is None:
            continue
        field, value, where = found[1].lower(), found[2].strip(), f"{path}:{line_number}"
        if field == "file name":
            current = Path(value).stem.replace(" ", "")
            names.append(current)
        elif current == stem and field.startswith("registration"):
            registration[field.split()[1]] = _clock(where, value)
        elif current == stem:
            (starts if "start" in field else stops).append(_clock(where, value))
    if stem not in names:
        raise LabelError(f"{path}: lists no {stem}.edf; it lists {', '.join(dict.fromkeys(names)) or 'no recording'}")
    if "start" not in registration or len(starts) != len(stops):
        raise LabelError(
            f"{path}: {stem}: {len(starts)} seizure starts and {len(stops)} ends, registration "
            f"{'given' if registration else 'missing'}; expected as many of each and the registration's start time"
        )
    begin = registration["start"]
    events = [_event(begin, start, stop) for start, stop in zip(starts, stops, strict=True)]
    return LabelFile(
        path=path,
        events=tuple(sorted(events, key=lambda event: (event.start_s, event.stop_s))),
        duration_s=float((registration["end"] - begin) % _DAY_S) if "end" in registration else None,
        start=datetime.datetime(2000, 1, 1) + datetime.timedelta(seconds=begin),
    )


def _event(begin: int, start: int, stop: int) -> Event:
    start_s = (start - begin) % _DAY_S
    return Event(start_s=float(start_s), stop_s=float(start_s + (stop - start) % _DAY_S))


def _clock(where: str, text: str) -> int:
    """Seconds since midnight."""
    found = _CLOCK.search(text)
    if found is None or int(found[1]) > 23 or int(found[2]) > 59 or int(found[3]) > 59:
        raise LabelError(f"{where}: found {text!r}; expected a time of day such as 19.58.36")
    return 3600 * int(found[1]) + 60 * int(found[2]) + int(found[3])


def write_seizure_list(path: Path, events: Sequence[Event], recorded: Recorded) -> None:
    """Write the list of this one recording. Raises LabelError for one of a day or more: times of day would repeat."""
    start = recorded.start or datetime.datetime(2000, 1, 1)
    if recorded.duration_s >= _DAY_S:
        raise LabelError(f"{path}: times of day cannot tell {recorded.duration_s:g} s apart; expected less than a day")

    def clock(seconds: float) -> str:
        return (start + datetime.timedelta(seconds=round(seconds))).strftime("%H.%M.%S")

    head = [
        f"File name: {Path(recorded.name).stem}.edf",
        f"Registration start time: {clock(0)}",
        f"Registration end time: {clock(recorded.duration_s)}",
    ]
    lines: list[str] = [] if events else head
    for index, event in enumerate(on_grid(events, RESOLUTION_S), start=1):
        times = [f"Seizure start time: {clock(event.start_s)}", f"Seizure end time: {clock(event.stop_s)}", ""]
        lines += [f"Seizure n {index}", *head, *times]
    write_lines(path, lines)
