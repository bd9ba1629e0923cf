"""Label files of every kind that corpora of scalp EEG come with, behind one registry.

One file a format: each reads a `LabelFile` from a path (and the recording's name, where a file lists many) and writes
one. `find_labels` finds what lies beside a recording.
"""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from brainbrr.data.errors import LabelError, RecordingError
from brainbrr.data.formats.bids import read_events_tsv, write_events_tsv
from brainbrr.data.formats.chbmit import read_summary, write_summary
from brainbrr.data.formats.edfplus import read_edf_annotations, write_edf_annotations
from brainbrr.data.formats.seizeit import read_seizeit
from brainbrr.data.formats.siena import read_seizure_list, write_seizure_list
from brainbrr.data.formats.tse import read_tse, write_tse
from brainbrr.data.formats.tusz import read_csv, write_csv, write_csv_bi
from brainbrr.data.labels import Event, LabelFile, Recorded, unite

Read = Callable[[Path, str], LabelFile]
Write = Callable[[Path, Sequence[Event], Recorded], None]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LabelFormat:
    """A format: how its files are named, and its functions. `lists`: one file stands for several recordings."""

    name: str
    pattern: str
    read: Read
    write: Write | None
    lists: bool = False


# In the order in which files beside a recording are preferred, and patterns are tried.
FORMATS = {
    form.name: form
    for form in (
        LabelFormat(name="csv_bi", pattern="*.csv_bi", read=read_csv, write=write_csv_bi),
        LabelFormat(name="csv", pattern="*.csv", read=read_csv, write=write_csv),
        LabelFormat(name="tse_bi", pattern="*.tse_bi", read=read_tse, write=write_tse),
        LabelFormat(name="tse", pattern="*.tse", read=read_tse, write=write_tse),
        LabelFormat(name="seizeit", pattern="*_a[0-9].tsv", read=read_seizeit, write=None),
        LabelFormat(name="bids", pattern="*.tsv", read=read_events_tsv, write=write_events_tsv),
        LabelFormat(name="chbmit", pattern="*-summary.txt", read=read_summary, write=write_summary, lists=True),
        LabelFormat(
            name="siena", pattern="seizures-list*.txt", read=read_seizure_list, write=write_seizure_list, lists=True
        ),
        LabelFormat(name="edf+", pattern="*.edf", read=read_edf_annotations, write=write_edf_annotations),
    )
}


def format_of(path: Path, layout: str | None = None) -> LabelFormat:
    """The format named `layout`, or the first whose pattern the file's name fits. Raises LabelError for neither."""
    if layout is not None:
        if layout not in FORMATS:
            raise LabelError(f"no label format is named {layout!r}; expected one of {', '.join(FORMATS)}")
        return FORMATS[layout]
    for form in FORMATS.values():
        if fnmatch.fnmatch(path.name.lower(), form.pattern):
            return form
    patterns = ", ".join(f"{form.pattern} ({form.name})" for form in FORMATS.values())
    raise LabelError(f"{path}: no known kind of label file; expected {patterns}, or the format's name by --layout")


def read_label_file(path: str | Path, recording: str | None = None, layout: str | None = None) -> LabelFile:
    """What the file says of `recording` (by default the one it is named after).

    Raises LabelError naming file and line for what cannot be understood.
    """
    path = Path(path)
    form = format_of(path, layout)
    if form.lists and recording is None:
        raise LabelError(f"{path}: may list several recordings; name the one by --recording")
    return form.read(path, recording or path.stem)


def write_label_file(
    path: str | Path, labels: LabelFile, recording: str | None = None, layout: str | None = None
) -> None:
    """Write the labels of one recording, overlapping ones joined.

    Raises LabelError for an event outside of the recording, a recording of unknown length, and a format that is not
    written.
    """
    path = Path(path)
    form = format_of(path, layout)
    if form.write is None:
        raise LabelError(f"{path}: {form.name} is read and not written; expected another format, such as csv_bi")
    if labels.duration_s is None:
        raise LabelError(f"{labels.path}: does not say how long the recording is; give it by --duration")
    for event in labels.events:
        if not 0 <= event.start_s < event.stop_s <= labels.duration_s:
            raise LabelError(
                f"{path}: event {event.start_s:g} to {event.stop_s:g} s; "
                f"expected 0 <= start < stop <= {labels.duration_s:g} s"
            )
    recorded = Recorded(name=recording or path.stem, duration_s=labels.duration_s, start=labels.start)
    form.write(path, unite(labels.events, touching=False), recorded)


def find_labels(edf_path: str | Path) -> Path | None:
    """The label file beside a recording, the recording itself when its annotations name seizures, or None."""
    return next(_beside(Path(edf_path)), None)


def _beside(edf: Path) -> Iterator[Path]:
    names = [f"{edf.stem}{suffix}" for suffix in (".csv_bi", ".csv", ".tse_bi", ".tse")]
    names += [f"{edf.stem.removesuffix('_eeg')}_events.tsv", f"{edf.stem}_a1.tsv"]
    yield from (path for name in names if (path := edf.with_name(name)).is_file())
    for form in (form for form in FORMATS.values() if form.lists):
        for path in sorted(edf.parent.iterdir() if edf.parent.is_dir() else ()):
            if fnmatch.fnmatch(path.name.lower(), form.pattern) and edf.stem in path.read_text(errors="replace"):
                yield path
    try:
        if edf.is_file() and read_edf_annotations(edf, edf.stem).events:
            yield edf
    except RecordingError:
        return  # said by whoever reads the recording


def read_labels(edf_path: str | Path) -> tuple[Event, ...] | None:
    """The seizures of a recording in order of time; empty when it is labelled and has none, None when unlabelled.

    Raises LabelError naming file and line for a line that cannot be understood.
    """
    path = find_labels(edf_path)
    return None if path is None else read_label_file(path, Path(edf_path).stem).events
