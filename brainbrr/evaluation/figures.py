"""The pictures of an evaluation: ROC, sensitivity against false alarms, reliability, and a timeline each recording.

The same report gives the same bytes: no date, no random names. Drawn with matplotlib, which nobody waits for who asks
for no picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from brainbrr.data.labels import Event
from brainbrr.evaluation.auroc import ScoreHistogram
from brainbrr.evaluation.patients import RecordingResult
from brainbrr.evaluation.report import EvaluationReport, shown
from brainbrr.files import atomic_write
from brainbrr.page import colour
from brainbrr.picture import SQUARE, WIDE, Picture


def curves(report: EvaluationReport) -> list[Picture]:
    """The pictures of all recordings together; those that need a seizure or a background are left out without one."""
    found = []
    if report.auroc is not None:
        caption = f"ROC over all samples, area {report.auroc:.3f}"
        found.append(Picture(name="roc", caption=caption, size=SQUARE, draw=lambda axes: _roc(axes, report.histogram)))
    if report.sweep.references:
        caption = (
            f"Sensitivity against false alarms per 24 h over {len(report.sweep.thresholds)} thresholds; "
            f"marked: thresholds chosen on {report.threshold_source}"
        )
        found.append(Picture(name="sensitivity", caption=caption, size=SQUARE, draw=lambda axes: _sweep(axes, report)))
    caption = (
        f"Reliability: share of samples in seizures against their probability, ECE {shown(report.reliability.ece)}"
    )
    found.append(
        Picture(name="reliability", caption=caption, size=SQUARE, draw=lambda axes: _reliability(axes, report))
    )
    return found


def timeline(report: EvaluationReport, recording: RecordingResult) -> Picture:
    """Reference above, probability, hypothesis below, over the time of one recording."""
    score = recording.sweep.score_at(report.configured.threshold)
    caption = (
        f"{recording.name}: reference above, hypothesis at {score.threshold:g} below; "
        f"{score.detected} of {score.references} seizures found, {score.false_alarms} false alarms"
    )
    return Picture(
        name=f"timeline-{recording.name}",
        caption=caption,
        size=WIDE,
        draw=lambda axes: _timeline(axes, recording, score.threshold),
    )


def pictures(report: EvaluationReport) -> Iterator[Picture]:
    """All of them, timelines last."""
    yield from curves(report)
    yield from (timeline(report, recording) for recording in report.recordings)


def write_figures(report: EvaluationReport, folder: Path) -> int:
    """Write every picture as NAME.png and NAME.svg into `folder`; returns how many pictures."""
    count = 0
    for picture in pictures(report):
        for form in ("svg", "png"):
            with atomic_write(folder / f"{picture.name}.{form}") as file:
                file.write(picture.render("svg" if form == "svg" else "png"))
        count += 1
    return count


def _roc(axes: Any, histogram: ScoreHistogram) -> None:
    hits = np.concatenate([[0], np.cumsum(histogram.positives[::-1])]) / histogram.positives.sum()
    alarms = np.concatenate([[0], np.cumsum(histogram.negatives[::-1])]) / histogram.negatives.sum()
    points = np.unique(np.stack([alarms, hits], axis=1).round(3), axis=0)  # finer is not seen
    axes.plot([0, 1], [0, 1], color=colour("dim"), linestyle=":", linewidth=1)
    axes.plot(points[:, 0], points[:, 1], color=colour("curve"))
    axes.set(xlabel="share of background marked", ylabel="share of seizure marked", xlim=(0, 1), ylim=(0, 1.01))


def _sweep(axes: Any, report: EvaluationReport) -> None:
    sweep = report.sweep
    least = 12 / sweep.hours  # half an alarm: where none stands on an axis that has no zero
    rates = np.maximum(np.array(sweep.false_alarms) * 24 / sweep.hours, least)
    axes.plot(rates, np.array(sweep.detected) / sweep.references, color=colour("curve"), marker=".", markersize=3)
    marked: dict[tuple[float, float | None], list[str]] = {}
    for point in report.points:
        axes.axvline(point.fa_rate, color=colour("dim"), linestyle=":", linewidth=1)
        if point.score is not None:
            place = (max(point.score.fa_per_24h, least), point.score.sensitivity)
            marked.setdefault(place, []).append(f"{point.fa_rate:g}")
    for place, rates_there in marked.items():
        axes.plot(*place, color=colour("bad"), marker="o")
        told = ", ".join(rates_there)
        axes.annotate(told, place, textcoords="offset points", xytext=(5, -10), color=colour("bad"))
    axes.set_xscale("log")
    axes.set(xlabel=f"false alarms per 24 h ({least:.2g}: none in {sweep.hours:.3g} h)", ylabel="sensitivity")
    axes.set_ylim(-0.02, 1.02)


def _reliability(axes: Any, report: EvaluationReport) -> None:
    filled = [each for each in report.reliability.table() if each.samples]
    axes.plot([0, 1], [0, 1], color=colour("dim"), linestyle=":", linewidth=1)
    means, shares = [each.mean_probability for each in filled], [each.seizure_share for each in filled]
    sizes = [6 + 18 * np.log10(each.samples) for each in filled]
    axes.plot(means, shares, color=colour("curve"), linewidth=1)
    axes.scatter(means, shares, s=sizes, color=colour("curve"))
    axes.set(xlabel="mean probability (larger: more samples)", ylabel="share in seizures")
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))


def _timeline(axes: Any, recording: RecordingResult, threshold: float) -> None:
    minutes = recording.duration_s / 60
    edges = np.linspace(0, minutes, recording.peaks.size + 1)
    axes.stairs(recording.peaks, edges, color=colour("curve"), fill=True, alpha=0.5, linewidth=0)
    axes.axhline(threshold, color=colour("dim"), linestyle=":", linewidth=1)
    for events, level, name in ((recording.references, 1.1, "good"), (recording.events, -0.3, "bad")):
        axes.broken_barh([_span(event, minutes) for event in events], (level, 0.2), color=colour(name))
    axes.set_yticks([-0.2, 0, 1, 1.2], ["hypothesis", "0", "1", "reference"])
    axes.grid(False, axis="y")
    axes.set(xlabel="minutes", xlim=(0, minutes), ylim=(-0.4, 1.4))


def _span(event: Event, minutes: float) -> tuple[float, float]:
    """Start and length, wide enough to be seen."""
    return event.start_s / 60, max((event.stop_s - event.start_s) / 60, minutes / 800)
