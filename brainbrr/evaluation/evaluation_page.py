"""An evaluation as one page: tables, curves, and a timeline of the recordings that went worst."""

from __future__ import annotations

from collections.abc import Iterator

from brainbrr.evaluation.figures import curves, timeline
from brainbrr.evaluation.patients import RecordingResult
from brainbrr.evaluation.report import EvaluationReport
from brainbrr.page import heading, listing, page, paragraph, side_by_side, table

TIMELINES = 60


def evaluation_page(report: EvaluationReport, title: str) -> str:
    """The whole page; the same report gives the same bytes."""
    return page(title, _body(report))


def _body(report: EvaluationReport) -> Iterator[str]:
    sweep = report.sweep
    yield paragraph(
        f"{len(report.recordings)} recordings of {len(report.patients)} patients, {sweep.hours:.2f} h, "
        f"{sweep.references} seizures\n{report.headline()}"
    )
    yield heading("Sensitivity at a rate of false alarms")
    yield table(report.point_rows())
    yield heading("By every rule in use, at the configured thresholds")
    yield table(report.rules.rows())
    yield heading("Curves")
    yield side_by_side(picture.on_page() for picture in curves(report))
    if report.auroc is None or not sweep.references:
        yield paragraph("Without both seizures and background there is no ROC, without seizures no sensitivity.")
    yield heading("Calibration")
    yield table(report.reliability_rows())
    yield heading("Recordings and patients")
    yield table(report.rows())
    yield listing([f"without labels, left out: {name}" for name in report.unlabelled])
    yield heading("Timelines")
    worst = sorted(report.recordings, key=lambda recording: _errors(report, recording), reverse=True)
    for recording in worst[:TIMELINES]:
        yield timeline(report, recording).on_page()
    if len(worst) > TIMELINES:
        yield paragraph(f"{len(worst) - TIMELINES} recordings with no more errors than these are not drawn.")


def _errors(report: EvaluationReport, recording: RecordingResult) -> int:
    score = recording.sweep.score_at(report.configured.threshold)
    return score.references - score.detected + score.false_alarms
