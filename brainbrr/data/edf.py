"""Reading an EDF file: the electrodes' samples in µV on the axis of true time, and everything odd about the file.

The samples come through edfio, behind the header check of `header`. Measured on the recordings that the tests read
(tests/data/test_reader_choice.py repeats it): mne takes 4 to 12 times the CPU, brings every signal of a file with
several sampling rates to the highest of them, and drops annotations that lie past the end of the samples without a
word; pyedflib refuses recordings that are fine. edfio gives each signal's 16-bit samples at its own rate, lazily. What
it leaves open (time, units, calibration, the count of records) is decided here and in the modules named above.
"""

from __future__ import annotations

import dataclasses
import datetime
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from brainbrr.config import ELECTRODES
from brainbrr.data.annotations import Annotation, AnnotationTable, read_annotations
from brainbrr.data.electrodes import describe_lack, electrode_of, is_bipolar
from brainbrr.data.errors import RecordingError
from brainbrr.data.header import Header, SignalHeader, calibrate, read_header
from brainbrr.data.timeline import Gap, Timeline, lay_records

__all__ = ["Annotation", "Gap", "Recording", "RecordingError", "read_recording"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """The electrodes of a file. Sample i of `signal` lies i / rate seconds after the first.

    `signal`: (n, N) float32 µV, one row for each of `labels` (as the file writes them, in its order); the samples
    inside `gaps` hold the median of their electrode. `found`: the labels of all signals of the file.
    """

    path: Path
    signal: npt.NDArray[np.float32]
    labels: tuple[str, ...]
    rate: float
    start: datetime.datetime | None
    gaps: tuple[Gap, ...]
    annotations: tuple[Annotation, ...]
    notes: tuple[str, ...]
    found: tuple[str, ...]

    @property
    def duration_s(self) -> float:
        """Length on the true axis, gaps included, s."""
        return float(self.signal.shape[1] / self.rate)


def read_recording(path: str | Path, *, derivations: bool = False) -> Recording:
    """Read the 10-20 electrodes of the EDF file at `path`; other signals are not loaded.

    With `derivations`, a bipolar montage is read as it is, for `to_electrodes` to estimate the electrodes from.
    Raises RecordingError with one line that names the file, what was found and what was expected, and OSError for a
    file that cannot be opened.
    """
    path = Path(path)
    header = read_header(path)
    ordinary = [signal for signal in header.signals if not signal.is_annotation]
    wanted = [signal for signal in ordinary if electrode_of(signal.label)]
    found = tuple(signal.label for signal in ordinary)
    if not wanted and derivations:
        wanted = [signal for signal in ordinary if is_bipolar(signal.label)]
    if not wanted:
        raise RecordingError(f"{path}: {describe_lack(ELECTRODES, found)}")
    rate = _common_rate(header, wanted)
    table = read_annotations(header)
    timeline = lay_records(header, table.record_onsets, wanted[0].samples, rate)
    signal = np.empty((len(wanted), timeline.n_samples), dtype=np.float32)
    for row, (digital, signal_header) in enumerate(zip(_read_digital(header, wanted), wanted, strict=True)):
        gain, offset = calibrate(path, signal_header)
        _lay(signal[row], np.multiply(digital, gain, dtype=np.float64) + offset, timeline)
    annotations, notes = _place_annotations(table, timeline.n_samples / rate)
    start = None if header.start is None else header.start + datetime.timedelta(seconds=table.first_s)
    return Recording(
        path=path,
        signal=signal,
        labels=tuple(signal.label for signal in wanted),
        rate=rate,
        start=start,
        gaps=timeline.gaps,
        annotations=annotations,
        notes=(*header.notes, *timeline.notes, *notes),
        found=found,
    )


def _common_rate(header: Header, wanted: Sequence[SignalHeader]) -> float:
    """The one sampling rate of the electrodes, Hz."""
    by_rate: dict[float, list[str]] = {}
    for signal in wanted:
        by_rate.setdefault(header.rate(signal), []).append(signal.label)
    if len(by_rate) > 1:
        parts = "; ".join(f"{rate:g} Hz: {', '.join(labels)}" for rate, labels in sorted(by_rate.items()))
        raise RecordingError(
            f"{header.path}: the electrodes are sampled at {len(by_rate)} rates ({parts}); expected one rate: "
            "export the recording again, nothing is resampled in silence"
        )
    rate = next(iter(by_rate))
    if rate <= 0:
        raise RecordingError(f"{header.path}: the electrodes have 0 samples in a data record; expected at least 1")
    return rate


def _read_digital(header: Header, wanted: Sequence[SignalHeader]) -> list[npt.NDArray[np.int16]]:
    """16-bit samples of each wanted signal, (n_records × samples,). The one place where a library reads the file."""
    import edfio

    with warnings.catch_warnings():
        # edfio warns where the count of records or the size is off; the header check has noted both already.
        warnings.simplefilter("ignore")
        # Latin-1 gives every byte a character, so that an odd unit or label cannot stop the reading.
        edf = edfio.read_edf(header.path, lazy_load_data=True, header_encoding="latin-1")
    ordinary = [signal for signal in header.signals if not signal.is_annotation]
    places = [ordinary.index(signal) for signal in wanted]
    # A file that is still being written may have grown since its header was checked.
    return [edf.signals[i].digital[: header.n_records * ordinary[i].samples] for i in places]


def _lay(row: npt.NDArray[np.float32], microvolts: npt.NDArray[np.float64], timeline: Timeline) -> None:
    """Fill one row of the true axis; gaps get the median, the level at which a step at their ends is smallest."""
    if not timeline.gaps:
        row[:] = microvolts
        return
    row[:] = np.median(microvolts)
    for start, piece in zip(timeline.starts, microvolts.reshape(len(timeline.starts), -1), strict=True):
        row[start : start + len(piece)] = piece


def _place_annotations(table: AnnotationTable, duration_s: float) -> tuple[tuple[Annotation, ...], list[str]]:
    """Annotations in seconds since the first sample, those past the end flagged."""
    first = table.first_s
    placed = tuple(
        dataclasses.replace(entry, onset_s=entry.onset_s - first, past_end=entry.onset_s - first > duration_s)
        for entry in table.annotations
    )
    notes = []
    late = [entry for entry in placed if entry.past_end]
    if late:
        notes.append(
            f"{len(late)} annotation(s) lie past the end of the signal at {duration_s:g} s, the last at "
            f"{late[-1].onset_s:g} s; kept"
        )
    if table.malformed:
        notes.append(f"{table.malformed} annotation(s) could not be parsed and were left out")
    return placed, notes
