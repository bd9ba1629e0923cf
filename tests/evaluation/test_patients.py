"""Per patient, intervals over patients, the rules of others beside ours, and what an evaluation holds."""

from __future__ import annotations

import gc
import json
import tracemalloc
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from brainbrr.config import Config
from brainbrr.data.formats import write_label_file
from brainbrr.data.labels import Event, LabelFile
from brainbrr.evaluation.compare import compare
from brainbrr.evaluation.document import document
from brainbrr.evaluation.evaluate import evaluate
from brainbrr.evaluation.patients import COLUMNS, mean_over_patients, peaks
from brainbrr.evaluation.report import text

RATE = 256
CHOSEN = {10.0: 0.5, 1.0: None}
FEW = (0.3, 0.5, 0.9)


def config(**sections: Any) -> Config:
    return Config.model_validate(
        {"data": {"window_size": 20}, "evaluation": {"stride": 10, "batch_size": 4}, **sections}
    )


def logits(minutes: float, bumps: dict[tuple[float, float], float]) -> np.ndarray:
    trace = np.full(round(minutes * 60 * RATE), -9.0, dtype=np.float32)
    for (start, stop), value in bumps.items():
        trace[round(start * RATE) : round(stop * RATE)] = value
    return trace


def varied(make_recording: Any, patients: int, each: int = 2) -> list[Any]:
    """Recordings with a seizure, of which some are found, and a false alarm here and there."""
    return [
        make_recording(
            logits(4, {(60, 90): 4 if (p + r) % 3 else -9, (150, 160): 4 if p % 2 else -9}),
            [(60, 90)],
            name=f"p{p}_{r}",
            patient=f"p{p}",
        )
        for p in range(patients)
        for r in range(each)
    ]


@pytest.fixture
def report(echo: nn.Module, make_recording: Any) -> Any:
    return evaluate(echo, varied(make_recording, 5), config(), device="cpu", chosen=CHOSEN, thresholds=FEW)


def test_patients_are_the_sum_of_their_recordings_and_pooled_of_the_patients(report: Any) -> None:
    assert [patient.name for patient in report.patients] == [f"p{p}" for p in range(5)]
    for patient in report.patients:
        assert [recording.patient for recording in patient.recordings] == [patient.name] * 2
        assert patient.sweep.detected == tuple(
            map(sum, zip(*(r.sweep.detected for r in patient.recordings), strict=True))
        )
    assert report.sweep.false_alarms == tuple(
        map(sum, zip(*(p.sweep.false_alarms for p in report.patients), strict=True))
    )
    assert report.rules.ovlp.tp == sum(patient.rules.ovlp.tp for patient in report.patients)
    assert report.rules.szcore["event"].fp == sum(p.rules.szcore["event"].fp for p in report.patients)
    assert report.histogram.positives.sum() == sum(p.histogram.positives.sum() for p in report.patients)
    assert (
        report.reliability.samples.sum() == sum(p.reliability.samples.sum() for p in report.patients) == 10 * 240 * RATE
    )


def test_the_rules_are_those_of_score_on_the_files_of_the_same_events(report: Any, tmp_path: Any) -> None:
    for recording in report.recordings:
        for name, events in (("ref", recording.references), ("hyp", recording.events)):
            labels = LabelFile(path=tmp_path, events=events, duration_s=recording.duration_s)
            write_label_file(tmp_path / f"{name}.csv_bi", labels)
        assert recording.rules.to_dict() == compare(tmp_path / "ref.csv_bi", tmp_path / "hyp.csv_bi").to_dict()


def test_overlap_by_nedc_is_the_sweeps_own(report: Any) -> None:
    assert (report.rules.ovlp.tp, report.rules.ovlp.fp) == (report.configured.detected, report.configured.false_alarms)
    (point, _) = report.points
    assert (point.rules.ovlp.tp, point.rules.ovlp.fp) == (point.score.detected, point.score.false_alarms)


def test_a_given_threshold_that_is_unreachable_is_reported_so(report: Any) -> None:
    found = document(report)["pooled"]["points"]
    assert [(p["fa_rate"], p["reachable"], p["threshold"]) for p in found] == [(10.0, True, 0.5), (1.0, False, None)]
    assert found[0]["rules"]["nedc_v6.0.0"]["ovlp"]["targets"] == 10 and found[1]["rules"] is None
    assert "unreachable" in text(report)
    assert "fa_per_24h_at_1fa" not in document(report)["bootstrap"]["intervals"]


def test_szcores_mean_over_patients_leaves_out_the_undefined(echo: nn.Module, make_recording: Any) -> None:
    found = make_recording(logits(10, {(60, 90): 4}), [(60, 90)], name="a", patient="a")
    quiet = make_recording(logits(10, {}), [], name="b", patient="b")
    alarm = make_recording(logits(10, {(60, 90): 4}), [], name="c", patient="c")
    mean = mean_over_patients(evaluate(echo, [found, quiet, alarm], config(), device="cpu").patients)["event"]
    assert mean == {"sensitivity": 1.0, "precision": 0.5, "f1": 0.5, "fp_per_24h": pytest.approx(48)}


def test_intervals_hold_the_pooled_value_and_are_the_same_again(
    report: Any, echo: nn.Module, make_recording: Any
) -> None:
    found = report.uncertainty.intervals
    pooled = {"auroc": report.auroc, "ece": report.reliability.ece}
    pooled["sensitivity_at_10fa"] = report.points[0].score.sensitivity
    pooled["fa_per_24h_at_10fa"] = report.points[0].score.fa_per_24h
    pooled["nedc.ovlp.f1"] = report.rules.ovlp.to_dict()["f1"]
    pooled["nedc.epoch.fa24"] = report.rules.epoch.fa24
    pooled["szcore.event.f1"] = report.rules.szcore["event"].to_dict()["f1"]
    for name, value in pooled.items():
        assert found[name].low <= value <= found[name].high, name
        assert found[name].low < found[name].high, name
    again = evaluate(echo, varied(make_recording, 5), config(), device="cpu", chosen=CHOSEN, thresholds=FEW)
    assert again.uncertainty.intervals == found


def test_identical_patients_have_intervals_of_no_width(echo: nn.Module, make_recording: Any) -> None:
    alike = [make_recording(logits(4, {(60, 90): 2, (150, 160): 4}), [(60, 90)], patient=f"p{p}") for p in range(3)]
    found = evaluate(echo, alike, config(), device="cpu", thresholds=FEW).uncertainty.intervals
    for name, each in found.items():
        assert each.low == pytest.approx(each.high, abs=1e-12), name


def test_one_patient_has_no_interval_and_the_reason_is_said(echo: nn.Module, make_recording: Any) -> None:
    one = evaluate(echo, varied(make_recording, 1), config(), device="cpu")
    assert document(one)["bootstrap"] == {
        "given": False,
        "why": "1 patient; expected at least 2 to draw from, else every draw is the same",
        "patients": 1,
    }
    assert "no intervals: 1 patient; expected at least 2" in text(one)


def test_the_document_has_no_nan(report: Any) -> None:
    found = json.loads(json.dumps(document(report), allow_nan=False))
    assert found["bootstrap"]["replicates"] == 1000 and found["bootstrap"]["seed"] == 0
    assert len(found["pooled"]["reliability"]) == 15
    assert {"rules", "ece", "auroc", "points"} <= set(found["patients"][0]) & set(found["recordings"][0])


def test_peaks_hide_no_moment() -> None:
    prob = np.zeros(10_000, dtype=np.float32)
    prob[[0, 4321, 9999]] = (0.5, 0.9, 0.7)
    found = peaks(prob)
    assert found.size == COLUMNS and found[0] == np.float32(0.5) and found[-1] == np.float32(0.7)
    assert found.max() == np.float32(0.9)
    assert peaks(prob[:7]).tolist() == prob[:7].tolist()


# Constant memory


class Counting(nn.Module):
    """Logits are the first electrode; knows how many bytes of what it was given and gave are alive."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[weakref.ref[torch.Tensor]] = []
        self.most = 0

    def forward(self, signal: torch.Tensor) -> torch.Tensor:
        logits = signal[:, 0] * 1.0
        self.seen += [weakref.ref(signal), weakref.ref(logits)]
        self.seen = [ref for ref in self.seen if ref() is not None]
        self.most = max(self.most, sum(held.nbytes for ref in self.seen if (held := ref()) is not None))
        return logits


MINUTES = 4
BYTES = 19 * 4 * MINUTES * 60 * RATE  # of one recording


def most_held(make_recording: Any, patients: int) -> tuple[int, int]:
    """The most bytes of arrays and of tensors alive at once while `patients` recordings stream by."""

    def stream() -> Iterator[Any]:
        for p in range(patients):
            yield make_recording(logits(MINUTES, {(60, 90): 4}), [(60, 90)], name=f"r{p}", patient=f"p{p}")

    detector = Counting()
    gc.collect()
    tracemalloc.start()
    try:
        report = evaluate(detector, stream(), config(), device="cpu", thresholds=FEW)
        arrays = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(report.recordings) == patients
    return arrays, detector.most


def test_no_more_is_held_of_many_recordings_than_of_a_few(make_recording: Any) -> None:
    few, many = most_held(make_recording, 3), most_held(make_recording, 12)
    assert BYTES < few[0] < 2 * BYTES, "one recording is held at a time"
    assert many[0] - few[0] < 9 * 0.025 * BYTES, "a recording and its patient leave less than 2.5 % of it, 6 s, behind"
    assert many[1] <= 1.1 * few[1], "tensors are those of a batch"


def test_the_count_above_would_see_a_recording_that_is_kept(
    make_recording: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from brainbrr.evaluation import evaluate as module

    kept: list[Any] = []
    whole = module._Tally._keep
    monkeypatch.setattr(module._Tally, "_keep", lambda self, *seen: (kept.append(seen[0]), whole(self, *seen))[1])
    few, many = most_held(make_recording, 3), most_held(make_recording, 6)
    assert many[0] - few[0] > 2 * BYTES


def test_references_are_joined_and_cut_as_the_rules_ask(echo: nn.Module, make_recording: Any) -> None:
    recording = make_recording(logits(4, {}), [(10, 20), (15, 30), (30, 40), (230, 300), (500, 510)])
    (found,) = evaluate(echo, [recording], config(), device="cpu").recordings
    assert found.references == tuple(Event(start_s=a, stop_s=b) for a, b in ((10, 30), (30, 40), (230, 240)))
    assert found.rules.ovlp.targets == found.sweep.references == 3
