"""Pictures and page of an evaluation: they open, say what is there, need nothing, and are the same again."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from torch import nn

from brainbrr.config import Config
from brainbrr.evaluation import evaluation_page as pages
from brainbrr.evaluation.evaluate import evaluate
from brainbrr.evaluation.evaluation_page import evaluation_page
from brainbrr.evaluation.figures import curves, pictures, timeline, write_figures
from brainbrr.page import COLOURS, colour, inline

RATE = 256


def report_of(echo: nn.Module, recordings: list[Any]) -> Any:
    settings = Config.model_validate({"data": {"window_size": 20}, "evaluation": {"stride": 10}})
    return evaluate(echo, recordings, settings, device="cpu", thresholds=(0.1, 0.3, 0.5, 0.9))


def recordings(make_recording: Any) -> list[Any]:
    trace = np.full(3 * 60 * RATE, -9.0, dtype=np.float32)
    trace[60 * RATE : 80 * RATE] = 4
    trace[120 * RATE : 130 * RATE] = 3
    names = ["p1_s001_t000", "p2_<&>_t000"]
    return [make_recording(trace, [(60, 90)], name=name, patient=name[:2]) for name in names]


@pytest.fixture(scope="module")
def report(echo: nn.Module, make_recording: Any) -> Any:
    return report_of(echo, recordings(make_recording))


@pytest.fixture(scope="module")
def text(report: Any) -> str:
    return evaluation_page(report, "A & B")


def test_every_picture_opens_and_is_the_same_again(report: Any) -> None:
    names = [picture.name for picture in pictures(report)]
    assert names == ["roc", "sensitivity", "reliability", "timeline-p1_s001_t000", "timeline-p2_<&>_t000"]
    for picture in pictures(report):
        svg = picture.render("svg")
        assert ElementTree.fromstring(svg).tag.endswith("svg")
        assert b"<dc:date>" not in svg
    png = picture.render("png")
    assert png.startswith(b"\x89PNG") and png == picture.render("png")
    assert b"matplotlib.org" not in png


def test_files_are_written_as_both(echo: nn.Module, make_recording: Any, tmp_path: Path) -> None:
    quiet = report_of(echo, [make_recording(np.full(60 * RATE, -9.0), [])])
    assert write_figures(quiet, tmp_path / "new") == 2
    names = {path.name for path in (tmp_path / "new").iterdir()}
    assert names == {f"{name}.{form}" for name in ("reliability", "timeline-rec") for form in ("png", "svg")}


def test_the_timeline_shows_reference_probability_and_hypothesis(report: Any) -> None:
    picture = timeline(report, report.recordings[0])
    svg = picture.render("svg").decode()
    assert "1 of 1 seizures found, 1 false alarms" in picture.caption
    for name in ("good", "bad", "curve"):
        assert colour(name) in svg
    assert "hypothesis" in svg and "reference" in svg


def test_captions_say_what_is_seen(report: Any) -> None:
    roc, sensitivity, reliability = curves(report)
    assert f"area {report.auroc:.3f}" in roc.caption
    assert "these recordings" in sensitivity.caption
    assert f"ECE {report.reliability.ece:.3f}" in reliability.caption


def test_without_a_seizure_there_is_no_roc_and_the_page_says_so(echo: nn.Module, make_recording: Any) -> None:
    quiet = report_of(echo, [make_recording(np.full(60 * RATE, -9.0), [])])
    assert [picture.name for picture in curves(quiet)] == ["reliability"]
    assert "there is no ROC" in evaluation_page(quiet, "quiet")


class Page(HTMLParser):
    """What a page asks for and names."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.named: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("href", "src", "xlink:href"):
                self.links.append(value or "")
            if name == "id":
                self.named.append(value or "")
            if name.startswith("on"):
                self.links.append(f"script {name}")


def test_the_page_needs_no_network_and_no_script(report: Any, text: str) -> None:
    page = Page(text)
    assert "script" not in page.tags and "link" not in page.tags and "img" not in page.tags
    assert all(link.startswith("#") for link in page.links)
    assert not re.search(r"url\((?!#)|@import|https?:", text)
    assert text == evaluation_page(report, "A & B")
    assert "<title>A &amp; B</title>" in text and "p2_&lt;&amp;&gt;_t000" in text and "p2_<&>" not in text


def test_the_page_is_light_and_dark(text: str) -> None:
    style, body = text.split("</style>", 1)
    assert "prefers-color-scheme: dark" in style
    for name, (light, dark) in COLOURS.items():
        assert style.count(f"--{name}: {light};") == 2 and f"--{name}: {dark};" in style  # screen and print
        assert light not in body and dark not in body, "a fixed colour would not follow the reader"
    assert "var(--curve)" in body


def test_the_page_has_all_tables_and_words_for_every_picture(text: str) -> None:
    for expected in ("NEDC TAES", "SzCORE event", "allowed FA/24 h", "mean probability", "pooled"):
        assert expected in text
    assert text.count('role="img" aria-label="') == text.count("<svg") == 5


def test_what_is_not_drawn_is_counted_and_the_worst_come_first(
    echo: nn.Module, make_recording: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "TIMELINES", 1)
    fine = make_recording(np.full(60 * RATE, -9.0), [], name="fine")
    text = evaluation_page(report_of(echo, [fine, *recordings(make_recording)]), "some")
    assert "2 recordings with no more errors than these are not drawn" in text
    drawn = text.split("Timelines")[1]
    assert "p1_s001_t000: reference" in drawn and "fine: reference" not in drawn


def test_inline_keeps_references_and_drops_what_would_clash() -> None:
    svg = (
        '<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg" width="3pt" viewBox="0 0 3 3">'
        f'<g id="figure_1"><path id="m1" style="fill: {colour("bad")}"/><use xlink:href="#m1"/></g></svg>'
    )
    assert inline(svg, "a <b>") == (
        '<svg viewBox="0 0 3 3" role="img" aria-label="a &lt;b&gt;">'
        '<g><path id="m1" style="fill: var(--bad)"/><use xlink:href="#m1"/></g></svg>'
    )
