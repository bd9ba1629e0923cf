"""Label files, and events to masks and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brainbrr.data.errors import LabelError
from brainbrr.data.formats import read_label_file, read_labels, write_label_file
from brainbrr.data.labels import (
    Event,
    LabelFile,
    clip_events,
    mask,
    sample_bounds,
    unite,
)
from brainbrr.evaluation.events import events_from_runs, runs_of

HEAD = "# version = csv_v1.0.0\n# bname = a\n# duration = 100.00 secs\n#\n"
COLUMNS = "channel,start_time,stop_time,label,confidence\n"


def write(tmp_path: Path, rows: str, name: str = "a.csv_bi", head: str = HEAD + COLUMNS) -> Path:
    (tmp_path / name).write_text(head + rows)
    return tmp_path / "a.edf"


def spans(events: tuple[Event, ...] | None) -> list[tuple[float, float]]:
    assert events is not None
    return [(event.start_s, event.stop_s) for event in events]


def test_csv_bi_with_and_without_background(tmp_path: Path) -> None:
    path = write(tmp_path, "TERM,10.0000,20.5000,seiz,1.0000\nTERM,0.0,10.0,bckg,1.0\nTERM,40,50,seiz,0.5\n")
    assert read_labels(path) == (Event(start_s=10, stop_s=20.5), Event(start_s=40, stop_s=50, confidence=0.5))


def test_labelled_without_seizure_is_not_unlabelled(tmp_path: Path) -> None:
    assert read_labels(tmp_path / "a.edf") is None
    assert read_labels(write(tmp_path, "TERM,0.0000,100.0000,bckg,1.0000\n")) == ()


def test_seizures_that_touch_stay_two_and_overlapping_ones_become_one(tmp_path: Path) -> None:
    path = write(tmp_path, "TERM,30,40,seiz,1\nTERM,10,20,seiz,1\nTERM,20,30,seiz,1\nTERM,35,50,seiz,1\n")
    assert spans(read_labels(path)) == [(10, 20), (20, 30), (30, 50)]


def test_csv_is_the_union_over_channels_of_the_nine_types(tmp_path: Path) -> None:
    types = ["seiz", "gnsz", "fnsz", "cpsz", "absz", "spsz", "tcsz", "tnsz", "mysz"]
    rows = "".join(f"C{i}-X,{20 * i},{20 * i + 5},{label},1.0\n" for i, label in enumerate(types))
    path = write(tmp_path, rows + "FP1-F7,0,400,bckg,1\nFP1-F7,500,600,nesz,1\n", "a.csv")
    events = read_labels(path)
    assert events is not None
    assert [event.label for event in events] == types
    assert spans(events) == [(20 * i, 20 * i + 5) for i in range(9)]
    assert read_label_file(tmp_path / "a.csv").ignored == {"nesz": 1}


def test_csv_joins_over_channels(tmp_path: Path) -> None:
    rows = "FP1-F7,10,20,fnsz,1\nF7-T3,15,30,fnsz,1\nC3-CZ,30,40,gnsz,1\nC3-CZ,60,70,gnsz,1\n"
    events = read_labels(write(tmp_path, rows, "a.csv"))
    assert events == (Event(start_s=10, stop_s=40, label="seiz"), Event(start_s=60, stop_s=70, label="gnsz"))


def test_csv_bi_is_preferred(tmp_path: Path) -> None:
    write(tmp_path, "FP1-F7,1,2,fnsz,1\n", "a.csv")
    assert spans(read_labels(write(tmp_path, "TERM,5,6,seiz,1\n"))) == [(5, 6)]


@pytest.mark.parametrize("head", ["﻿" + HEAD + COLUMNS, HEAD.replace("\n", "\r\n") + COLUMNS, COLUMNS, COLUMNS + "\n"])
def test_forms_of_the_head(tmp_path: Path, head: str) -> None:
    assert spans(read_labels(write(tmp_path, "TERM,5,6,seiz,1\n", head=head))) == [(5, 6)]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("TERM,5,6,seiz", r"a\.csv_bi:7: 4 columns; expected 5"),
        ("TERM,five,6,seiz,1", r"a\.csv_bi:7: start_time is 'five'; expected a number"),
        ("TERM,nan,6,seiz,1", r"a\.csv_bi:7: start_time is 'nan'"),
        ("TERM,6,5,seiz,1", r"a\.csv_bi:7: 'seiz' from 6 to 5 s; expected 0 <= start_time < stop_time"),
        ("TERM,6,6,seiz,1", r"a\.csv_bi:7: 'seiz' from 6 to 6 s"),
        ("TERM,-1,5,bckg,1", r"a\.csv_bi:7: 'bckg' from -1 to 5 s"),
        ("TERM,5,6,seiz,2", r"a\.csv_bi:7: confidence 2; expected 0 to 1"),
        ("FP1-F7,5,6,seiz,1", r"a\.csv_bi:7: channel 'FP1-F7', label 'seiz'; expected TERM"),
        ("TERM,5,6,fnsz,1", r"a\.csv_bi:7: channel 'TERM', label 'fnsz'"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, row: str, message: str) -> None:
    path = write(tmp_path, f"TERM,1,2,seiz,1\n{row}\n")
    with pytest.raises(LabelError, match=message):
        read_labels(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no line of columns; expected channel,start_time"),
        ("TERM,1,2,seiz,1\n", r":1: found 'TERM,1,2,seiz,1' before the line of columns"),
        ("# version = tse_v1.0.0\n" + COLUMNS, r":1: version 'tse_v1\.0\.0'; expected csv_v1"),
    ],
)
def test_another_kind_of_file(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(LabelError, match=message):
        read_labels(write(tmp_path, "", head=content))


def test_a_binary_file(tmp_path: Path) -> None:
    (tmp_path / "a.csv_bi").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(LabelError, match="not a text file"):
        read_labels(tmp_path / "a.edf")


def test_events_past_the_end_are_cut_and_noted() -> None:
    events = tuple(Event(start_s=s, stop_s=e) for s, e in ((1, 2), (8, 12), (10, 11), (50, 60)))
    kept, notes = clip_events(events, 10)
    assert spans(kept) == [(1, 2), (8, 10)]
    assert notes == (
        "event 8 to 12 s ends past the end of the signal at 10 s; cut",
        "event 10 to 11 s lies past the end of the signal at 10 s; left out",
        "event 50 to 60 s lies past the end of the signal at 10 s; left out",
    )


def write_labels(path: Path, events: tuple[Event, ...], recording: str | None = None) -> None:
    write_label_file(path, LabelFile(path=path, events=events, duration_s=60), recording)


def test_written_file_reads_back_and_covers_the_recording(tmp_path: Path) -> None:
    events = (Event(start_s=0, stop_s=3.25), Event(start_s=10, stop_s=20, confidence=0.75))
    write_labels(tmp_path / "x.csv_bi", events, "rec")
    assert read_labels(tmp_path / "x.edf") == events
    lines = (tmp_path / "x.csv_bi").read_text().splitlines()
    assert lines[:3] == ["# version = csv_v1.0.0", "# bname = rec", "# duration = 60.0000 secs"]
    assert lines[5:] == [
        "channel,start_time,stop_time,label,confidence",
        "TERM,0.0000,3.2500,seiz,1.0000",
        "TERM,3.2500,10.0000,bckg,1.0000",
        "TERM,10.0000,20.0000,seiz,0.7500",
        "TERM,20.0000,60.0000,bckg,1.0000",
    ]
    write_labels(tmp_path / "x.csv_bi", ())
    assert read_labels(tmp_path / "x.edf") == ()
    with pytest.raises(ValueError, match=r"event 50 to 61 s; expected 0 <= start < stop <= 60 s"):
        write_labels(tmp_path / "x.csv_bi", (Event(start_s=50, stop_s=61),))
    assert read_labels(tmp_path / "x.edf") == ()


bits = st.lists(st.tuples(st.booleans(), st.integers(1, 300)), max_size=12).map(
    lambda runs: np.repeat([value for value, _ in runs], [length for _, length in runs]).astype(bool)
)


@given(inside=bits, rate=st.sampled_from([1.0, 200.0, 250.0, 256.0, 399.7]))
def test_mask_to_events_to_mask(inside: np.ndarray, rate: float) -> None:
    events = events_from_runs(runs_of(inside), rate)
    np.testing.assert_array_equal(mask(events, inside.size, rate), inside)


event_lists = st.lists(
    st.tuples(st.integers(0, 5000), st.integers(1, 3000)).map(
        lambda span: Event(start_s=span[0] / 256, stop_s=sum(span) / 256)
    ),
    max_size=8,
)


@given(events=event_lists)
def test_events_on_the_grid_to_mask_to_events(events: list[Event]) -> None:
    inside = mask(events, 9000, 256)
    assert list(events_from_runs(runs_of(inside), 256)) == list(unite(events, touching=True))
    assert inside.sum() == sum(stop - start for start, stop in sample_bounds(unite(events, touching=True), 9000, 256))


@settings(max_examples=25)
@given(events=event_lists)
def test_any_events_survive_a_file(tmp_path_factory: pytest.TempPathFactory, events: list[Event]) -> None:
    path = tmp_path_factory.mktemp("labels") / "a.csv_bi"
    write_label_file(path, LabelFile(path=path, events=tuple(events), duration_s=9000 / 256))
    back = read_labels(path)
    assert back is not None
    np.testing.assert_allclose(spans(back), spans(unite(events, touching=False)) or np.zeros((0,)), atol=5.1e-5)
