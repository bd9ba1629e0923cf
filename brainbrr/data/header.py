"""The header of an EDF file, checked field by field before any library reads the file.

Libraries accept much in silence that changes what the numbers mean. Here every field that matters is parsed once; what
cannot be right is refused by one line that names file, field, what was found and what was expected; what can be
repaired without a guess (a colon in the date, a count of records that the file's size contradicts) is repaired and
noted.
"""

from __future__ import annotations

import dataclasses
import datetime
import math
import re
from pathlib import Path
from typing import Literal

from brainbrr.data.errors import RecordingError

ANNOTATIONS = "EDF Annotations"
_MAIN = (
    ("version", 8),
    ("patient", 80),
    ("recording", 80),
    ("start date", 8),
    ("start time", 8),
    ("number of header bytes", 8),
    ("reserved", 44),
    ("number of data records", 8),
    ("duration of a data record", 8),
    ("number of signals", 4),
)
_SIGNAL = (
    ("label", 16),
    ("transducer", 80),
    ("physical dimension", 8),
    ("physical minimum", 8),
    ("physical maximum", 8),
    ("digital minimum", 8),
    ("digital maximum", 8),
    ("prefiltering", 80),
    ("samples in a data record", 8),
    ("reserved", 32),
)
_PROBE = 1 << 16  # bytes of data looked at for signs of a text conversion


class _TurnedIntoText(RecordingError):
    """The file's bytes were converted as if they were text."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SignalHeader:
    """One signal as its header describes it; calibration fields are text until the signal is needed.

    `first` and `samples` are its place and length in each data record, in 16-bit samples.
    """

    label: str
    unit: str
    physical_min: str
    physical_max: str
    digital_min: str
    digital_max: str
    first: int
    samples: int

    @property
    def is_annotation(self) -> bool:
        """Whether it carries EDF+ annotations and no samples."""
        return self.label == ANNOTATIONS


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """A checked header. `n_records` is what the file really holds, whole records only; `record_s` in seconds."""

    path: Path
    kind: Literal["EDF", "EDF+C", "EDF+D"]
    start: datetime.datetime | None
    header_bytes: int
    n_records: int
    record_s: float
    signals: tuple[SignalHeader, ...]
    notes: tuple[str, ...]

    @property
    def record_samples(self) -> int:
        """16-bit samples in a data record, over all signals."""
        return sum(signal.samples for signal in self.signals)

    def rate(self, signal: SignalHeader) -> float:
        """Sampling rate of a signal, Hz."""
        return signal.samples / self.record_s


def read_header(path: Path) -> Header:
    """Read and check the header of the EDF file at `path`. Raises RecordingError, OSError for an unreadable file."""
    try:
        return _read_header(path)
    except _TurnedIntoText:
        raise
    except RecordingError:
        # A byte of the header above 127 has shifted all fields behind it: those are the symptom, not the cause.
        _require_binary(path, path.stat().st_size, 256, None)
        raise


def _read_header(path: Path) -> Header:
    size = path.stat().st_size
    with path.open("rb") as file:
        main = file.read(256)
        _require_edf(path, main, size)
        values = _fields(main, _MAIN)
        n_signals = _integer(path, "number of signals", values["number of signals"], 1, 9999)
        table = file.read(256 * n_signals)
    header_bytes = 256 * (n_signals + 1)
    if len(table) < 256 * n_signals:
        raise RecordingError(
            f"{path}: the file ends inside its header: {size} bytes, expected {header_bytes} for {n_signals} signals "
            "and data behind them; copy the file again"
        )
    stated = _integer(path, "number of header bytes", values["number of header bytes"], 256, 1 << 30)
    if stated != header_bytes:
        raise _refusal(path, "number of header bytes", str(stated), f"{header_bytes} for {n_signals} signals")
    record_s = _decimal(path, "duration of a data record", values["duration of a data record"])
    signals = _signals(path, table, n_signals)
    # EDF+ gives a file of annotations alone records of no length.
    if record_s < 0 or (record_s == 0 and not all(signal.is_annotation for signal in signals)):
        raise _refusal(path, "duration of a data record", f"{record_s:g} s", "more than 0 s")
    n_records, size_notes = _count_records(path, size, header_bytes, signals, values["number of data records"])
    start, date_notes = _start(values["start date"], values["start time"])
    return Header(
        path=path,
        kind=_kind(values["reserved"]),
        start=start,
        header_bytes=header_bytes,
        n_records=n_records,
        record_s=record_s,
        signals=signals,
        notes=(*size_notes, *date_notes),
    )


def calibrate(path: Path, signal: SignalHeader) -> tuple[float, float]:
    """Gain and offset of a signal: µV = gain × digital + offset. Raises RecordingError for what has no meaning."""
    ends = {}
    for end in ("physical_min", "physical_max", "digital_min", "digital_max"):
        name = f"{end.replace('_min', ' minimum').replace('_max', ' maximum')} of {signal.label!r}"
        ends[end] = _decimal(path, name, getattr(signal, end))
    for kind in ("physical", "digital"):
        if ends[f"{kind}_min"] == ends[f"{kind}_max"]:
            raise _refusal(
                path,
                f"{kind} range of {signal.label!r}",
                f"{ends[f'{kind}_min']:g} to {ends[f'{kind}_max']:g}",
                "a minimum that differs from the maximum",
            )
    gain = (ends["physical_max"] - ends["physical_min"]) / (ends["digital_max"] - ends["digital_min"])
    factor = _microvolts(path, signal)
    return gain * factor, (ends["physical_min"] - gain * ends["digital_min"]) * factor


def _microvolts(path: Path, signal: SignalHeader) -> float:
    # µ arrives as Latin-1 (one byte), as UTF-8 (two) or as the Greek letter in UTF-8.
    unit = signal.unit.replace("Âµ", "u").replace("Î¼", "u").replace("µ", "u")
    # Only the prefix's case carries meaning ("MV" would be a million volts), and only V is ever written otherwise.
    factor = {"uv": 1.0, "mv": 1e3, "v": 1e6, "nv": 1e-3}.get(unit.lower())
    if factor is None or unit.startswith("M"):
        raise RecordingError(
            f"{path}: physical dimension of {signal.label!r} is {signal.unit!r}; expected uV, mV, V or nV: "
            "correct the unit in the header, amplitudes are not guessed"
        )
    return factor


def _require_edf(path: Path, main: bytes, size: int) -> None:
    if main[:1] == b"\xff":
        raise RecordingError(f"{path}: a BDF file (24-bit); expected EDF (16-bit): convert it first")
    if not size:
        raise RecordingError(f"{path}: the file is empty; expected an EDF recording: copy the file again")
    if main[:8].strip(b" \0") != b"0":
        raise RecordingError(f"{path}: not an EDF file: it begins with {main[:8]!r}; expected b'0       '")
    if size < 256:
        raise RecordingError(f"{path}: the file ends inside its header: {size} bytes, expected at least 512")


def _fields(block: bytes, layout: tuple[tuple[str, int], ...]) -> dict[str, str]:
    values, at = {}, 0
    for name, width in layout:
        values[name] = block[at : at + width].decode("latin-1").strip(" \0")
        at += width
    return values


def _signals(path: Path, table: bytes, n_signals: int) -> tuple[SignalHeader, ...]:
    columns: dict[str, list[str]] = {}
    at = 0
    for name, width in _SIGNAL:
        cells = (table[at + i * width : at + (i + 1) * width] for i in range(n_signals))
        columns[name] = [cell.decode("latin-1").strip(" \0") for cell in cells]
        at += width * n_signals
    signals, first = [], 0
    for i in range(n_signals):
        label = columns["label"][i]
        samples = _integer(
            path, f"samples in a data record of {label!r}", columns["samples in a data record"][i], 0, 1 << 24
        )
        signals.append(
            SignalHeader(
                label=label,
                unit=columns["physical dimension"][i],
                physical_min=columns["physical minimum"][i],
                physical_max=columns["physical maximum"][i],
                digital_min=columns["digital minimum"][i],
                digital_max=columns["digital maximum"][i],
                first=first,
                samples=samples,
            )
        )
        first += samples
    return tuple(signals)


def _count_records(
    path: Path, size: int, header_bytes: int, signals: tuple[SignalHeader, ...], stated_text: str
) -> tuple[int, list[str]]:
    """Whole data records in the file, and what differs from the header's count."""
    stated = _integer(path, "number of data records", stated_text, -1, 1 << 40)
    record_bytes = 2 * sum(signal.samples for signal in signals)
    held, rest = divmod(size - header_bytes, record_bytes) if record_bytes else (0, 0)
    notes = []
    if stated != held or rest:
        _require_binary(path, size, header_bytes, header_bytes + record_bytes * max(stated, 0))
    if not held:
        raise RecordingError(
            f"{path}: no whole data record: {size - header_bytes} bytes behind the header, expected at least "
            f"{record_bytes}; copy the file again"
        )
    if stated == -1:
        notes.append(f"the number of data records is -1 (recording not closed); the file's size gives {held}")
    elif stated > held:
        notes.append(f"truncated: {held} of {stated} data records are there")
    elif stated < held:
        notes.append(f"longer than its header says: {held} data records instead of {stated}; all are used")
    if rest:
        notes.append(f"{rest} bytes at the end are no whole data record and were left out")
    return held, notes


def _require_binary(path: Path, size: int, header_bytes: int, expected: int | None) -> None:
    """Refuse a file that went through a conversion to UTF-8 text: its samples are garbage that still looks like EEG."""
    with path.open("rb") as file:
        file.seek(header_bytes)
        probe = file.read(_PROBE)
    high = sum(byte >= 0x80 for byte in probe)
    # 16-bit samples are valid UTF-8 by accident only when they hold next to no bytes above 127.
    for cut in range(4):
        try:
            probe[: len(probe) - cut].decode("utf-8")
        except UnicodeDecodeError:
            continue
        if high >= 32:
            raise _TurnedIntoText(
                f"{path}: converted to UTF-8 text on its way here: {size} bytes, expected "
                f"{'fewer' if expected is None else expected}, and every byte above 127 became two or three; the "
                "samples are lost, copy the original as binary"
            )
        return


def _kind(reserved: str) -> Literal["EDF", "EDF+C", "EDF+D"]:
    if reserved.startswith("EDF+D"):
        return "EDF+D"
    return "EDF+C" if reserved.startswith("EDF+C") else "EDF"


def _start(date: str, time: str) -> tuple[datetime.datetime | None, list[str]]:
    """Start of the recording; the date is used for nothing but display, so that a broken one is noted, not refused."""
    parts = [re.fullmatch(r"\s*(\d{1,2})(\D)(\d{1,2})(\D)(\d{1,2})\s*", text) for text in (date, time)]
    if parts[0] is None or parts[1] is None:
        return None, [f"start {date!r} {time!r} is no date and time; expected dd.mm.yy and hh.mm.ss"]
    day, month, year = (int(parts[0][i]) for i in (1, 3, 5))
    hour, minute, second = (int(parts[1][i]) for i in (1, 3, 5))
    try:
        start = datetime.datetime(year + (1900 if year >= 85 else 2000), month, day, hour, minute, second)
    except ValueError:
        return None, [f"start {date!r} {time!r} is not on the calendar; expected dd.mm.yy and hh.mm.ss"]
    regular = {parts[0][2], parts[0][4], parts[1][2], parts[1][4]} == {"."}
    return start, [] if regular else [f"start {date!r} {time!r} is written without dots; read as {start.isoformat()}"]


def _integer(path: Path, field: str, text: str, low: int, high: int) -> int:
    if not re.fullmatch(r"[+-]?\d+", text) or not low <= int(text) <= high:
        raise _refusal(path, field, repr(text), f"a whole number from {low} to {high}")
    return int(text)


def _decimal(path: Path, field: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise _refusal(path, field, repr(text), "a number")
    return value


def _refusal(path: Path, field: str, found: str, expected: str) -> RecordingError:
    return RecordingError(f"{path}: {field} is {found}; expected {expected}: the header is damaged")
