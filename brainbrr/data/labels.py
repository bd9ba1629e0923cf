"""Seizure labels: events of a recording, and from events to masks. Files of them are read and written in `formats`.

Only seizures are events. Background is what lies between them, whether or not a file spells it out.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from brainbrr.data.errors import LabelError

SEIZURE = "seiz"
BACKGROUND = "bckg"
# The types that count as seizure; any other label (`nesz`, a non-epileptic one, say) is reported and is none.
SEIZURE_TYPES = frozenset({SEIZURE, "gnsz", "fnsz", "cpsz", "absz", "spsz", "tcsz", "tnsz", "mysz"})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A seizure: seconds since the first sample, its type (TUSZ's name), and how certain it is (0 to 1)."""

    start_s: float
    stop_s: float
    label: str = SEIZURE
    confidence: float = 1.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LabelFile:
    """What a label file says of one recording.

    `duration_s` and `start` of the recording are None where the file does not say; `ignored` counts entries that are
    neither a seizure with both ends nor background, by what they say.
    """

    path: Path
    events: tuple[Event, ...]
    duration_s: float | None = None
    start: datetime.datetime | None = None
    ignored: dict[str, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """The recording that a label file is written for."""

    name: str
    duration_s: float
    start: datetime.datetime | None


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


def on_grid(events: Iterable[Event], resolution_s: float, *, touching: bool = True) -> tuple[Event, ...]:
    """Events in order of time, their ends rounded to multiples of `resolution_s`, none shorter than one.

    Raises LabelError where that lets two of them overlap (or touch, unless `touching`): a file could not tell them
    apart, and one would be lost.
    """
    placed: list[Event] = []
    for event in sorted(events, key=lambda event: (event.start_s, event.stop_s)):
        start = round(event.start_s / resolution_s)
        stop = max(start + 1, round(event.stop_s / resolution_s))
        last = round(placed[-1].stop_s / resolution_s) if placed else -1
        if start < last or (start == last and not touching):
            raise LabelError(
                f"seizures that end at {placed[-1].stop_s:g} s and begin at {event.start_s:g} s cannot be told apart "
                f"in steps of {resolution_s:g} s; expected a format of finer steps, such as .csv_bi"
            )
        placed.append(dataclasses.replace(event, start_s=start * resolution_s, stop_s=stop * resolution_s))
    return tuple(placed)


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


def _span(event: Event) -> str:
    return f"{event.start_s:g} to {event.stop_s:g} s"
