"""Reports: everything in one file, the same bytes for the same run, nothing from outside, no signal."""

import dataclasses
import importlib
import json
import math
import re
import sys
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brainbrr_debug.bisect import bisect
from brainbrr_debug.capture import write_capture
from brainbrr_debug.records import Finding, Reading, Severity, dumps
from brainbrr_debug.report.chart import chart
from brainbrr_debug.report.curves import Point, curves, first_abnormal
from brainbrr_debug.report.figure import ticks
from brainbrr_debug.report.headline import headline
from brainbrr_debug.report.heat import heat
from brainbrr_debug.report.html import page
from brainbrr_debug.report.machine import document, junit_text, sarif_text
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
    assert len(tree.findall(".//svg")) == 6


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
        "✗ yes", "first abnormal: step 3", "brainbrr-debug replay captures/000003.h5", "re-initialisations",
        "cpu_capability",
    ):  # fmt: skip
        assert words in html
    assert "tie--" in html  # the run's name


def test_every_picture_says_what_it_shows(html):
    pictures = ElementTree.fromstring(html.removeprefix("<!DOCTYPE html>\n")).findall(".//svg")
    assert [picture.findtext("title") for picture in pictures] == [
        "Readings, step by step", "Loss", "Gradient norm before clipping", "Smallest relative eigengap",
        "Its values, and those of a healthy one", "Its graph",
    ]  # fmt: skip
    assert all(picture.findtext("desc") and picture.get("role") == "img" for picture in pictures)


def test_nothing_is_said_by_colour_alone(html):
    for word, mark in (("good", "✓"), ("bad", "✗"), ("skip", "–")):
        said = re.findall(rf'<span class="{word}">([^<]*)</span>', html)
        assert said and all(words.startswith(mark) for words in said)


TAGS = re.compile(
    "html|head|meta|title|style|body|header|p|h1|h2|section|div|dl|dt|dd|table|thead|tbody|tr|th|td|details|summary|"
    "code|pre|span|br|svg|desc|text|line|rect|circle|ellipse|path|polyline|g"
)
WORDS = {"cause", "outcome", "kind", "phase", "gap", "amplification", "condition", "weights"}  # ours, not the data's


def poisoned(value, text, key=""):
    """`value` with every text in it that came from outside replaced."""
    if isinstance(value, dict):
        return {k if k in value and k.isidentifier() else text: poisoned(v, text, k) for k, v in value.items()}
    if isinstance(value, list):
        return [poisoned(item, text, key) for item in value]
    return text if isinstance(value, str) and key not in WORDS else value


@settings(max_examples=30)
@given(
    st.text(max_size=20) | st.sampled_from(["<script>x</script>", '"/><img src=x onerror=y>', "</svg>", "&#0;\x00]]>"])
)
def test_any_text_in_names_stays_text(run, text):
    gathered = gather(run)
    reading = Reading(step=1, phase="forward", site=text, quantity=text, value=math.nan)
    material = Material(
        name=text,
        verdicts=tuple(poisoned(verdict, text) for verdict in gathered.verdicts) * 2,
        findings=(Finding(check=text, severity=Severity.P2, message=text, where=text, why=text, remedy=text),),
        environment={text: {text: text}, "command": [text]},
        heat=heat([reading]),
        first_abnormal=reading,
        captures=(text,),
    )
    html = page(material)
    tree = ElementTree.fromstring(html.removeprefix("<!DOCTYPE html>\n").encode())
    assert all(TAGS.fullmatch(element.tag) for element in tree.iter())
    assert not any(name.startswith("on") or name in ("src", "href") for e in tree.iter() for name in e.attrib)


def test_text_from_outside_is_escaped():
    finding = Finding(check="run.<b>", severity=Severity.P0, message="<script>alert(1)</script>", step=0)
    html = page(Material(name="<img>", findings=(finding,), environment={"x": "</code><b>"}))
    assert "<script>" not in html
    assert "<img>" not in html
    ElementTree.fromstring(html.removeprefix("<!DOCTYPE html>\n"))


def test_a_run_without_anything_has_a_page_too():
    html = page(Material(name="empty"))
    assert "Nothing abnormal was read, and no check objected." in html
    finding = Finding(check="run.flat", severity=Severity.P2, message="a flat loss")
    assert "No verdict yet: bisect a capture" in page(Material(name="flat", findings=(finding,)))
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


def test_the_page_begins_with_one_sentence(html, verdict):
    told = headline(verdict)
    assert told.startswith(
        "Step 3 failed in graph.pe (the gradient of aten::_linalg_eigh is NaN, repeated eigenvalue) "
    )
    assert "because of sample 2 (night.edf" in told and told.endswith("graph.gradient=detached heals it.")
    assert f"<h1>{told}</h1>" in html
    changes = {"changes": {"bias": True}, "heals": True, "hides": False, "proved": True}
    proved = {**verdict, "repairs": [*verdict["repairs"], changes]}
    assert headline(proved).endswith("; bias=True heals it, proved.")


def test_a_headline_without_a_culprit_is_the_first_sentence(verdict):
    healthy = {**verdict, "component": None, "origin": {**verdict["origin"], "healthy": True}}
    assert headline({**healthy, "sentence": "Step 3 is healthy. And more."}) == "Step 3 is healthy."
    assert headline({**verdict, "cause": None, "repairs": []}).endswith(
        "(the gradient of aten::_linalg_eigh is NaN, repeated eigenvalue)."
    )
    assert "because of the weights" in headline({**verdict, "cause": "weights", "samples": []})


def test_a_verdict_of_an_older_version_has_a_page(verdict):
    bare = {key: value for key, value in verdict.items() if key != "details"}
    bare["repairs"] = [{"changes": {"a": 1}, "heals": True, "hides": False, "proved": False}]
    html = page(Material(name="old", verdicts=(bare,)))
    assert "a=1" in html and "Trials" not in html


def test_the_certificate_of_a_run_is_shown(run, tmp_path):
    criterion = {"name": "finite", "required": "none", "passed": False, "measured": "3 values <altered>"}
    proof = {
        "granted": False,
        "reason": "values were altered",
        "changes": {"graph.gradient": "safe"},
        "criteria": [criterion],
    }
    other = RunDir.at(tmp_path / "proof")
    (other.path / "findings.jsonl").touch()
    (other.path / "certificate.json").write_text(dumps(proof))
    html = page(gather(other))
    assert "Refused for graph.gradient=safe: values were altered" in html and "3 values &lt;altered&gt;" in html
    (other.path / "certificate.json").write_text("{")
    with pytest.raises(RunDirError, match=r"certificate\.json: cannot be read"):
        gather(other)


def test_where_the_environments_differ(run, verdict):
    there = {**verdict["details"]["environment"], "torch": "0.1"}
    details = {**verdict["details"], "environment": there, "replay": {"differences": ["threads was 1, here 4"]}}
    material = gather(run)
    html = page(dataclasses.replace(material, verdicts=({**verdict, "details": details},)))
    assert '<code>0.1</code> <span class="dim">at the capture</span>' in html and "threads was 1, here 4" in html
    assert "at the capture</span>" not in page(material)


def test_signal_is_shown_where_it_is_asked_for_only(run, tmp_path):
    assert gather(run).signals == ()
    (signal,) = gather(run, show_signal=True).signals
    assert signal.channels == ("Fz", "Cz", "Pz", "Oz") and signal.title.startswith("sample 2 (night.edf")
    html = page(gather(run, show_signal=True))
    assert "<h2>The signal</h2>" in html and html == page(gather(run, show_signal=True))
    empty = RunDir.at(tmp_path / "run")
    (empty.path / "findings.jsonl").touch()
    with pytest.raises(RunDirError, match="has no verdict"):
        gather(empty, show_signal=True)
    empty.write_verdict(gather(run).verdicts[0])
    with pytest.raises(RunDirError, match="holds no capture of step 3"):
        gather(empty, show_signal=True)


def test_a_run_for_code_hosts_and_build_servers(run):
    results = json.loads(sarif_text(gather(run)))["runs"][0]["results"]
    assert results[0]["ruleId"] == "bisect.verdict" and results[0]["level"] == "error"
    assert results[0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"].endswith("toy_subjects.py")
    assert results[1]["ruleId"] == "run.nonfinite"
    suite = ElementTree.fromstring(junit_text(gather(run)).encode())[0]
    assert [case.get("name") for case in suite] == ["bisect.verdict", "run.nonfinite"]
    assert json.loads(sarif_text(Material(name="empty")))["runs"][0]["results"] == []


def test_the_commands_can_be_copied(run):
    assert "brainbrr-debug prove captures/000003.h5 --switch graph.gradient=detached\n" in page(gather(run))
    html = page(Material(name="x", captures=("captures/a b.h5",), environment={"command": ["train", "my config.yaml"]}))
    assert "brainbrr-debug replay &#x27;captures/a b.h5&#x27;" in html
    assert "brainbrr-debug prove" not in html
    assert "# the run itself: train &#x27;my config.yaml&#x27;" in html


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
