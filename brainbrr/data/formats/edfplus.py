"""EDF+ annotations: what EDFbrowser and MNE show beside the signal."""

from __future__ import annotations

import dataclasses
import datetime
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from brainbrr.data.annotations import Annotation, read_annotations
from brainbrr.data.header import read_header
from brainbrr.data.labels import BACKGROUND, SEIZURE, SEIZURE_TYPES, Event, LabelFile, Recorded, on_grid
from brainbrr.files import atomic_write

RESOLUTION_S = 1e-4
_SEIZURE = re.compile(r"(?:seizures?|sz|ictal)\b", re.IGNORECASE)
_EDGE = re.compile(r"\b(start|onset|begins?|end|stop|offset)\b", re.IGNORECASE)


def read_edf_annotations(path: Path, recording: str) -> LabelFile:
    """Annotations that speak of a seizure: with a duration, or as a pair of start and end.

    Others are counted, as are seizures without an end. A file of annotations alone has no length of its own.
    """
    header = read_header(path)
    events: list[Event] = []
    others = Counter[str]()
    begun: Annotation | None = None
    table = read_annotations(header)
    for note in (
        dataclasses.replace(note, onset_s=round(note.onset_s - table.first_s, 6)) for note in table.annotations
    ):
        text = note.text.strip()
        label = text.lower() if text.lower() in SEIZURE_TYPES else SEIZURE
        if text.lower() not in SEIZURE_TYPES and not _SEIZURE.match(text):
            others[text] += text.lower() != BACKGROUND
            continue
        edge = _EDGE.search(text)
        if note.duration_s:
            events.append(Event(start_s=note.onset_s, stop_s=note.onset_s + note.duration_s, label=label))
        elif edge is not None and edge[1].lower() in ("end", "stop", "offset") and begun is not None:
            events.append(Event(start_s=begun.onset_s, stop_s=note.onset_s))
            begun = None
        elif edge is not None and begun is None:
            begun = note
        else:
            others[f"{text} without an end"] += 1
    if begun is not None:
        others[f"{begun.text} without an end"] += 1
    events.sort(key=lambda event: (event.start_s, event.stop_s))
    return LabelFile(
        path=path,
        events=tuple(events),
        duration_s=header.n_records * header.record_s or None,
        start=None if header.start is None else header.start + datetime.timedelta(seconds=table.first_s),
        ignored={text: count for text, count in sorted(others.items()) if count},
    )


def write_edf_annotations(path: Path, events: Sequence[Event], recorded: Recorded) -> None:
    """Write an EDF+ file of annotations alone, one for each seizure."""
    import edfio

    # The format has no file without annotations: a recording without seizure says so.
    quiet = [] if events else [edfio.EdfAnnotation(0, recorded.duration_s, BACKGROUND)]
    notes = quiet + [
        edfio.EdfAnnotation(round(event.start_s, 4), round(event.stop_s - event.start_s, 4), event.label)
        for event in on_grid(events, RESOLUTION_S)
    ]
    start = recorded.start
    edf = edfio.Edf(
        [],
        annotations=notes,
        recording=edfio.Recording(startdate=None if start is None else start.date()),
        starttime=None if start is None else start.time(),
    )
    with atomic_write(path) as file:
        file.write(edf.to_bytes())
