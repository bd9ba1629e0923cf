from __future__ import annotations

import gc
import json
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from brainbrr.config import Config
from brainbrr.data.labels import Event
from brainbrr.evaluation.baseline import line_length
from brainbrr.evaluation.document import document
from brainbrr.evaluation.evaluate import evaluate, evaluate_scores
from brainbrr.evaluation.events import EvaluationError
from brainbrr.evaluation.postprocess import events_from_probabilities
from brainbrr.evaluation.scoring import choose_threshold
from brainbrr.evaluation.stitching import probabilities
from brainbrr.training.losses import bce_loss, build_loss

RATE = 256


def config(**sections: Any) -> Config:
    return Config.model_validate(
        {"data": {"window_size": 20}, "evaluation": {"stride": 10, "batch_size": 4}, **sections}
    )


def trace(minutes: float, bumps: dict[tuple[float, float], float]) -> np.ndarray:
    """Logits of -9, with {(start_s, stop_s): logit} on top."""
    logits = np.full(round(minutes * 60 * RATE), -9.0, dtype=np.float32)
    for (start, stop), value in bumps.items():
        logits[round(start * RATE) : round(stop * RATE)] = value
    return logits


def run(echo: nn.Module, recordings: Any, settings: Config | None = None, **options: Any) -> Any:
    return evaluate(echo, recordings, settings or config(), device="cpu", **options)


def test_perfect(echo: nn.Module, make_recording: Any) -> None:
    report = run(echo, [make_recording(trace(6, {(100, 130): 5}), [(100, 130)])])
    assert report.metrics() == {
        "loss": pytest.approx(0, abs=1e-4),
        "auroc": 1.0,
        **{f"sensitivity_at_{rate}fa": 1.0 for rate in ("10", "5", "2.5", "1")},
    }
    assert report.configured.false_alarms == 0
    assert report.recordings[0].events == (Event(start_s=100, stop_s=130, confidence=pytest.approx(0.9933, abs=1e-4)),)


def test_nothing_found(echo: nn.Module, make_recording: Any) -> None:
    report = run(echo, [make_recording(trace(6, {}), [(100, 130)])])
    assert report.metric("sensitivity_at_10fa") == 0.0
    assert report.auroc == 0.5
    assert all(point.reachable and point.score.false_alarms == 0 for point in report.points)


@pytest.mark.parametrize("logit", [-9.0, -5.0, 0.0, 3.0])
def test_a_detector_without_opinion_detects_nothing(logit: float, echo: nn.Module, make_recording: Any) -> None:
    """Below its one value each recording is a single event that overlaps the seizure, without any false alarm."""
    blind = [make_recording(np.full(6 * 60 * RATE, logit), [(100, 130)], name=f"r{k}") for k in range(3)]
    report = run(echo, blind)
    assert report.auroc == 0.5
    assert all(point.score is None or point.score.sensitivity == 0 for point in report.points)
    lowest = report.sweep.score_at(report.sweep.thresholds[0])
    assert (lowest.detected, lowest.false_alarms) == ((0, 0) if logit == -9 else (3, 0))


def test_partial_overlap_detects_and_what_lies_elsewhere_is_one_false_alarm(
    echo: nn.Module, make_recording: Any
) -> None:
    report = run(
        echo, [make_recording(trace(10, {(125, 145): 4, (300, 310): 4}), [(100, 130), (400, 420)], name="one")]
    )
    assert (report.configured.detected, report.configured.references, report.configured.false_alarms) == (1, 2, 1)
    assert report.configured.fa_per_24h == pytest.approx(144)
    assert report.configured.false_share == pytest.approx(25 / 600)


def test_one_false_alarm_counts_once_though_many_windows_see_it(echo: nn.Module, make_recording: Any) -> None:
    recording = make_recording(trace(6, {(200, 206): 5}), [(20, 30)])
    report = run(echo, [recording], config(evaluation={"stride": 1, "batch_size": 8}))
    assert report.configured.false_alarms == 1


def test_recordings_are_never_mixed(echo: nn.Module, make_recording: Any) -> None:
    """The prediction of one recording stands where the other has its seizure."""
    one = make_recording(trace(6, {(100, 130): 5}), [], name="one", patient="a")
    two = make_recording(trace(6, {}), [(100, 130)], name="two", patient="b")
    report = run(echo, [one, two])
    assert (report.configured.detected, report.configured.false_alarms) == (0, 1)
    first, second = report.recordings
    assert (first.name, first.patient, first.seizures, second.seizures) == ("one", "a", 0, 1)
    assert first.sweep.score_at(0.86).false_alarms == 1 and second.sweep.score_at(0.86).false_alarms == 0
    assert first.auroc is None and second.auroc == 0.5


def test_pooled_is_the_sum_of_the_recordings(echo: nn.Module, make_recording: Any) -> None:
    recordings = [
        make_recording(trace(5 + k, {(60, 90): 2 + k, (200, 210): 1 + k}), [(60, 90)], name=f"r{k}") for k in range(4)
    ]
    report = run(echo, recordings)
    for k in range(len(report.sweep.thresholds)):
        assert report.sweep.detected[k] == sum(r.sweep.detected[k] for r in report.recordings)
        assert report.sweep.false_alarms[k] == sum(r.sweep.false_alarms[k] for r in report.recordings)
    assert report.sweep.hours == pytest.approx((5 + 6 + 7 + 8) / 60)


def test_false_alarms_fall_as_the_threshold_rises(echo: nn.Module, make_recording: Any) -> None:
    bumps = {(20.0 * k, 20.0 * k + 8): k / 2 - 4 for k in range(1, 17)}
    report = run(echo, [make_recording(trace(6, bumps), [])])
    alarms = list(report.sweep.false_alarms)
    assert alarms == sorted(alarms, reverse=True) and alarms[0] > alarms[-1]


def test_the_sweep_at_the_configured_threshold_is_what_the_events_say(echo: nn.Module, make_recording: Any) -> None:
    rng = np.random.default_rng(3)
    logits = np.repeat(rng.normal(1, 2, 60), 6 * RATE)
    report = run(echo, [make_recording(logits, [])])
    assert len(report.recordings[0].events) == report.configured.false_alarms > 0


def test_an_unreachable_rate_is_said_and_has_no_number(echo: nn.Module, make_recording: Any) -> None:
    report = run(echo, [make_recording(trace(6, {(100, 130): 20, (200, 230): 20}), [(100, 130)])])
    assert report.metric("sensitivity_at_10fa") is None
    assert np.isnan(report.scalars()["sensitivity_at_10fa"])
    assert not any(point.reachable for point in report.points)
    found = json.loads(json.dumps(document(report), allow_nan=False))
    assert found["pooled"]["sensitivity_at_1fa"] is None
    point = found["pooled"]["points"][0]
    assert (point["fa_rate"], point["reachable"], point["threshold"], point["score"]) == (10.0, False, None, None)
    assert report.rows()[1][4] == "unreachable" and report.point_rows()[1][1] == "unreachable"
    assert found["pooled"]["configured"]["sensitivity"] == 1.0  # the configured threshold is reported apart


def test_a_threshold_chosen_on_other_patients_is_used_as_it_is(echo: nn.Module, make_recording: Any) -> None:
    dev = run(echo, [make_recording(trace(6, {(100, 130): 3, (200, 230): 1}), [(100, 130)])])
    chosen = {rate: choose_threshold(dev.sweep, rate) for rate in (10.0, 1.0)}
    assert chosen[10.0] is not None and 0.73 < chosen[10.0] < 0.96
    other = run(
        echo, [make_recording(trace(6, {(50, 80): 3, (150, 170): 0.5, (300, 320): 4}), [(50, 80)])], chosen=chosen
    )
    assert other.threshold_source == "given" and dev.threshold_source == "these recordings"
    point = other.points[0]
    assert (point.threshold, point.score.detected, point.score.false_alarms) == (chosen[10.0], 1, 1)
    assert point.score.fa_per_24h > 10  # the rate is what it is on these patients
    odd = run(echo, [make_recording(trace(6, {}), [(50, 80)])], chosen={10.0: 0.123456, 1.0: None})
    assert odd.points[0].threshold == 0.123456 and not odd.points[1].reachable


def test_metrics_follow_the_rates_and_an_unknown_one_is_named(echo: nn.Module, make_recording: Any) -> None:
    settings = config(evaluation={"stride": 10, "fa_rates": [3, 0.5]})
    report = run(echo, [make_recording(trace(2, {}), [(20, 40)])], settings)
    assert list(report.metrics()) == ["loss", "auroc", "sensitivity_at_3fa", "sensitivity_at_0.5fa"]
    with pytest.raises(EvaluationError, match=r"no metric 'sensitivity_at_10fa'; there are loss, auroc, .*fa_rates"):
        report.metric("sensitivity_at_10fa")


def test_the_loss_is_the_configured_one_over_windows_and_padding_is_left_out(
    echo: nn.Module, make_recording: Any
) -> None:
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(rng.normal(size=15 * RATE).astype(np.float32))
    target = torch.zeros(15 * RATE)
    target[5 * RATE : 9 * RATE] = 1
    recording = make_recording(logits.numpy(), [(5, 9)])
    settings = config()
    focal = build_loss(settings.training)(logits[None], target[None])
    assert run(echo, [recording], settings).loss == pytest.approx(float(focal), rel=1e-5)
    bce = bce_loss(logits[None], target[None])
    assert run(echo, [recording], settings, loss=bce_loss).loss == pytest.approx(float(bce), rel=1e-5)
    assert run(echo, [recording], config(training={"loss": "bce"})).loss == pytest.approx(float(bce), rel=1e-5)


def test_recordings_without_labels_are_left_out_and_named(echo: nn.Module, make_recording: Any) -> None:
    known = make_recording(trace(2, {}), [], name="known")
    unknown = make_recording(trace(2, {(20, 40): 5}), None, name="unknown")
    report = run(echo, [unknown, known])
    assert report.unlabelled == ("unknown",) and [r.name for r in report.recordings] == ["known"]
    assert unknown.reads == 0 and report.configured.false_alarms == 0
    with pytest.raises(EvaluationError, match=r"no labelled recording to score \(1 without labels\)"):
        run(echo, [unknown])
    with pytest.raises(EvaluationError, match=r"\(0 without labels\)"):
        run(echo, [])


def test_altered_references_are_counted(echo: nn.Module, make_recording: Any) -> None:
    labels = [(10.0, 20.0), (10.0, 20.0), (50.0, 60.0), (55.0, 70.0), (110.0, 999.0), (500.0, 600.0)]
    report = run(echo, [make_recording(trace(2, {}), labels)])
    assert report.recordings[0].seizures == 3
    assert report.recordings[0].altered_references == 5  # a double, two united, one cut, one behind the end
    assert run(echo, [make_recording(trace(2, {}), labels[1:3])]).recordings[0].altered_references == 0


def test_one_recording_is_alive_at_a_time(echo: nn.Module, make_recording: Any) -> None:
    alive: list[weakref.ref[Any]] = []

    def one_by_one() -> Iterator[Any]:
        for k in range(4):
            gc.collect()
            assert not [ref for ref in alive if ref() is not None], "the recording before this one is still held"
            recording = make_recording(trace(1, {(10, 20): 5}), [(10, 20)], name=f"r{k}")
            alive.append(weakref.ref(recording))
            yield recording
            del recording

    report = run(echo, one_by_one())
    assert len(report.recordings) == 4 and report.configured.detected == 4


def test_progress_tells_how_many_are_done(echo: nn.Module, make_recording: Any) -> None:
    recordings = [make_recording(trace(1, {}), [], name=name) for name in "ab"]
    seen: list[tuple[int, int, str]] = []
    run(echo, recordings, progress=lambda *line: seen.append(line))
    run(echo, iter(recordings[:1]), progress=lambda *line: seen.append(line))
    assert seen == [(1, 2, "a"), (2, 2, "b"), (1, 1, "a")]


def test_the_report_is_json_and_a_table(echo: nn.Module, make_recording: Any) -> None:
    recordings = [
        make_recording(trace(30, {(100, 130): 4, (300, 320): 3}), [(100, 130)], name="one"),
        make_recording(trace(30, {}), [], name="two"),
    ]
    report = run(echo, recordings)
    found = json.loads(json.dumps(document(report), allow_nan=False))
    assert found["pooled"]["hours"] == 1.0 and found["pooled"]["seizures"] == 1
    assert found["recordings"][1]["auroc"] is None
    assert found["recordings"][0]["events"][0]["start_s"] == 100
    assert len(found["pooled"]["sweep"]["thresholds"]) == len(found["pooled"]["sweep"]["false_alarms"])
    header, one, two, patient, pooled = rows = report.rows()
    assert header[4] == "at 10 FA/24 h" and {len(row) for row in rows} == {8}
    assert patient[:3] == ["all", "pat", "1.00"] and patient[4:] == pooled[4:]
    assert one[4] == "1/1 · 0 FA" and two[3:5] == ["–", "0/0 · 0 FA"] and pooled[:3] == ["pooled", "", "1.00"]
    assert report.point_rows()[1][0] == "10" and report.point_rows()[1][2] == "1.000"


def test_a_bad_logit_stops_the_evaluation_with_recording_and_second(echo: nn.Module, make_recording: Any) -> None:
    logits = trace(2, {})
    logits[64 * RATE] = np.nan
    with pytest.raises(EvaluationError, match=r"p7_s002: 2 logits are not finite, the first at 64\.000 s"):
        run(echo, [make_recording(logits, [], name="p7_s002")])


def test_scores_from_elsewhere_run_through_the_same_sweep(make_recording: Any) -> None:
    rng = np.random.default_rng(0)
    recording = make_recording(np.zeros(10 * 60 * RATE), [(200, 240)])
    recording.signal = rng.normal(size=recording.signal.shape).astype(np.float32)
    recording.signal[:, 200 * RATE : 240 * RATE] *= 5
    report = evaluate_scores(lambda r: line_length(r, n_samples=r.n_samples), [recording], config())
    assert report.loss is None
    assert report.auroc is not None and report.auroc > 0.95
    assert report.metric("sensitivity_at_10fa") == 1.0


def test_scores_that_do_not_fit_are_an_error(make_recording: Any) -> None:
    recording = make_recording(trace(1, {}), [], name="rec_a")
    with pytest.raises(EvaluationError, match=r"rec_a: scores have the shape \(3,\); expected one for each sample"):
        evaluate_scores(lambda r: np.zeros(3, dtype=np.float32), [recording], config())
    bad = np.full(recording.n_samples, np.nan, dtype=np.float32)
    with pytest.raises(EvaluationError, match="rec_a: 15360 of 15360 probabilities are not finite"):
        evaluate_scores(lambda r: bad, [recording], config())


def test_thresholds_are_the_grid_and_the_configured_one_joins(echo: nn.Module, make_recording: Any) -> None:
    report = run(echo, [make_recording(trace(1, {}), [])], thresholds=[0.3, 0.6])
    assert report.sweep.thresholds == (0.3, 0.6, 0.86)


def test_the_events_are_those_of_the_stitched_probabilities(echo: nn.Module, make_recording: Any) -> None:
    recording = make_recording(np.repeat(np.random.default_rng(1).normal(1, 3, 40), 7 * RATE), [])
    settings = config()
    prob = probabilities(
        echo,
        recording,
        n_samples=recording.n_samples,
        window=20 * RATE,
        stride=10 * RATE,
        batch_size=4,
        device="cpu",
    )
    events = events_from_probabilities(prob, RATE, settings.postprocessing)
    assert run(echo, [recording], settings).recordings[0].events == events
