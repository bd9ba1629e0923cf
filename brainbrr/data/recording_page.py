"""A recording as one page of pictures: the whole of it, then a closer look at its seizures, findings and faults.

Holds signal: it is written where its reader asks for it, and belongs where the recording does.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from brainbrr.config import ELECTRODES, SAMPLING_RATE
from brainbrr.data.errors import LabelError
from brainbrr.data.formats import read_label_file
from brainbrr.data.inspection import Inspection
from brainbrr.data.montage import Montaged
from brainbrr.data.traces import Marks, traces, usual_amplitude
from brainbrr.page import figure, heading, listing, page, paragraph, table

LOOKS = 12
LOOK_S, BEFORE_S = 30.0, 5.0


def read_marks(inspection: Inspection, predictions: Path | None) -> Marks:
    """The labels that were found, and `predictions`: a label file, or the probabilities that `predict` writes (.npy).

    Raises LabelError for predictions that are neither.
    """
    known = Marks(labels=inspection.seizures, faults=inspection.faults)
    if predictions is None:
        return known
    if predictions.suffix != ".npy":
        found = read_label_file(predictions, Path(inspection.recording).stem).events
        return Marks(labels=known.labels, faults=known.faults, predictions=found)
    try:
        probabilities = np.load(predictions, allow_pickle=False)
    except ValueError as error:
        raise LabelError(f"{predictions}: no NumPy array ({error}); expected the probabilities of predict") from None
    expected = inspection.duration_s * SAMPLING_RATE
    if probabilities.ndim != 1 or abs(probabilities.size - expected) > 1:
        raise LabelError(
            f"{predictions}: an array of shape {probabilities.shape}; expected one probability for each of "
            f"{expected:.0f} samples at {SAMPLING_RATE} Hz: are they of another recording?"
        )
    return Marks(labels=known.labels, faults=known.faults, predictions=(), probabilities=probabilities)


def recording_page(inspection: Inspection, montaged: Montaged, marks: Marks) -> str:
    """The whole page; the same recording gives the same bytes."""
    return page(inspection.recording, _body(inspection, montaged, marks))


def _body(inspection: Inspection, montaged: Montaged, marks: Marks) -> Iterator[str]:
    first, *lines = inspection.text().splitlines()
    yield paragraph(first)
    yield listing(lines)
    row_uv = usual_amplitude(montaged.signal)
    yield paragraph(f"Raw µV against the file's reference; the distance of two electrodes is {row_uv:.0f} µV.")

    def look(start: float, stop: float, why: str) -> str:
        drawn = traces(montaged.signal, inspection.rate, ELECTRODES, marks, start_s=start, stop_s=stop, row_uv=row_uv)
        return figure(drawn, f"{start:g} to {stop:g} s: {why}")

    yield heading("The whole recording")
    yield look(0.0, inspection.duration_s, _legend(marks))
    yield heading("A closer look")
    wanted = list(_looks(inspection, marks))
    for start, stop, why in wanted[:LOOKS]:
        yield look(start, stop, why)
    if len(wanted) > LOOKS:
        yield paragraph(f"{len(wanted) - LOOKS} more places are not drawn.")
    yield heading("Electrodes")
    yield table(_electrode_rows(inspection, montaged))


def _legend(marks: Marks) -> str:
    parts = ["faults shaded grey on their electrode"]
    if marks.labels is not None:
        parts.append("labels above (green)")
    if marks.predictions is not None:
        parts.append("found below (red)" if marks.probabilities is None else "probability below (blue), 0 to 1")
    return "; ".join(parts)


def _looks(inspection: Inspection, marks: Marks) -> Iterator[tuple[float, float, str]]:
    """Places worth a look, each second once: labels, predictions, faults, else the beginning and the middle."""
    places = [(event.start_s, f"{event.label} labelled") for event in marks.labels or ()]
    places += [
        (event.start_s, f"{event.label} found, confidence {event.confidence:.2f}") for event in marks.predictions or ()
    ]
    places += [(fault.start_s, fault.kind) for fault in marks.faults if fault.kind not in ("mains", "duplicated")]
    if not places:
        places = [(BEFORE_S, "the beginning"), (inspection.duration_s / 2, "the middle")]
    seen: set[float] = set()
    for second, why in places:
        start = max(0.0, min(second - BEFORE_S, inspection.duration_s - LOOK_S))
        if not any(abs(start - other) < LOOK_S / 2 for other in seen):
            seen.add(start)
            yield round(start, 2), round(min(start + LOOK_S, inspection.duration_s), 2), why


def _electrode_rows(inspection: Inspection, montaged: Montaged) -> list[list[str]]:
    rows = [["electrode", "usual amplitude, µV", "faults"]]
    for name, amplitude in zip(ELECTRODES, inspection.amplitudes_uv, strict=True):
        kinds = sorted({fault.kind for fault in inspection.faults if name in fault.electrodes})
        kinds += ["interpolated"] if name in montaged.interpolated else []
        rows.append([name, f"{amplitude:.1f}", ", ".join(kinds)])
    return rows
