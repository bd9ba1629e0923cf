"""A recording's page of pictures: traces, labels above, predictions below, faults on their electrode."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import brainbrr.data.recording_page as recording_page_module
from brainbrr.cli import cli
from brainbrr.config import ELECTRODES
from brainbrr.data.errors import LabelError
from brainbrr.data.inspection import inspect_recording
from brainbrr.data.labels import Event
from brainbrr.data.quality import Fault
from brainbrr.data.recording_page import read_marks, recording_page
from brainbrr.data.synthetic import write_corpus
from brainbrr.data.traces import LEFT, ROW, SUB, WIDTH, Marks, traces, usual_amplitude
from brainbrr.page import colour


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("page")
    options = {"patients": 1, "minutes": 3, "seizures": 1, "lookalikes": 0, "seed": 1}
    write_corpus(root, splits=("train",), artefacts=("saturation",), **options)
    return next(root.rglob("*.edf"))


def points(path: str) -> list[tuple[float, float]]:
    """The points of a path as it is written here, in points of the picture, from its own left and middle."""
    x, y = 0, int(re.match(r"M0 (-?\d+)", path)[1])
    found = [(0.0, y / SUB)]
    for dx, dy in re.findall(r"l(-?\d+) (-?\d+)", path):
        x, y = x + int(dx), y + int(dy)
        found.append((x / SUB, y / SUB))
    return found


def paths(svg: str) -> list[list[tuple[float, float]]]:
    tree = ElementTree.fromstring(svg)
    return [points(p.attrib["d"]) for p in tree.iter("{http://www.w3.org/2000/svg}path") if "transform" in p.attrib]


def test_a_trace_is_its_samples() -> None:
    values = np.array([[0.0, 10.0, -20.0, 0.0, 5.0]])
    (trace,) = paths(traces(values, 1.0, ["Cz"], Marks(), start_s=0, stop_s=5, row_uv=26.0))
    across = (WIDTH - LEFT) / 4
    assert trace == [pytest.approx((k * across, -value), abs=0.3) for k, value in enumerate(values[0])]


@given(st.integers(0, 49_999))
def test_no_spike_is_lost_between_points(at: int) -> None:
    signal = np.zeros((1, 50_000))
    signal[0, at] = 100.0
    (trace,) = paths(traces(signal, 1000.0, ["Cz"], Marks(), start_s=0, stop_s=50, row_uv=200.0))
    top = min(trace, key=lambda point: point[1])
    assert top[1] == -ROW / 2
    assert top[0] == pytest.approx(at / 50_000 * (WIDTH - LEFT), abs=1)
    assert trace[-1][0] == pytest.approx(WIDTH - LEFT, abs=1)


def test_a_fault_as_large_as_the_rail_leaves_its_neighbours_readable() -> None:
    signal = np.zeros((19, 1000))
    signal[3, 500:] = 1e6
    svg = traces(signal, 100.0, ELECTRODES, Marks(), start_s=0, stop_s=10, row_uv=100.0)
    assert max(abs(y) for trace in paths(svg) for _, y in trace) <= ROW


def test_labels_predictions_and_faults_have_their_places() -> None:
    marks = Marks(
        labels=(Event(start_s=2, stop_s=4),),
        predictions=(Event(start_s=3, stop_s=5), Event(start_s=20, stop_s=30)),
        faults=(Fault(kind="flat", electrodes=("C3",), start_s=1, stop_s=9),),
    )
    svg = traces(np.zeros((19, 1000)), 100.0, ELECTRODES, marks, start_s=0, stop_s=10, row_uv=100.0)
    assert svg.count(colour("good")) == 2 and svg.count(colour("bad")) == 2 and svg.count("fill-opacity: 0.25") == 1
    assert ">labels<" in svg and ">found<" in svg
    without = traces(np.zeros((19, 1000)), 100.0, ELECTRODES, Marks(), start_s=0, stop_s=10, row_uv=100.0)
    assert ">labels<" not in without and ">found<" not in without


def test_row_height_follows_the_recording_and_is_never_nothing() -> None:
    rng = np.random.default_rng(0)
    signal = rng.normal(0, 30, (19, 5000))
    assert usual_amplitude(signal) == pytest.approx(10 * 30 * 0.674, rel=0.1)
    assert usual_amplitude(np.zeros((19, 10))) == 1.0


def test_the_page(recording: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    arguments = ["inspect", str(recording), "--html", str(page)]
    result = CliRunner().invoke(cli, arguments, standalone_mode=False)
    assert result.return_value == 1  # saturated, and drawn all the same
    html = page.read_text()
    assert html == recording_page(*inspect_recording(recording), read_marks(inspect_recording(recording)[0], None))
    assert "seiz labelled" in html and "saturated" in html and "labels above (green)" in html
    assert "<script" not in html and not re.search(r"https?:|url\((?!#)", html)
    assert colour("ink") not in html.split("</style>")[1]
    refused = CliRunner().invoke(cli, arguments)
    assert refused.exit_code != 0


def test_predictions_as_events_and_as_probabilities(recording: Path, tmp_path: Path) -> None:
    inspection, montaged = inspect_recording(recording)
    events = recording.with_suffix(".csv_bi")
    html = recording_page(inspection, montaged, read_marks(inspection, events))
    assert "found below (red)" in html and "seiz found, confidence 1.00" not in html  # the label has that place already
    prob = np.linspace(0, 1, 180 * 256, dtype=np.float32)
    np.save(tmp_path / "p.npy", prob)
    marks = read_marks(inspection, tmp_path / "p.npy")
    assert np.array_equal(marks.probabilities, prob)
    html = recording_page(inspection, montaged, marks)
    assert "probability below (blue)" in html and "var(--curve)" in html


def test_probabilities_of_another_recording_are_refused(recording: Path, tmp_path: Path) -> None:
    inspection, _ = inspect_recording(recording)
    np.save(tmp_path / "p.npy", np.zeros(1000, dtype=np.float32))
    with pytest.raises(
        LabelError, match=r"p.npy: an array of shape \(1000,\); expected one probability for each of 46080"
    ):
        read_marks(inspection, tmp_path / "p.npy")
    (tmp_path / "q.npy").write_bytes(b"nothing")
    with pytest.raises(LabelError, match=r"q.npy: no NumPy array"):
        read_marks(inspection, tmp_path / "q.npy")


def test_predictions_need_a_page(recording: Path) -> None:
    result = CliRunner().invoke(cli, ["inspect", str(recording), "--predictions", "a.csv_bi"])
    assert result.exit_code == 2 and "expected --html PAGE as well" in result.output


def test_more_places_than_are_drawn_are_counted(
    recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = "".join(f"TERM,{30 * k}.0,{30 * k + 2}.0,seiz,1.0\n" for k in range(5))
    labels = tmp_path / "many.csv_bi"
    labels.write_text(f"# duration = 180.0 secs\nchannel,start_time,stop_time,label,confidence\n{rows}")
    many, montaged = inspect_recording(recording, labels)
    assert many.labels == "many.csv_bi" and len(many.seizures or ()) == 5
    monkeypatch.setattr(recording_page_module, "LOOKS", 2)
    html = recording_page(many, montaged, Marks(labels=many.seizures))
    assert html.count("<svg") == 1 + 2 and "3 more places are not drawn" in html
