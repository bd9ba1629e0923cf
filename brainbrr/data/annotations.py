"""EDF+ annotation signals: when each data record begins, and what was written beside the signal.

Read here and not by a library, because the two that could both lose something: one drops every annotation past the
end of the samples, and neither lets the onsets of the records decide where samples lie.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from brainbrr.data.header import Header

_TIMING = re.compile(rb"([+-]\d+(?:\.\d*)?)(?:\x15(\d+(?:\.\d*)?))?")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Annotation:
    """A note beside the signal; seconds since the first sample. `past_end`: it starts behind the last sample."""

    onset_s: float
    duration_s: float | None
    text: str
    past_end: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AnnotationTable:
    """All annotations of a file, in seconds since the start in its header.

    `record_onsets`: (n_records,) float64 s, NaN where a record does not say; None in a file without annotation signals.
    `malformed`: entries that could not be parsed.
    """

    record_onsets: npt.NDArray[np.float64] | None
    annotations: tuple[Annotation, ...]
    malformed: int

    @property
    def first_s(self) -> float:
        """When the first record begins; a fraction of a second where the header's start had to be a whole one."""
        return 0.0 if self.record_onsets is None or np.isnan(self.record_onsets[0]) else float(self.record_onsets[0])


def read_annotations(header: Header) -> AnnotationTable:
    """Parse every annotation signal of the file that `header` describes."""
    signals = [signal for signal in header.signals if signal.is_annotation and signal.samples]
    if not signals or header.kind == "EDF":
        return AnnotationTable(record_onsets=None, annotations=(), malformed=0)
    data = np.memmap(
        header.path,
        dtype="<i2",
        mode="r",
        offset=header.header_bytes,
        shape=(header.n_records, header.record_samples),
    )
    onsets = np.full(header.n_records, np.nan)
    found: list[Annotation] = []
    malformed = 0
    for place, signal in enumerate(signals):
        chunks = np.ascontiguousarray(data[:, signal.first : signal.first + signal.samples])
        for record, chunk in enumerate(chunks):
            for position, entry in enumerate(_entries(chunk.tobytes())):
                parsed = _parse(entry)
                if parsed is None:
                    malformed += 1
                    continue
                onset, duration, texts = parsed
                if place == 0 and position == 0:
                    onsets[record] = onset  # the first entry of a record keeps the time
                found.extend(Annotation(onset_s=onset, duration_s=duration, text=text) for text in texts if text)
    found.sort(key=lambda annotation: annotation.onset_s)
    return AnnotationTable(record_onsets=onsets, annotations=tuple(found), malformed=malformed)


def _entries(chunk: bytes) -> Iterator[bytes]:
    for entry in chunk.split(b"\x14\x00"):
        stripped = entry.strip(b"\x00")
        if stripped:
            yield stripped


def _parse(entry: bytes) -> tuple[float, float | None, list[str]] | None:
    timing, *texts = entry.split(b"\x14")
    match = _TIMING.fullmatch(timing)
    if match is None:
        return None
    duration = None if match[2] is None else float(match[2])
    return float(match[1]), duration, [text.decode("utf-8", errors="replace") for text in texts]
