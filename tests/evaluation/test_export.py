"""Every form of a prediction, read back by what people open it with."""

from __future__ import annotations

import csv
import datetime
import json
from pathlib import Path

import mne
import numpy as np
import pytest

from brainbrr.data.edf import read_recording
from brainbrr.data.formats import read_label_file
from brainbrr.data.labels import Event, LabelFile
from brainbrr.data.synthetic import write_corpus
from brainbrr.evaluation.events import EvaluationError
from brainbrr.evaluation.export import export, export_paths
from brainbrr.evaluation.predict import Prediction

EVENTS = (Event(start_s=3.5, stop_s=9.25, confidence=0.75), Event(start_s=20.0, stop_s=30.12, confidence=1.0))


def prediction(path: Path, events: tuple[Event, ...], start: datetime.datetime | None) -> Prediction:
    labels = LabelFile(path=path, events=events, duration_s=60.0, start=start)
    prob = np.linspace(0, 1, 60 * 256, dtype=np.float32)
    return Prediction(labels=labels, probabilities=prob, seconds={"read": 0.1}, notes=("odd",))


@pytest.fixture(scope="module")
def edf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("corpus")
    write_corpus(root, patients=1, minutes=1, seizures=0, lookalikes=0, seed=3, splits=("dev",))
    return next(root.rglob("*.edf"))


@pytest.mark.parametrize("events", [EVENTS, ()], ids=["two", "none"])
@pytest.mark.parametrize("start", [None, datetime.datetime(2020, 2, 1, 23, 59, 50, 250_000)], ids=["no date", "date"])
def test_every_form_reads_back(events: tuple[Event, ...], start: datetime.datetime | None, tmp_path: Path) -> None:
    recording = Path("elsewhere/p1_s001_t000.edf")
    paths = export_paths(tmp_path / "new", recording)
    export(prediction(recording, events, start), paths)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "p1_s001_t000.csv_bi",
        "p1_s001_t000.json",
        "p1_s001_t000_annotations.edf",
        "p1_s001_t000_events.tsv",
        "p1_s001_t000_probabilities.npy",
    ]
    spans = [(event.start_s, event.stop_s) for event in events]
    for form in ("csv_bi", "bids", "edf+"):
        found = [(event.start_s, event.stop_s) for event in read_label_file(paths[form]).events]
        assert found == [pytest.approx(span, abs=1e-6) for span in spans], form
    document = json.loads(paths["json"].read_text())
    assert [(event["start_s"], event["stop_s"]) for event in document["events"]] == spans
    assert document["recording"] == "p1_s001_t000.edf" and document["notes"] == ["odd"]
    prob = np.load(paths["npy"], allow_pickle=False)
    assert prob.dtype == np.float32 and prob.shape == (60 * 256,)


def test_mne_shows_the_annotations_on_the_signal_where_they_belong(edf: Path, tmp_path: Path) -> None:
    start = read_recording(edf).start
    assert start is not None
    paths = export_paths(tmp_path, edf)
    export(prediction(edf, EVENTS, start), paths)
    raw = mne.io.read_raw_edf(edf, preload=False, verbose="ERROR")
    raw.set_annotations(mne.read_annotations(paths["edf+"]), verbose="ERROR")
    shown = list(zip(raw.annotations.onset, raw.annotations.duration, raw.annotations.description, strict=True))
    assert shown == [(3.5, 5.75, "seiz"), (20.0, pytest.approx(10.12), "seiz")]
    marked = raw.copy().crop_by_annotations(verbose="ERROR")
    assert marked[0].times[-1] == pytest.approx(5.75, abs=0.01)


def test_the_annotations_are_edf_plus_as_the_standard_has_it(tmp_path: Path) -> None:
    """What EDFbrowser checks when it opens a file: EDF+C, one signal named so, a time-keeping annotation in front."""
    paths = export_paths(tmp_path, Path("x/a.edf"))
    export(prediction(Path("x/a.edf"), EVENTS, datetime.datetime(2020, 2, 1, 3, 4, 5)), paths)
    raw = paths["edf+"].read_bytes()
    assert raw[:8] == b"0       " and raw[192:197] == b"EDF+C" and raw[168:184] == b"01.02.2003.04.05"
    assert raw[88:168].split()[:2] == [b"Startdate", b"01-FEB-2020"]
    assert int(raw[252:256]) == 1 and raw[256:272] == b"EDF Annotations "
    assert raw[512:].startswith(b"+0\x14\x14\x00") and b"+3.5\x155.75\x14seiz\x14\x00" in raw


def test_a_bids_reader_gets_onsets_and_durations_by_their_columns(tmp_path: Path) -> None:
    paths = export_paths(tmp_path, Path("x/sub-01_task-szMonitoring_run-00_eeg.edf"))
    assert paths["bids"].name == "sub-01_task-szMonitoring_run-00_events.tsv"
    export(prediction(Path("x/a.edf"), EVENTS, None), paths)
    rows = list(csv.DictReader(paths["bids"].read_text().splitlines(), delimiter="\t"))
    assert [(row["onset"], row["duration"], row["eventType"], row["recordingDuration"]) for row in rows] == [
        ("3.50", "5.75", "sz", "60.00"),
        ("20.00", "10.12", "sz", "60.00"),
    ]


def test_not_into_the_folder_of_the_recording(edf: Path) -> None:
    with pytest.raises(
        EvaluationError, match=r"holds the recording itself, .*\.csv_bi is its labels; expected another"
    ):
        export_paths(edf.parent, edf)
