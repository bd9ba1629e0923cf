"""Reports: everything in one file, the same bytes for the same run, nothing from outside, no signal."""

import importlib
import math
import re
import sys
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import pytest

from brainbrr_debug.bisect import bisect
from brainbrr_debug.capture import write_capture
from brainbrr_debug.records import Finding, Reading, Severity, dumps
from brainbrr_debug.report.chart import chart
from brainbrr_debug.report.curves import Point, curves, first_abnormal
from brainbrr_debug.report.figure import ticks
from brainbrr_debug.report.html import page
from brainbrr_debug.report.machine import document
from brainbrr_debug.report.material import Material, gather
from brainbrr_debug.report.text import columns, environment_text, origin_text, run_text, verdict_rich, verdict_text
from brainbrr_debug.rerun import run_until_harm
from brainbrr_debug.rundir import RunDir, RunDirError
from brainbrr_debug.spectral import THRESHOLD

sys.path.insert(0, str(Path(__file__).parent))
toy = importlib.import_module("toy_subjects")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    content = run_until_harm(toy.TieSubject(), "toy_subjects:TieSubject").content
    run = RunDir.create(tmp_path_factory.mktemp("runs"), "tie <&> run")
    write_capture(run.capture_path(content.step), content)
    run.write_environment(content.environment)
    for step in range(content.step + 1):
        run.append_readings(step, [r for r in content.readings if r.step == step])
    run.append_finding(content.finding)
    run.write_verdict(bisect(content).to_dict())
    return run


@pytest.fixture(scope="module")
def html(run):
    return page(gather(run))


@pytest.fixture(scope="module")
def verdict(run):
    return gather(run).verdicts[0]


def test_the_page_is_well_formed(html):
    tree = ElementTree.fromstring(html.removeprefix("<!DOCTYPE html>\n"))
    assert tree.tag == "html"
    HTMLParser().feed(html)
    assert len(tree.findall(".//svg")) == 4


def test_the_page_is_the_same_bytes_again(run, html):
    assert page(gather(RunDir.open(run.path))) == html


def test_the_page_needs_no_network_and_no_script(html):
    assert "http" not in html
    assert "<script" not in html
    assert not re.search(r"\b(src|href)=", html)
    assert "url(" not in html
    assert "prefers-color-scheme: dark" in html
    assert "@media print" in html


def test_the_page_says_what_was_found(html):
    for words in (
        "linalg_eigh", "graph.pe", "night.edf", "Is it the data or the weights?", "graph.gradient=detached",
        "only hides", "first abnormal: step 3", "brainbrr-debug replay captures/000003.h5", "re-initialisations",
        "cpu_capability",
    ):  # fmt: skip
        assert words in html
    assert "tie--" in html  # the run's name


def test_text_from_outside_is_escaped():
    finding = Finding(check="run.<b>", severity=Severity.P0, message="<script>alert(1)</script>", step=0)
    html = page(Material(name="<img>", findings=(finding,), environment={"x": "</code><b>"}))
    assert "<script>" not in html
    assert "<img>" not in html
    ElementTree.fromstring(html.removeprefix("<!DOCTYPE html>\n"))


def test_a_run_without_anything_has_a_page_too():
    html = page(Material(name="empty"))
    assert "No verdict yet" in html
    assert "<svg" not in html


def test_no_signal_is_in_the_report(run, html):
    from brainbrr_debug.capture import read_capture

    (signal,), _ = read_capture(run.list_captures()[0]).micro_batches[0]
    assert not any(f"{value:.4f}" in html for value in signal.flatten().tolist() if value)


def test_the_plain_text_is_a_fact_a_line(verdict):
    text = verdict_text(verdict)
    lines = text.splitlines()
    assert lines[0] == f"verdict    {verdict['sentence']}"  # never cut at 80 columns
    assert "component  graph.pe" in lines
    assert "necessary  yes" in lines
    assert "stable     8/8  re-initialisations" in lines
    assert "replay     reproduced 3/3  bit for bit" in lines
    assert any(re.match(r"  graph.gradient=detached +good +before", line) for line in lines)
    assert "\x1b" not in text


def test_the_terminal_shows_the_same_facts_uncut(verdict):
    plain = re.sub(r"\x1b\[[0-9;]*m", "", verdict_rich(verdict, width=60))
    for line in verdict_text(verdict).splitlines()[1:]:
        assert line.strip() in plain


def test_an_origin_in_lines(verdict):
    assert "mechanism  repeated-eigenvalue" in origin_text(verdict["origin"])
    assert origin_text({**verdict["origin"], "healthy": True}) == "healthy: nothing harmful was born"


def test_a_run_in_lines(run):
    text = run_text(gather(run))
    assert "P0         run.nonfinite" in text
    assert "capture    captures/000003.h5" in text


def test_an_environment_in_lines():
    text = environment_text({"torch": "2", "packages": {"numpy": "1"}, "cuda": None, "command": ["a", "b"]})
    assert [line.split() for line in text.splitlines()] == [
        ["torch", "2"], ["packages.numpy", "1"], ["command", "a", "b"], ["absent", "cuda"],
    ]  # fmt: skip


def test_the_document_holds_no_literal_that_json_lacks(run):
    text = dumps(document(gather(run)))
    assert "NaN" not in text
    assert "Infinity" not in text
    assert '"first_abnormal"' in text


def test_a_curve_holds_the_worst_value_of_each_step():
    def reading(step, quantity, value):
        return Reading(step=step, phase="forward", site="", quantity=quantity, value=value)

    found = curves(
        [reading(0, "loss", 1.0), reading(0, "loss", 3.0), reading(1, "loss", math.nan), reading(1, "loss", 5.0),
         reading(0, "eigengap", 0.5), reading(0, "eigengap", 0.1), reading(0, "other", 9.0)]
    )  # fmt: skip
    assert [(p.step, str(p.value)) for p in found["loss"]] == [(0, "3.0"), (1, "nan")]
    assert [p.value for p in found["eigengap"]] == [0.1]
    assert found.keys() == {"loss", "eigengap"}


def test_the_first_abnormal_reading_may_be_finite():
    gap = Reading(step=2, phase="backward", site="pe", quantity="eigengap", value=THRESHOLD)
    nan = Reading(step=3, phase="forward", site="", quantity="loss", value=math.nan)
    assert first_abnormal([gap, nan]) is gap
    assert first_abnormal([nan]) is nan
    assert first_abnormal([]) is None


@pytest.mark.parametrize("values", [[1.0], [0.0, 0.0], [math.nan], [1.0, math.inf, 1e-9, 1e9], [-3.0, 2.0]])
def test_any_values_can_be_drawn(values):
    points = [Point(step=step, value=value) for step, value in enumerate(values)]
    svg = chart("Loss", "loss", points)
    ElementTree.fromstring(svg)
    numbers = [float(n) for n in re.findall(r'(?:x|y|cx|cy|x1|y1)="([-\d.]+)"', svg)]
    assert all(math.isfinite(n) and 0 <= n <= 760 for n in numbers)


@pytest.mark.parametrize(("first", "last"), [(0, 0), (0, 9), (3, 61), (0, 500), (999, 123456)])
def test_ticks_are_few_and_within(first, last):
    found = ticks(first, last)
    assert len(found) <= 11
    assert all(first <= tick <= last for tick in found)


def test_columns_are_aligned_and_nothing_is_cut():
    assert columns([["a", "b"], ["long", "c"]]) == ["a     b", "long  c"]
    assert columns([]) == []


def test_a_file_that_is_no_verdict_is_named(tmp_path):
    run = RunDir.at(tmp_path / "run")
    (run.path / "findings.jsonl").touch()
    (run.verdicts / "000000.json").write_text("{")
    with pytest.raises(RunDirError, match=r"000000\.json: cannot be read"):
        gather(run)
    (run.verdicts / "000000.json").write_text("[]")
    with pytest.raises(RunDirError, match=r"000000\.json: holds a list, expected an object"):
        gather(run)
    (run.verdicts / "000000.json").write_text("{}")
    with pytest.raises(RunDirError, match=r"000000\.json: is no verdict"):
        gather(run)
