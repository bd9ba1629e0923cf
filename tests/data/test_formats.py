"""Label files of every format: read as their corpora write them, and round trips that lose nothing."""

from __future__ import annotations

import dataclasses
import datetime
import tarfile
from pathlib import Path

import mne
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from brainbrr.cli import cli
from brainbrr.data.errors import LabelError
from brainbrr.data.formats import FORMATS, find_labels, format_of, read_label_file, read_labels, write_label_file
from brainbrr.data.labels import Event, LabelFile, on_grid

# How a file of each format is called, and the steps in which it tells time.
NAMES = {
    "csv_bi": ("a.csv_bi", 1e-4),
    "csv": ("a.csv", 1e-4),
    "tse_bi": ("a.tse_bi", 1e-4),
    "tse": ("a.tse", 1e-4),
    "bids": ("a_events.tsv", 0.01),
    "chbmit": ("chb01-summary.txt", 1.0),
    "siena": ("Seizures-list-a.txt", 1.0),
    "edf+": ("a.edf", 1e-4),
}
START = datetime.datetime(2013, 4, 5, 21, 50, 7)
DURATION_S = 21_600.0


def spans(events: tuple[Event, ...] | None) -> list[tuple[float, float]]:
    assert events is not None
    return [(event.start_s, event.stop_s) for event in events]


@st.composite
def recordings(draw: st.DrawFn) -> LabelFile:
    """Up to six seizures at least 3 s apart, at times that no format holds exactly."""
    edges = sorted(draw(st.sets(st.integers(1, 7000), max_size=12)))
    shift = draw(st.floats(0, 0.999))
    kinds = st.sampled_from(["seiz", "gnsz", "fnsz", "cpsz", "absz", "spsz", "tcsz", "tnsz", "mysz"])
    events = [
        Event(start_s=3 * a + shift, stop_s=3 * b + shift, label=draw(kinds))
        for a, b in zip(edges[::2], edges[1::2], strict=False)
    ]
    return LabelFile(path=Path("a"), events=tuple(events), duration_s=DURATION_S, start=START)


def test_every_format_that_is_written_is_tried_here() -> None:
    assert set(NAMES) == {name for name, form in FORMATS.items() if form.write is not None}


@pytest.mark.parametrize("name", NAMES)
@given(labels=recordings())
def test_no_event_is_gained_lost_or_moved(
    name: str, labels: LabelFile, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file, step = NAMES[name]
    path = tmp_path_factory.mktemp("labels") / file
    write_label_file(path, labels, "a")
    found = read_label_file(path, "a")
    assert len(found.events) == len(labels.events)
    for before, after in zip(labels.events, found.events, strict=True):
        assert after.start_s == pytest.approx(before.start_s, abs=step)
        assert after.stop_s == pytest.approx(before.stop_s, abs=step)
        if name in ("csv", "tse", "bids", "edf+"):
            assert after.label == before.label
    if found.duration_s is not None and labels.events:
        assert found.duration_s == DURATION_S
    assert not found.ignored


@given(labels=recordings(), target=st.sampled_from(sorted(NAMES)), source=st.sampled_from(sorted(NAMES)))
def test_twice_converted_is_once_converted(
    labels: LabelFile, source: str, target: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("twice")
    first, second, third = (
        folder / part / NAMES[name][0] for part, name in (("1", source), ("2", target), ("3", target))
    )
    write_label_file(first, labels, "a")
    write_label_file(second, dataclasses.replace(read_label_file(first, "a"), duration_s=DURATION_S + 1), "a")
    write_label_file(third, dataclasses.replace(read_label_file(second, "a"), duration_s=DURATION_S + 1), "a")
    assert spans(read_label_file(third, "a").events) == spans(read_label_file(second, "a").events)


def test_seizures_closer_than_the_format_tells_apart_are_refused(tmp_path: Path) -> None:
    close = LabelFile(
        path=Path("a"), duration_s=60, events=(Event(start_s=10.2, stop_s=10.4), Event(start_s=10.41, stop_s=12))
    )
    with pytest.raises(LabelError, match=r"end at 11 s and begin at 10.41 s cannot be told apart in steps of 1 s"):
        write_label_file(tmp_path / "chb01-summary.txt", close, "a")
    write_label_file(tmp_path / "a.csv_bi", close, "a")


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0.5, 5)), max_size=5))
def test_on_the_grid_nothing_vanishes(pairs: list[tuple[float, float]]) -> None:
    events, at = [], 0.0
    for gap, length in pairs:
        events.append(Event(start_s=at + gap + 2, stop_s=at + gap + 2 + length))
        at = events[-1].stop_s
    placed = on_grid(events, 1.0)
    assert len(placed) == len(events)
    assert all(abs(a.start_s - b.start_s) <= 0.5 for a, b in zip(placed, events, strict=True))
    assert all(event.stop_s - event.start_s >= 1 for event in placed)


def test_tse(tmp_path: Path) -> None:
    (tmp_path / "a.tse").write_text("version = tse_v1.0.0\n\n0.0 10.5 bckg 1.0\n10.5 20 cpsz 0.9\n20 30 null 1.0\n")
    found = read_label_file(tmp_path / "a.tse")
    assert found.events == (Event(start_s=10.5, stop_s=20, label="cpsz", confidence=0.9),)
    assert (found.duration_s, found.ignored) == (30, {"null": 1})
    (tmp_path / "a.tse").write_text("version = tse_v1.0.0\n0.0 10.5 bckg\n")
    with pytest.raises(LabelError, match=r"a\.tse:2: 3 columns; expected 4: start, stop, label, probability"):
        read_label_file(tmp_path / "a.tse")


def test_bids_types_and_rows_that_are_no_seizure(tmp_path: Path) -> None:
    rows = [
        "onset\tduration\teventType\tlateralization\tconfidence\tchannels\tdateTime\trecordingDuration",
        "5.00\t10.00\tsz_foc_ia_m_automatisms\tleft\tn/a\tn/a\t2013-04-05 21:50:07\t600.00",
        "50.00\t1.00\timpd\tn/a\tn/a\tn/a\t2013-04-05 21:50:07\t600.00",
    ]
    (tmp_path / "sub-01_events.tsv").write_text("\n".join(rows))
    found = read_label_file(tmp_path / "sub-01_events.tsv")
    assert found.events == (Event(start_s=5, stop_s=15, label="cpsz"),)
    assert (found.duration_s, found.start, found.ignored) == (600, START, {"impd": 1})


def test_bids_without_seizure_has_one_row_over_the_recording(tmp_path: Path) -> None:
    path = tmp_path / "a_events.tsv"
    write_label_file(path, LabelFile(path=path, events=(), duration_s=120.5, start=START))
    assert path.read_text().splitlines()[1].split("\t")[:3] == ["0.00", "120.50", "bckg"]
    path.write_text("onset\tduration\teventType\n")
    with pytest.raises(LabelError, match="at least one row"):
        read_label_file(path)


def test_chbmit_lists_many_recordings(tmp_path: Path) -> None:
    path = tmp_path / "chb01-summary.txt"
    path.write_text(
        "Data Sampling Rate: 256 Hz\n\nFile Name: chb01_03.edf\nNumber of Seizures in File: 2\n"
        "Seizure 1 Start Time:  130 seconds\nSeizure 1 End Time: 212 seconds\nSeizure 2 Start Time: 2972 seconds\n"
        "Seizure 2 End Time: 3053 seconds\n\nFile Name: chb01_04.edf\nNumber of Seizures in File: 0\n"
    )
    assert spans(read_label_file(path, "chb01_03.edf").events) == [(130, 212), (2972, 3053)]
    assert spans(read_label_file(path, "chb01_04").events) == []
    (tmp_path / "chb01_03.edf").touch()
    assert find_labels(tmp_path / "chb01_03.edf") == path
    with pytest.raises(LabelError, match=r"lists no chb01_99\.edf; it lists chb01_03\.edf, chb01_04\.edf"):
        read_label_file(path, "chb01_99")
    with pytest.raises(LabelError, match="may list several recordings; name the one by --recording"):
        read_label_file(path)
    path.write_text("File Name: a.edf\nNumber of Seizures in File: 1\nSeizure Start Time: 130 seconds\n")
    with pytest.raises(LabelError, match="a: 1 seizures announced, 1 starts and 0 ends found"):
        read_label_file(path, "a")


def test_siena_times_of_day_over_midnight(tmp_path: Path) -> None:
    path = tmp_path / "Seizures-list-PN05.txt"
    path.write_text(
        "Seizure n 1\nFile name: PN05-2.edf\nRegistration start time: 23.50.00\nRegistration end time:  00.40.00\n"
        "Seizure start time: 00:01:10 \nSeizure end time: 00.02.00\n"
    )
    found = read_label_file(path, "PN05-2.edf")
    assert (spans(found.events), found.duration_s) == ([(670, 720)], 3000)
    path.write_text(path.read_text().replace("00:01:10", "25.01.10"))
    with pytest.raises(LabelError, match=r"PN05\.txt:5: found '25\.01\.10'; expected a time of day"):
        read_label_file(path, "PN05-2.edf")


def test_seizeit_without_an_end_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "P_ID64_r1_a1.tsv"
    path.write_text("# Source: SeizeIt1\n\n781\t807\tFIA\tHem:L\n13962\tNone\tFIA\tHem:L\n")
    found = read_label_file(path)
    assert spans(found.events) == [(781, 807)]
    assert found.ignored == {"FIA without an end": 1}
    with pytest.raises(LabelError, match=r"P_ID64_r1_a1\.tsv: does not say how long the recording is; give it by"):
        write_label_file(tmp_path / "a.csv_bi", found)
    with pytest.raises(LabelError, match="seizeit is read and not written"):
        write_label_file(path, found)


def test_edf_annotations_are_what_mne_shows(tmp_path: Path) -> None:
    path = tmp_path / "a.edf"
    events = (Event(start_s=10.25, stop_s=30.5), Event(start_s=500, stop_s=501, label="fnsz"))
    write_label_file(path, LabelFile(path=path, events=events, duration_s=600, start=START))
    shown = mne.read_annotations(path)
    assert list(zip(shown.onset, shown.duration, shown.description, strict=True)) == [
        (10.25, 20.25, "seiz"),
        (500.0, 1.0, "fnsz"),
    ]
    assert read_label_file(path).events == events
    assert find_labels(path) == path


def test_command_converts_one_recording_of_a_list(tmp_path: Path) -> None:
    source, target = tmp_path / "chb01-summary.txt", tmp_path / "chb01_03_events.tsv"
    source.write_text(
        "File Name: chb01_03.edf\nNumber of Seizures in File: 1\nSeizure Start Time: 130 seconds\n"
        "Seizure End Time: 212 seconds\n"
    )
    command = ["convert", str(source), str(target), "--recording", "chb01_03.edf"]
    assert CliRunner().invoke(cli, command).exception is not None  # the summary does not say how long it is
    result = CliRunner().invoke(cli, [*command, "--duration", "3600"], standalone_mode=False)
    assert result.stdout == f"1 seizures to {target}\n"
    assert spans(read_label_file(target).events) == [(130, 212)]
    again = CliRunner().invoke(cli, [*command, "--duration", "3600"])
    assert "exists; give another --output, or --force to overwrite it" in str(again.exception)


def test_unknown_names(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match=r"a\.xyz: no known kind of label file; expected \*\.csv_bi \(csv_bi\)"):
        format_of(Path("a.xyz"))
    with pytest.raises(LabelError, match="no label format is named 'nedc'; expected one of csv_bi, csv"):
        format_of(Path("a.csv"), "nedc")
    assert find_labels(tmp_path / "a.edf") is None
    assert read_labels(tmp_path / "a.edf") is None


def test_the_shared_corpora(shared: Path, tmp_path: Path) -> None:
    """Every recording of four corpora with its own labels; some end past their two seconds of noise on purpose."""
    with tarfile.open(shared / "mini_corpora_white_noise.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    found = {path.stem: read_labels(path) for path in tmp_path.rglob("*.edf")}
    assert spans(found["chb05_06"]) == [(417, 532)]
    assert spans(found["PN00-1"]) == [(1143, 1213)]
    assert found["chb05_01"] == ()
    assert sum(len(events) for name, events in found.items() if name.startswith("P_ID64") and events) == 5
    assert all(events is not None for events in found.values()), [name for name, e in found.items() if e is None]


def test_the_shared_events_tables(shared: Path, tmp_path: Path) -> None:
    with tarfile.open(shared / "seizeit2_events_tsv.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    files = [read_label_file(path) for path in tmp_path.rglob("*_events.tsv")]
    assert len(files) == 486
    assert sum(len(file.events) for file in files) == 440
    assert sum(file.ignored.get("impd", 0) for file in files) == 387
