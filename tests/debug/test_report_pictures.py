"""Pictures of a report: what they show is what was read, for any readings, matrix and signal."""

from __future__ import annotations

import dataclasses
import importlib
import math
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from brainbrr_debug.capture import CaptureContent, read_capture, write_capture
from brainbrr_debug.records import Reading
from brainbrr_debug.report.chart import COLUMNS, HEIGHT, LANE, TOP, chart, thinned
from brainbrr_debug.report.curves import Point, abnormal, first_abnormal
from brainbrr_debug.report.graph_plot import graph
from brainbrr_debug.report.heat import ROWS, heat, strip
from brainbrr_debug.report.heat import WIDTH as HEAT_WIDTH
from brainbrr_debug.report.signal import Signal, signals_of
from brainbrr_debug.report.signal_plot import signal_plot
from brainbrr_debug.rerun import run_until_harm
from brainbrr_debug.samples import signal_of
from brainbrr_debug.sealed import CaptureError
from brainbrr_debug.strip import strip_file

sys.path.insert(0, str(Path(__file__).parent))
toy = importlib.import_module("toy_subjects")
NUMBERS = st.floats(allow_nan=True, allow_infinity=True, width=32)


def numbers(svg: str) -> list[float]:
    """Every coordinate, after a check that the picture is well-formed and says what it shows."""
    root = ElementTree.fromstring(svg)
    assert root.find("title") is not None and root.find("desc") is not None and root.get("aria-label")
    found = [float(n) for n in re.findall(r'\b(?:x|y|cx|cy|x1|y1|x2|y2|width|height)="([^"]+)"', svg)]
    found += [float(n) for pair in re.findall(r'points="([^"]+)"', svg) for n in re.split("[ ,]", pair)]
    assert all(math.isfinite(n) for n in found)
    return found


# Curves ------------------------------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(st.lists(NUMBERS, min_size=1, max_size=30), st.sampled_from(["loss", "eigengap"]))
def test_any_curve_can_be_drawn_and_nothing_abnormal_is_missed(values: list[float], quantity: str) -> None:
    svg = chart("A curve", quantity, [Point(step=step, value=value) for step, value in enumerate(values)])
    assert all(-8 <= n <= 560 for n in numbers(svg))
    assert svg.count('class="bad"') == sum(abnormal(quantity, value) for value in values)


def test_what_is_not_finite_stands_in_a_lane_of_its_own_and_so_do_zeros() -> None:
    values = [1.0, math.nan, 1e-3, math.inf, 0.0]
    svg = chart("Loss", "loss", [Point(step=step, value=value) for step, value in enumerate(values)])
    assert ">not finite<" in svg and ">0<" in svg
    crosses = [float(y) for y in re.findall(r'class="bad" d="M[\d.]+ ([\d.]+)l', svg)]
    assert len(crosses) == 2 and all(TOP - 6 <= y <= TOP + LANE / 2 for y in crosses)
    on_the_scale = re.findall(r'class="(?:curve|point)"[^>]*', svg)
    heights = [float(y) for part in on_the_scale for y in re.findall(r'(?:,|cy=")([\d.]+)', part)]
    assert heights and all(TOP + LANE <= y <= HEIGHT - LANE for y in heights)
    assert "not finite" not in chart("Loss", "loss", [Point(step=0, value=1.0), Point(step=1, value=2.0)])


def test_a_long_curve_keeps_its_extremes() -> None:
    points = [Point(step=n, value=1.0 + 0.1 * math.sin(n)) for n in range(20_000)]
    points[777], points[9_999], points[15_000] = (
        Point(step=777, value=1e9), Point(step=9_999, value=1e-9), Point(step=15_000, value=math.nan),
    )  # fmt: skip
    kept = thinned(points)
    assert len(kept) <= 3 * COLUMNS and {777, 9_999, 15_000} <= {point.step for point in kept}
    assert [point.step for point in kept] == sorted(point.step for point in kept)


# The heat strip -----------------------------------------------------------------------------------------------------


def read(step: int, site: str, value: float, quantity: str = "absmax", phase: str = "forward") -> Reading:
    return Reading(step=step, phase=phase, site=site, quantity=quantity, value=value)


def test_a_cell_is_as_dark_as_its_reading_is_off_the_median_of_its_row() -> None:
    found = heat([*(read(step, "a", 2.0) for step in range(5)), read(5, "a", 2e3), read(6, "a", math.nan)])
    assert found is not None
    (row,) = found.rows
    assert [cell and round(cell.off) for cell in row.cells] == [0, 0, 0, 0, 0, 3, 0]
    assert [cell is not None and cell.abnormal for cell in row.cells] == [False] * 6 + [True]


def test_the_ring_is_around_the_first_abnormal_reading() -> None:
    readings = [read(step, site, 1.0) for step in range(4) for site in ("graph", "tcn")]
    readings += [read(step, "graph.pe", 1e-3 if step < 2 else 1e-9, "eigengap", "backward") for step in range(4)]
    readings += [read(3, "tcn", math.inf, phase="backward")]
    found, first = heat(readings), first_abnormal(sorted(readings, key=lambda r: r.step))
    assert found is not None and first is not None and first.site == "graph.pe"
    svg = strip(found, first)
    numbers(svg)
    labels = {name: float(y) for y, name in re.findall(r'<text [^>]*y="([\d.]+)"[^>]*>([^<]+ · [^<]+)<', svg)}
    (ring,) = re.findall(r'class="ring" x="[\d.]+" y="([\d.]+)"', svg)
    assert min(labels, key=lambda name: abs(labels[name] - float(ring) - 13.5)) == "graph.pe · eigengap"
    assert "first abnormal: eigengap 1e-09 at graph.pe, step 2" in svg
    assert svg.count("<g>") == 3  # two gaps and the infinite gradient


def test_modules_are_taken_together_until_they_fit() -> None:
    sites = [f"block{n}.layer{m}" for n in range(3) for m in range(40)]
    found = heat([read(0, site, 1.0) for site in sites] + [read(1, "block1.layer7", math.nan)])
    assert found is not None
    assert [row.name for row in found.rows] == ["block0 (40) · output", "block1 (40) · output", "block2 (40) · output"]
    assert [row.cells[1] is not None for row in found.rows] == [False, True, False]


def test_the_most_unusual_places_are_kept_and_the_others_counted() -> None:
    readings = [read(step, f"m{n}", 10.0 ** (n * step)) for n in range(60) for step in range(3)]
    found = heat(readings)
    assert found is not None and (len(found.rows), found.left_out) == (ROWS, 60 - ROWS)
    assert [row.site for row in found.rows] == [f"m{n}" for n in range(60 - ROWS, 60)]


def test_what_has_no_row_of_its_own_gets_one_when_it_is_abnormal() -> None:
    assert heat([read(0, "<optimizer>", 1e-3, "learning_rate", "optimizer")]) is None
    found = heat([read(0, "<optimizer>", math.nan, "learning_rate", "optimizer")])
    assert found is not None and found.rows[0].name == "<optimizer> · learning_rate"
    assert heat([]) is None


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 500), st.sampled_from(["", "a", "a.b", "c"]), NUMBERS), max_size=40))
def test_any_readings_make_a_strip_that_shows_every_abnormal_one(rows: list[tuple[int, str, float]]) -> None:
    readings = sorted((read(*row) for row in rows), key=lambda r: r.step)
    found = heat(readings)
    if found is None:
        assert not readings
        return
    first = first_abnormal(readings)
    svg = strip(found, first)
    assert all(-4 <= n <= HEAT_WIDTH + 4 for n in numbers(svg))
    assert svg.count('class="ring"') == (first is not None)
    shown = {
        (row.phase, row.site, column)
        for row in found.rows
        for column, cell in enumerate(row.cells)
        if cell and cell.abnormal
    }
    for reading in readings:
        if not math.isfinite(reading.value):
            assert (reading.phase, reading.site, found.column(reading.step)) in shown


# The graph ----------------------------------------------------------------------------------------------------------

PLACES = {"Fz": (0.0, 0.5), "Cz": (0.0, 0.0), "Pz": (0.0, -0.5)}
LINE = [[1.0, -0.5, 0.0], [-0.5, 1.0, -0.25], [0.0, -0.25, 1.0]]


def test_edges_are_the_entries_beside_the_diagonal() -> None:
    svg = graph("Graph", LINE, names=tuple(PLACES), places=PLACES, marked=("Pz",))
    numbers(svg)
    assert "2 edges, most at Cz (2); marked: Pz" in svg
    assert "<title>Cz–Fz 0.5</title>" in svg and "<title>Pz–Cz 0.25</title>" in svg and "Pz–Fz" not in svg
    assert svg.count("<circle") == 3 and svg.count("<rect") == 1  # the head, two nodes; the marked one
    widths = [float(w) for w in re.findall(r'stroke-width="([\d.]+)"', svg)]
    assert widths == sorted(widths) and len(set(widths)) == 2


def test_without_a_place_for_every_row_the_nodes_stand_on_a_circle() -> None:
    for names, places in (((), None), (("Fz", "Cz"), PLACES), (("Fz", "Cz", "Oz"), PLACES)):
        svg = graph("Graph", LINE, names=names, places=places)
        assert 'class="outline"' not in svg and svg.count('class="node"') == 3
    assert ">0<" in graph("Graph", LINE) and ">Oz<" in graph("Graph", LINE, names=("Fz", "Cz", "Oz"))


@settings(max_examples=40)
@given(
    st.integers(1, 6).flatmap(
        lambda n: st.lists(st.lists(st.floats(-1e30, 1e30), min_size=n, max_size=n), min_size=n, max_size=n)
    )
)
def test_any_matrix_is_a_graph(entries: list[list[float]]) -> None:
    svg = graph("Graph", entries)
    assert all(0 <= n <= 420 for n in numbers(svg))


def test_the_electrodes_of_the_detector_sit_on_the_head_where_they_belong() -> None:
    from brainbrr.config import ELECTRODES
    from brainbrr_debug.subjects.electrodes import PLACES as HEAD

    assert tuple(HEAD) == ELECTRODES and len(set(HEAD.values())) == len(ELECTRODES)
    assert all(math.hypot(x, y) < 1 for x, y in HEAD.values())
    assert HEAD["Cz"] == (0, 0) and HEAD["Fp1"][1] > HEAD["F3"][1] > HEAD["C3"][1] > HEAD["P3"][1] > HEAD["O1"][1]
    for left, right in map(str.split, ("Fp1 Fp2", "F7 F8", "F3 F4", "T3 T4", "C3 C4", "T5 T6", "P3 P4", "O1 O2")):
        assert HEAD[left] == (-HEAD[right][0], HEAD[right][1]) and HEAD[left][0] < 0


# The signal ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tie() -> CaptureContent:
    content = run_until_harm(toy.TieSubject(), "toy_subjects:TieSubject", max_steps=6).content
    assert content is not None
    return content


def captured(tmp_path: Path, tie: CaptureContent, signal: Any) -> Path:
    inputs = signal if isinstance(signal, tuple) else (signal,)
    path = tmp_path / "000003.h5"
    write_capture(path, dataclasses.replace(tie, micro_batches=((inputs, torch.zeros(4)),)))
    return path


def verdict(sample: dict[str, Any], channels: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"samples": [sample], "details": {"channels": channels}}


LAYOUTS = {
    "plain": lambda x: x,
    "half": lambda x: x.half(),
    "bfloat16": lambda x: x.bfloat16(),
    "double": lambda x: x.double(),
    "channels last": lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
    "samples last": lambda x: x.permute(1, 2, 0).contiguous().permute(2, 0, 1),
    "gaps": lambda x: torch.stack([x, x])[:, :, :, ::2][0],
    "expanded": lambda x: x[:1].expand(4, 3, 20),
    "few bytes": lambda x: x[:, :1, :1].half(),
    "one channel": lambda x: x[:, 0],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_signal_is_the_one_that_a_replay_gets(tmp_path: Path, tie: CaptureContent, layout: str) -> None:
    signal = LAYOUTS[layout](torch.randn(4, 3, 20, generator=torch.Generator().manual_seed(0)))
    path = captured(tmp_path, tie, signal)
    (found,) = signals_of(path, verdict({"index": 2}))
    wanted = signal_of(read_capture(path).micro_batches, (0, 2))
    assert wanted is not None
    centred = np.atleast_2d(wanted.double().numpy())
    centred = centred - np.median(centred, axis=1, keepdims=True)
    drawn = np.array([[cell.low if cell else math.nan for cell in row] for row in found.columns]) * found.unit
    np.testing.assert_allclose(drawn, centred, atol=1e-12)


def test_stretch_electrodes_and_what_is_not_finite_are_marked(tmp_path: Path, tie: CaptureContent) -> None:
    signal = torch.randn(4, 2, 2000)
    signal[1, 0, 500:600], signal[1, 1] = math.nan, 0.0
    span = {"start": 0, "stop": 500, "of": 2000, "start_s": 60.0, "stop_s": 75.0}
    sample = {"index": 1, "recording": "<night>", "start_s": 60.0, "stop_s": 120.0, "span": span, "electrodes": ["Cz"]}
    (found,) = signals_of(captured(tmp_path, tie, signal), verdict(sample, ("Fz", "Cz")))
    assert (found.start, found.stop, found.span, found.marked) == (60.0, 120.0, (60.0, 75.0), ("Cz",))
    svg = signal_plot(found)
    numbers(svg)
    assert "■ Cz" in svg and "60–75 s suffice" in svg and 'class="trace blamed"' in svg and 'class="span"' in svg
    assert svg.count('class="lost"') in (24, 25) and "&lt;night&gt;" in svg


def test_a_mark_on_every_channel_says_nothing(tmp_path: Path, tie: CaptureContent) -> None:
    path = captured(tmp_path, tie, torch.randn(4, 2, 100))
    (found,) = signals_of(path, verdict({"index": 1, "electrodes": ["Fz", "Cz"]}, ("Fz", "Cz")))
    assert found.marked == () and "■" not in signal_plot(found)


def test_a_flat_and_a_lost_signal_can_be_drawn() -> None:
    from brainbrr_debug.report.signal import _drawn

    for values in (np.zeros((2, 5)), np.full((2, 5), np.nan), np.array([[1.0, 1.0, 9.0]])):
        found = _drawn(values, {"index": 0}, ())
        assert isinstance(found, Signal) and found.unit > 0
        numbers(signal_plot(found))


@pytest.mark.parametrize(
    ("signal", "reason"),
    [
        (torch.arange(4), "of int64; expected floating-point numbers"),
        (torch.zeros(4, 2, 3, 5), r"has the shape \(2, 3, 5\); expected channels × time"),
        (((),), "no tensor among its inputs"),
    ],
)
def test_what_is_no_signal_is_refused(tmp_path: Path, tie: CaptureContent, signal: Any, reason: str) -> None:
    with pytest.raises(CaptureError, match=f"000003.h5: .*{reason}"):
        signals_of(captured(tmp_path, tie, signal), verdict({"index": 0}))


def test_a_copy_without_signal_and_a_truncated_file_are_refused_by_name(tmp_path: Path, tie: CaptureContent) -> None:
    path = captured(tmp_path, tie, torch.zeros(4, 2, 8))
    strip_file(path, tmp_path / "copy.h5")
    with pytest.raises(CaptureError, match=r"copy\.h5: holds shapes only: it was made with --strip-signal"):
        signals_of(tmp_path / "copy.h5", verdict({"index": 0}))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CaptureError, match=r"000003\.h5: changed since it was written, truncated or damaged"):
        signals_of(path, verdict({"index": 0}))


def test_neither_pages_nor_signals_need_torch() -> None:
    names = "html, machine, material, signal, signal_plot, heat, graph_plot, matrix_html, verdict_html, sarif, junit"
    code = f"import sys\nfrom brainbrr_debug.report import {names}\nprint('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
