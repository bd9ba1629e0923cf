"""From one label format to another."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from brainbrr.data.formats import read_label_file, write_label_file
from brainbrr.data.header import read_header
from brainbrr.data.labels import LabelFile


def convert_labels(
    source: Path,
    target: Path,
    *,
    recording: str | None = None,
    duration_s: float | None = None,
    layout: str | None = None,
    target_layout: str | None = None,
) -> LabelFile:
    """Write the labels in `source` to `target`; returns what was read.

    `recording` names one of a list of many; where it is an EDF file, that gives length and start. `duration_s` goes
    before both. Raises LabelError for files that cannot be read or written, RecordingError for the EDF file.
    """
    edf = Path(recording) if recording else None
    name = edf.stem if edf else None
    labels = read_label_file(source, name, layout)
    if edf is not None and edf.is_file():
        header = read_header(edf)
        labels = dataclasses.replace(labels, duration_s=header.n_records * header.record_s, start=header.start)
    if duration_s is not None:
        labels = dataclasses.replace(labels, duration_s=duration_s)
    write_label_file(target, labels, name or source.name.split(".")[0].removesuffix("_events"), target_layout)
    return labels
