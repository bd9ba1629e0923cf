"""SeizeIT1's `PATIENT_rN_a1.tsv`: comment lines, then start, stop, type and remarks, separated by tabs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from brainbrr.data.errors import LabelError
from brainbrr.data.formats.text import number, read_text
from brainbrr.data.labels import Event, LabelFile

# Focal awareness, focal impaired awareness, focal to bilateral tonic-clonic.
_TYPES = {"FA": "spsz", "FIA": "cpsz", "FIAS": "cpsz", "F-BTC": "fnsz"}


def read_seizeit(path: Path, recording: str) -> LabelFile:
    """Read the annotator's table. A seizure whose end was not annotated (`None`) is counted and left out."""
    events, others = [], Counter[str]()
    for line_number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        where, cells = f"{path}:{line_number}", line.split("\t")
        if len(cells) < 3:
            raise LabelError(f"{where}: {len(cells)} columns; expected start, stop, type and remarks")
        kind = cells[2].strip()
        if cells[1].strip() == "None":
            others[f"{kind} without an end"] += 1
            continue
        start, stop = number(where, "start", cells[0]), number(where, "stop", cells[1])
        if not 0 <= start < stop:
            raise LabelError(f"{where}: from {start:g} to {stop:g} s; expected 0 <= start < stop")
        events.append(Event(start_s=start, stop_s=stop, label=_TYPES.get(kind, "seiz")))
    events.sort(key=lambda event: (event.start_s, event.stop_s))
    return LabelFile(path=path, events=tuple(events), ignored=dict(sorted(others.items())))
