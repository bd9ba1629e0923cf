"""NEDC's and SzCORE's scores: to the digit of the official programs, and their rules as properties."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from brainbrr.cli import cli
from brainbrr.data.errors import LabelError
from brainbrr.data.formats import write_label_file
from brainbrr.data.labels import Event, LabelFile
from brainbrr.evaluation.compare import compare, compare_events, pooled
from brainbrr.evaluation.events import EvaluationError
from brainbrr.evaluation.nedc import EPOCH_S, epoch, ovlp, taes
from brainbrr.evaluation.szcore import on_grid, szcore

SCORING = Path(__file__).parents[2].parent / "shared" / "data" / "scoring"
DURATION_S = 300.0

Pairs = list[tuple[float, float]]


def events(*spans: tuple[float, float]) -> tuple[Event, ...]:
    return tuple(Event(start_s=start, stop_s=stop) for start, stop in spans)


def write_csv_bi(path: Path, labels: tuple[Event, ...], duration_s: float) -> None:
    write_label_file(path, LabelFile(path=path, events=labels, duration_s=duration_s))


@st.composite
def annotations(draw: st.DrawFn) -> tuple[Event, ...]:
    """Seizures that neither overlap nor touch, on a grid of 0.1 s."""
    edges = sorted(draw(st.sets(st.integers(0, 3000), max_size=12)))
    return events(*((a / 10, b / 10) for a, b in zip(edges[::2], edges[1::2], strict=False)))


@pytest.mark.skipif(not SCORING.is_dir(), reason="the shared recordings are not here")
@pytest.mark.parametrize("name", sorted(path.stem for path in (SCORING / "ref").glob("*.csv_bi")))
def test_to_the_digit_of_the_official_programs(name: str) -> None:
    expected = json.loads((SCORING / "expected.json").read_text())["cases"][name]
    found = compare(SCORING / "ref" / f"{name}.csv_bi", SCORING / "hyp" / f"{name}.csv_bi").to_dict()
    for rule, fields in found["nedc_v6.0.0"].items():
        assert fields == pytest.approx(expected["nedc_v6.0.0"][rule], abs=0.00501), rule
    for rule, fields in found["szcore_evaluation_path_1Hz"].items():
        assert fields == pytest.approx(expected["szcore_evaluation_path_1Hz"][rule], abs=1e-9), rule


@given(annotations())
def test_an_annotation_against_itself_is_perfect(truth: tuple[Event, ...]) -> None:
    for rule in (ovlp, epoch):
        found = rule(truth, truth, DURATION_S)
        assert (found.tp, found.fp, found.fn) == (found.targets, 0, 0)


@given(annotations(), annotations())
def test_what_every_rule_keeps(truth: tuple[Event, ...], said: tuple[Event, ...]) -> None:
    epochs, events_, times = (
        epoch(truth, said, DURATION_S),
        ovlp(truth, said, DURATION_S),
        taes(truth, said, DURATION_S),
    )
    assert epochs.tp + epochs.fn == epochs.targets
    assert epochs.tp + epochs.fn + epochs.fp + epochs.tn == DURATION_S / EPOCH_S
    assert events_.tp + events_.fn == events_.targets == times.targets == len(truth)
    assert events_.tp + events_.fp <= len(truth) + len(said)
    assert times.fp <= len(said) + 1e-9  # at most 1 for each hypothesis


@given(annotations(), annotations())
def test_epochs_are_the_labels_at_their_middles(truth: tuple[Event, ...], said: tuple[Event, ...]) -> None:
    middles = [EPOCH_S / 2 + EPOCH_S * i for i in range(int(DURATION_S / EPOCH_S))]

    def label(time: float, annotation: tuple[Event, ...]) -> bool:
        return any(event.start_s < time <= event.stop_s for event in annotation)

    found = epoch(truth, said, DURATION_S)
    assert found.tp == sum(label(t, truth) and label(t, said) for t in middles)
    assert found.fp == sum(not label(t, truth) and label(t, said) for t in middles)


def test_borders_that_touch_share_nothing_by_overlap_and_a_second_by_time() -> None:
    truth, said = events((100, 160)), events((60, 100))
    assert ovlp(truth, said, 600).fp == 1
    assert taes(truth, said, 600).tn == pytest.approx(0.6)  # the background behind is used up by the one before


def test_one_hypothesis_over_three_seizures_finds_one_of_them_by_time() -> None:
    found = taes(events((100, 130), (200, 230), (300, 330)), events((90, 340)), 900)
    assert (found.tp, found.fn, found.fp) == (1, 2, 1)


def test_an_event_within_a_second_is_not_on_szcores_grid() -> None:
    assert not on_grid(events((100.2, 100.7)), 300).any()
    assert szcore(events((100.2, 100.7)), (), 300)["event"].to_dict()["sensitivity"] is None
    assert szcore(events((0.2, 0.7)), (), 0.8)["event"].to_dict()["fp_per_24h"] is None  # no whole second


@pytest.mark.skipif(not SCORING.is_dir(), reason="the shared recordings are not here")
def test_pooled_to_the_digit_of_the_official_program() -> None:
    expected = json.loads((SCORING / "expected.json").read_text())["aggregate_nedc_v6.0.0"]
    names = sorted(path.name for path in (SCORING / "ref").glob("*.csv_bi"))
    found = pooled([compare(SCORING / "ref" / name, SCORING / "hyp" / name) for name in names])
    for rule, fields in found.to_dict()["nedc_v6.0.0"].items():
        assert fields == pytest.approx(expected[rule], abs=0.00501), rule
    assert found.duration_s == expected["duration"]


@given(st.lists(st.tuples(annotations(), annotations()), min_size=1, max_size=4))
def test_pooled_is_the_sum_of_its_parts(pairs: list[tuple[tuple[Event, ...], tuple[Event, ...]]]) -> None:
    parts = [compare_events(*pair, DURATION_S + k) for k, pair in enumerate(pairs)]
    whole = pooled(parts)
    for rule in ("epoch", "ovlp", "taes"):
        for count in ("targets", "tp", "tn", "fp", "fn"):
            assert getattr(getattr(whole, rule), count) == sum(getattr(getattr(part, rule), count) for part in parts)
    assert whole.ovlp.fa24 == pytest.approx(whole.ovlp.fp / whole.duration_s * 86_400)
    assert whole.epoch.fa24 == pytest.approx(whole.epoch.fp * EPOCH_S / whole.duration_s * 86_400)
    for rule, hits in whole.szcore.items():
        assert (hits.tp, hits.fp) == (
            sum(part.szcore[rule].tp for part in parts),
            sum(part.szcore[rule].fp for part in parts),
        )


@given(annotations(), annotations())
def test_szcores_ratios_are_the_librarys(truth: tuple[Event, ...], said: tuple[Event, ...]) -> None:
    from timescoring.annotations import Annotation
    from timescoring.scoring import EventScoring, SampleScoring

    masks = [Annotation(on_grid(each, DURATION_S), 1) for each in (truth, said)]
    found = szcore(truth, said, DURATION_S)
    for rule, theirs in (("event", EventScoring(*masks)), ("sample", SampleScoring(*masks, 1))):
        ours = found[rule].to_dict()
        for name, value in (("sensitivity", theirs.sensitivity), ("precision", theirs.precision), ("f1", theirs.f1)):
            assert (ours[name] is None and math.isnan(value)) or ours[name] == pytest.approx(value)
        assert ours["fp_per_24h"] == pytest.approx(theirs.fpRate)


def test_command_scores_two_files(tmp_path: Path) -> None:
    paths = [tmp_path / "ref.csv_bi", tmp_path / "hyp.csv_bi"]
    write_csv_bi(paths[0], events((100, 160)), 600)
    write_csv_bi(paths[1], events((110, 140)), 600)
    result = CliRunner().invoke(cli, ["score", *map(str, paths), "--format", "json"])
    document = json.loads(result.stdout)
    assert set(document) == {"nedc_v6.0.0", "szcore_evaluation_path_1Hz"}
    assert document["nedc_v6.0.0"]["taes"]["tp"] == 0.5
    text = CliRunner().invoke(cli, ["score", *map(str, paths)]).stdout
    assert "NEDC TAES" in text and "SzCORE event" in text


def test_files_of_two_recordings_are_refused(tmp_path: Path) -> None:
    write_csv_bi(tmp_path / "ref.csv_bi", (), 600)
    write_csv_bi(tmp_path / "hyp.csv_bi", (), 500)
    with pytest.raises(EvaluationError, match=r"hyp.csv_bi: is of a recording of 500 s, .*ref.csv_bi of one of 600 s"):
        compare(tmp_path / "ref.csv_bi", tmp_path / "hyp.csv_bi")


def test_a_seizure_past_the_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ref.csv_bi"
    columns = "channel,start_time,stop_time,label,confidence"
    path.write_text(f"# duration = 60.00 secs\n{columns}\nTERM,10.0,70.0,seiz,1.0\n")
    with pytest.raises(EvaluationError, match="a seizure ends at 70 s, past the recording's 60 s"):
        compare(path, path)


def test_a_file_that_is_no_table_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv_bi").write_text("nothing\n")
    with pytest.raises(LabelError, match=r"a\.csv_bi:1"):
        compare(tmp_path / "a.csv_bi", tmp_path / "a.csv_bi")
