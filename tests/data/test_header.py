"""The header check: what cannot be right is refused by one line that names file, field, found and expected."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from brainbrr.data.edf import read_recording
from brainbrr.data.errors import RecordingError
from brainbrr.data.header import read_header

NS = 19
# offset of the first cell of a signal column
COLUMN = dict(
    zip(
        ("label", "transducer", "unit", "pmin", "pmax", "dmin", "dmax", "prefilter", "samples"),
        (256 + NS * at for at in (0, 16, 96, 104, 112, 120, 128, 136, 216)),
        strict=True,
    )
)


@pytest.fixture
def path(write_edf: Callable[..., Path], eeg: Callable[..., dict]) -> Path:
    return write_edf(eeg(4))


def patch(path: Path, at: int, value: bytes, width: int = 8) -> None:
    content = bytearray(path.read_bytes())
    content[at : at + width] = value.ljust(width)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("at", "value", "width", "found", "expected"),
    [
        (252, b"nine", 4, "number of signals is 'nine'", "a whole number from 1"),
        (252, b"0", 4, "number of signals is '0'", "a whole number from 1"),
        (184, b"4864", 8, "number of header bytes is 4864", "5120 for 19 signals"),
        (236, b"many", 8, "number of data records is 'many'", "a whole number from -1"),
        (244, b"0", 8, "duration of a data record is 0 s", "more than 0 s"),
        (244, b"nan", 8, "duration of a data record is 'nan'", "a number"),
        (244, b"1,0", 8, "duration of a data record is '1,0'", "a number"),
        (COLUMN["samples"], b"-1", 8, "samples in a data record of 'EEG FP1-REF' is '-1'", "from 0"),
        (COLUMN["pmin"], b"3276.7", 8, "physical range of 'EEG FP1-REF' is 3276.7 to 3276.7", "differs"),
        (COLUMN["dmax"], b"-32768", 8, "digital range of 'EEG FP1-REF' is -32768 to -32768", "differs"),
        (COLUMN["pmax"], b"inf", 8, "physical maximum of 'EEG FP1-REF' is 'inf'", "a number"),
        (COLUMN["unit"], b"furlong", 8, "physical dimension of 'EEG FP1-REF' is 'furlong'", "uV, mV, V or nV"),
        (COLUMN["unit"], b"", 8, "physical dimension of 'EEG FP1-REF' is ''", "uV, mV, V or nV"),
        (COLUMN["unit"], b"MV", 8, "physical dimension of 'EEG FP1-REF' is 'MV'", "uV, mV, V or nV"),
    ],
)
def test_a_damaged_field_is_named(path: Path, at: int, value: bytes, width: int, found: str, expected: str) -> None:
    patch(path, at, value, width)
    with pytest.raises(RecordingError) as error:
        read_recording(path)
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    assert found in message
    assert expected in message.partition("; expected ")[2]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"\xffBIOSEMI" + b" " * 300, "a BDF file"),
        (b"GDF 2.20" + b" " * 300, "not an EDF file: it begins with b'GDF 2.20'"),
        (b"0       " + b" " * 50, "the file ends inside its header: 58 bytes"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x.edf"
    path.write_bytes(content)
    with pytest.raises(RecordingError, match=r"x\.edf: ") as error:
        read_header(path)
    assert message in str(error.value)


def test_a_file_cut_inside_the_signal_table_is_refused(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(RecordingError, match="ends inside its header: 3000 bytes, expected 5120"):
        read_header(path)


@pytest.mark.parametrize("left", [0, 100])
def test_a_file_without_a_whole_record_is_refused(path: Path, left: int) -> None:
    path.write_bytes(path.read_bytes()[: 5120 + left])
    with pytest.raises(RecordingError, match=f"no whole data record: {left} bytes .* expected at least {19 * 512}"):
        read_header(path)


def test_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_header(tmp_path / "none.edf")


def test_a_sound_header_gives_no_notes(path: Path) -> None:
    header = read_header(path)
    assert header.notes == ()
    assert (header.kind, header.n_records, header.record_s, header.header_bytes) == ("EDF", 4, 1.0, 5120)
    assert header.start is not None
    assert header.start.isoformat() == "2020-02-01T03:04:05"


def test_minus_one_records_are_counted_by_size(write_edf: Callable[..., Path], eeg: Callable[..., dict]) -> None:
    header = read_header(write_edf(eeg(4), n_records=-1))
    assert header.n_records == 4
    assert header.notes == ("the number of data records is -1 (recording not closed); the file's size gives 4",)


def test_truncation_is_noted_and_the_broken_record_left_out(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-700])
    header = read_header(path)
    assert header.n_records == 3
    assert header.notes == (
        "truncated: 3 of 4 data records are there",
        f"{19 * 512 - 700} bytes at the end are no whole data record and were left out",
    )
    assert read_recording(path).signal.shape == (19, 3 * 256)


def test_more_records_than_stated_are_used_and_noted(write_edf: Callable[..., Path], eeg: Callable[..., dict]) -> None:
    path = write_edf(eeg(4), n_records=2)
    assert read_header(path).notes == ("longer than its header says: 4 data records instead of 2; all are used",)
    assert read_recording(path).duration_s == 4


@pytest.mark.parametrize(
    ("date", "time", "start", "note"),
    [
        ("01:02:20", "03:04:05", "2020-02-01T03:04:05", "written without dots"),
        ("01-02-99", "03.04.05", "1999-02-01T03:04:05", "written without dots"),
        ("31.02.20", "03.04.05", None, "not on the calendar"),
        ("today", "03.04.05", None, "no date and time"),
    ],
)
def test_dates(
    write_edf: Callable[..., Path], eeg: Callable[..., dict], date: str, time: str, start: str | None, note: str
) -> None:
    header = read_header(write_edf(eeg(1), date=date, time=time))
    assert (header.start.isoformat() if header.start else None) == start
    assert len(header.notes) == 1
    assert note in header.notes[0]


@pytest.mark.parametrize("errors", ["latin-1", "replace"])
def test_a_file_turned_into_text_is_refused_by_its_size(path: Path, errors: str) -> None:
    original = path.read_bytes()
    text = original.decode("latin-1") if errors == "latin-1" else original.decode("utf-8", errors="replace")
    path.write_bytes(text.encode("utf-8"))
    with pytest.raises(RecordingError, match="converted to UTF-8 text") as error:
        read_recording(path)
    assert f"{path.stat().st_size} bytes, expected {len(original)}" in str(error.value)


def test_oversized_silence_is_no_text(write_edf: Callable[..., Path], eeg: Callable[..., dict]) -> None:
    quiet = {label: samples * 0 for label, samples in eeg(4).items()}
    assert read_header(write_edf(quiet, n_records=-1)).n_records == 4
