"""Recordings and their labels: caches, synthetic corpora, formats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from brainbrr.cli.configuration import SET, resolve
from brainbrr.terminal import progress
from brainbrr_debug.main import emit, narrate, refuse_to_overwrite, result_options, write


@click.command("build-cache")
@click.option("--data-dir", required=True, type=click.Path(path_type=Path), help="Folder of the recordings.")
@click.option("--cache-dir", required=True, type=click.Path(path_type=Path))
@click.option("--split", default="train", show_default=True, type=click.Choice(["train", "dev", "eval"]))
@click.option("--layout", help="Of the folder: tusz, bids, chbmit, siena, seizeit1.  [default: recognised]")
@click.option("--limit-files", type=click.IntRange(min=1), help="Only the first N recordings.")
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Processes.")
@click.option("--config", type=click.Path(path_type=Path), help="Take `preprocessing` from this configuration.")
@SET
@result_options("text", "json")
def build_cache_command(
    data_dir: Path,
    cache_dir: Path,
    split: str,
    layout: str | None,
    limit_files: int | None,
    jobs: int,
    config: Path | None,
    sets: tuple[str, ...],
    form: str,
    output: Path | None,
    force: bool,
) -> int:
    """Preprocess the recordings of a split into a memory-mapped cache; resumes where it was stopped.

    Corpora: TUSZ, BIDS, CHB-MIT, Siena, SeizeIT1. Those without splits of their own get them by patient.
    Exit codes: 0 all of them, 1 a recording failed or a training split holds no seizure.
    """
    from brainbrr.data.cache import build_cache

    refuse_to_overwrite(output, force=force)
    resolved, _ = resolve(config, sets if layout is None else (*sets, f"data.layout={layout}"))
    with progress("recordings", narrate, live=resolved.experiment.progress) as advance:
        report = build_cache(
            data_dir,
            cache_dir,
            split,
            resolved.preprocessing,
            layout=resolved.data.layout,
            limit_files=limit_files or resolved.data.limit_files,
            jobs=jobs,
            progress=advance,
        )
    emit(report.to_dict(), report.text(), form=form, output=output, force=force)
    return 1 if report.failed or (split == "train" and not report.has_seizures) else 0


@click.command("scan-cache")
@click.option("--cache-dir", required=True, type=click.Path(path_type=Path))
@result_options("text", "json")
def scan_cache(cache_dir: Path, form: str, output: Path | None, force: bool) -> int:
    """Label coverage, manifest and faults of a cache: 0 it can train a detector, 1 it cannot.

    The faults are those that the cache.* checks of `brainbrr-debug triage` find.
    """
    from brainbrr.data.cache import scan
    from brainbrr_debug.checks.given import Given
    from brainbrr_debug.records import Severity
    from brainbrr_debug.triage.baseline import Baseline
    from brainbrr_debug.triage.checklist import default_checklist
    from brainbrr_debug.triage.document import row
    from brainbrr_debug.triage.page import finding_lines
    from brainbrr_debug.triage.run import chosen, triage

    refuse_to_overwrite(output, force=force)
    report = scan(cache_dir)
    checklist = default_checklist()
    wanted = chosen(checklist, ("cache.*",), ())
    found = triage(Given(cache=cache_dir), checklist, wanted, Baseline(entries={}))
    document = {**report.to_dict(), "findings": [row(finding) for finding in found.findings], "notes": found.notes}
    document["crashed"] = [crash.check for crash in found.crashed]
    lines = [line for finding in found.findings for line in finding_lines(finding)]
    lines += [f"crashed {crash.check}: {crash.line}" for crash in found.crashed]
    text = "\n".join([report.text(), *lines, *(f"note {note}" for note in found.notes)])
    emit(document, text, form=form, output=output, force=force)
    return 0 if report.trainable and not found.failing(Severity.P1) and not found.crashed else 1


@click.command()
@click.argument("source", metavar="RECORDING|CACHE", type=click.Path(path_type=Path))
@click.option("--labels", type=click.Path(path_type=Path), help="Of RECORDING.  [default: what lies beside it]")
@click.option("--predictions", type=click.Path(path_type=Path), help="To show on the page: a label file, or .npy.")
@click.option("--html", type=click.Path(path_type=Path), help="Also write a page of pictures.")
@result_options("text", "json")
def inspect(
    source: Path,
    labels: Path | None,
    predictions: Path | None,
    html: Path | None,
    form: str,
    output: Path | None,
    force: bool,
) -> int:
    """Look at every electrode of an EDF file (flat, saturated, popped, bridged, duplicated, mains), or at a cache.

    Exit codes: 0 no fault but mains, which the notch removes, or a sound cache; 1 at least one fault or problem.
    """
    for path in (output, html):
        refuse_to_overwrite(path, force=force)
    if source.is_dir():
        if labels or predictions:
            raise click.UsageError(f"{source} is a folder; expected an EDF file for --labels and --predictions")
        return _inspect_cache(source, html, form=form, output=output, force=force)
    if predictions and not html:
        raise click.UsageError("--predictions are shown on the page alone; expected --html PAGE as well")
    from brainbrr.data.inspection import inspect_recording
    from brainbrr.data.recording_page import read_marks, recording_page

    found, montaged = inspect_recording(source, labels)
    marks = read_marks(found, predictions)
    emit(found.to_dict(), found.text(), form=form, output=output, force=force)
    if html is not None:
        write(html, recording_page(found, montaged, marks), force=force)
    return 0 if found.sound else 1


def _inspect_cache(folder: Path, html: Path | None, *, form: str, output: Path | None, force: bool) -> int:
    from brainbrr.data.cache_inspection import inspect_cache
    from brainbrr.data.cache_page import cache_page

    with progress("recordings", narrate, live=resolve(None, ())[0].experiment.progress) as advance:
        found = inspect_cache(folder, advance)
    emit(found.to_dict(), found.text(), form=form, output=output, force=force)
    if html is not None:
        write(html, cache_page(found), force=force)
    return 1 if found.report.problems else 0


@click.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--patients", type=click.IntRange(min=1), default=6, show_default=True, help="Patients of each split.")
@click.option("--minutes", type=click.FloatRange(min=0.1), default=6.0, show_default=True, help="Of each recording.")
@click.option("--seizures", type=click.IntRange(min=0), default=1, show_default=True, help="In each recording.")
@click.option("--lookalikes", type=click.IntRange(min=0), default=1, show_default=True, help="In each recording.")
@click.option("--artefact", "artefacts", multiple=True, help="flat, bridged, saturation, pop, calibration or mains.")
@click.option("--split", "splits", multiple=True, default=("train", "dev"), show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=42, show_default=True)
@result_options("text", "json")
def synthesize(
    directory: Path,
    patients: int,
    minutes: float,
    seizures: int,
    lookalikes: int,
    artefacts: tuple[str, ...],
    splits: tuple[str, ...],
    seed: int,
    form: str,
    output: Path | None,
    force: bool,
) -> int:
    """Write a synthetic corpus of EDF and CSV_BI files to DIRECTORY."""
    from brainbrr.data.synthetic import write_corpus

    refuse_to_overwrite(output, force=force)
    with progress("recordings", narrate, live=resolve(None, ())[0].experiment.progress) as advance:
        report = write_corpus(
            directory,
            patients=patients,
            minutes=minutes,
            seizures=seizures,
            lookalikes=lookalikes,
            artefacts=artefacts,
            seed=seed,
            splits=splits,
            force=force,
            progress=advance,
        )
    emit(report.to_dict(), report.text(), form=form, output=output, force=force)
    return 0


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--recording", help="Which one, of a list of many; an EDF file also gives length and start.")
@click.option("--duration", "duration_s", type=click.FloatRange(min=0, min_open=True), help="Of the recording, s.")
@click.option("--from", "layout", help="Format of SOURCE.  [default: by its name]")
@click.option("--to", "target_layout", help="Format of TARGET.  [default: by its name]")
@result_options("text", "json")
def convert(source: Path, target: Path, form: str, output: Path | None, force: bool, **options: Any) -> int:
    """Write the labels in SOURCE to TARGET in another format.

    csv_bi, csv, tse_bi, tse, bids (events.tsv), chbmit (summary), siena (list), edf+ (annotations); seizeit is read.
    """
    from brainbrr.data.formats.convert import convert_labels

    refuse_to_overwrite(output, force=force)
    refuse_to_overwrite(target, force=force)
    found = convert_labels(source, target, **options)
    document = {"target": str(target), "events": len(found.events), "ignored": found.ignored}
    left_out = "".join(f"; left out: {count} × {what}" for what, count in found.ignored.items())
    emit(document, f"{len(found.events)} seizures to {target}{left_out}", form=form, output=output, force=force)
    return 0
