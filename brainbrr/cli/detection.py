"""The detector and what it detects: its inventory, evaluation, scores."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click

from brainbrr.cli.configuration import DEVICE, SET, resolve
from brainbrr.terminal import progress, table
from brainbrr_debug.main import emit, narrate, refuse_to_overwrite, result_options, write, wrote


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--config", type=click.Path(path_type=Path), help="For a checkpoint that holds none.")
@click.option("--split", default="eval", show_default=True, type=click.Choice(["train", "dev", "eval"]))
@click.option(
    "--thresholds-from",
    type=click.Choice(["train", "dev", "eval"]),
    help="Choose the thresholds on this split.  [default: dev for eval where it has labels, else SPLIT itself]",
)
@click.option("--cache-dir", type=click.Path(path_type=Path), help="Cache of DATA.  [default: cache/evaluate-NAME]")
@click.option("--figures", type=click.Path(path_type=Path), help="Also write the pictures into this folder.")
@click.option("--html", type=click.Path(path_type=Path), help="Also write everything as one page.")
@DEVICE
@SET
@result_options("text", "json")
def evaluate(
    checkpoint: Path,
    data: Path,
    config: Path | None,
    split: str,
    thresholds_from: str | None,
    cache_dir: Path | None,
    figures: Path | None,
    html: Path | None,
    device: str | None,
    sets: tuple[str, ...],
    form: str,
    output: Path | None,
    force: bool,
) -> int:
    """Score CHECKPOINT on the labelled recordings in DATA/edf/SPLIT, per recording and pooled.

    Exit codes: 0 scored, 1 the detector's output is not finite.
    """
    from brainbrr.evaluation.checkpointed import evaluate_checkpoint
    from brainbrr.evaluation.document import document
    from brainbrr.evaluation.events import NonFiniteOutput
    from brainbrr.evaluation.report import text

    for path in (output, html, figures):
        refuse_to_overwrite(path, force=force)
    detector, found = _detector(checkpoint, config, device, sets)
    failed: list[Any] = []
    with progress("recordings", narrate, live=found.experiment.progress) as advance:
        try:
            report = evaluate_checkpoint(
                detector,
                found,
                data,
                split=split,
                thresholds_from=thresholds_from,
                cache_dir=cache_dir,
                narrate=narrate,
                progress=advance,
                left_out=failed.append,
            )
        except NonFiniteOutput as error:
            emit({"stopped": True, "message": str(error)}, f"stopped: {error}", form=form, output=output, force=force)
            return 1
    result = {"stopped": False, **document(report), "failed": failed}
    emit(result, text(report), form=form, output=output, force=force)
    _draw(report, f"{checkpoint.name} on {data.resolve().name}, {split}", figures, html, force=force)
    return 0


def _draw(report: Any, title: str, figures: Path | None, html: Path | None, *, force: bool) -> None:
    from brainbrr.evaluation.evaluation_page import evaluation_page
    from brainbrr.evaluation.figures import write_figures

    if figures is not None:
        write_figures(report, figures)
        wrote(figures)
    if html is not None:
        write(html, evaluation_page(report, title), force=force)


@click.command()
@click.argument("source", metavar="INPUT", required=False, type=click.Path(path_type=Path))
@click.argument("target", metavar="OUTPUT", required=False, type=click.Path(path_type=Path))
@click.option("--check", is_flag=True, help="Instead: what SzCORE's reviewers run, and what scores as zero there.")
@click.option(
    "--checkpoint", required=True, envvar="BRAINBRR_CHECKPOINT", show_envvar=True, type=click.Path(path_type=Path)
)
@click.option("--config", type=click.Path(path_type=Path), help="For a checkpoint that holds none.")
@click.option("--to", "layout", help="Format of OUTPUT.  [default: by its name]")
@click.option("--probabilities", type=click.Path(path_type=Path), help="Also write them, float32 at 256 Hz (.npy).")
@click.option("--all", "everything", is_flag=True, help="OUTPUT is a folder: every form, and the probabilities.")
@DEVICE
@SET
@result_options("text", "json")
def predict(
    source: Path | None,
    target: Path | None,
    check: bool,
    checkpoint: Path,
    config: Path | None,
    layout: str | None,
    probabilities: Path | None,
    everything: bool,
    device: str | None,
    sets: tuple[str, ...],
    form: str,
    output: Path | None,
    force: bool,
) -> int:
    """Write the seizures in the EDF file INPUT to OUTPUT: events.tsv, .csv_bi, .edf annotations and others.

    Exit codes: 0 written, or every check holds; 1 the detector's output is not finite, or a check does not hold.
    """
    from brainbrr.data.formats import format_of, write_label_file
    from brainbrr.evaluation.events import NonFiniteOutput
    from brainbrr.evaluation.export import export, export_paths
    from brainbrr.evaluation.predict import read_and_predict, write_probabilities
    from brainbrr.training.setup import choose_device

    if check:
        refuse_to_overwrite(output, force=force)
        return _check(*_detector(checkpoint, config, device, sets), form=form, output=output, force=force)
    if source is None or target is None:
        raise click.UsageError("INPUT and OUTPUT are missing; expected an EDF file and the file to write, or --check")
    paths = export_paths(target, source) if everything else {}
    for path in (output, probabilities, *(paths.values() or [target])):
        refuse_to_overwrite(path, force=force)
    if not paths:
        format_of(target, layout)  # refused before the work, not after it
    detector, found = _detector(checkpoint, config, device, sets)
    try:
        prediction = read_and_predict(detector, found, source, device=choose_device(found.experiment.device))
    except NonFiniteOutput as error:
        emit({"stopped": True, "message": str(error)}, f"stopped: {error}", form=form, output=output, force=force)
        return 1
    for note in prediction.notes:
        narrate(note)
    if paths:
        export(prediction, paths)
    else:
        write_label_file(target, prediction.labels, source.stem, layout)
    if probabilities is not None:
        write_probabilities(probabilities, prediction.probabilities)
    emit(prediction.to_dict(), prediction.text(), form=form, output=output, force=force)
    wrote(target)
    return 0


def _check(detector: Any, config: Any, *, form: str, output: Path | None, force: bool) -> int:
    from brainbrr.evaluation.submission import check_submission
    from brainbrr.training.setup import choose_device

    outcomes = check_submission(detector, config, device=choose_device(config.experiment.device))
    document = {"holds": all(o.holds for o in outcomes), "checks": [dataclasses.asdict(o) for o in outcomes]}
    rows = [["", "check", "seen"], *(["✓" if o.holds else "✗", o.check, o.seen] for o in outcomes)]
    emit(document, table(rows), form=form, output=output, force=force)
    return 0 if document["holds"] else 1


def _detector(checkpoint: Path, config: Path | None, device: str | None, sets: tuple[str, ...]) -> tuple[Any, Any]:
    """The detector of a checkpoint, and its configuration with `--device`, `--set` and the environment applied."""
    from brainbrr.configure import parse_override, with_values
    from brainbrr.environment import apply_overrides
    from brainbrr.evaluation.checkpointed import load_detector

    changes = dict(parse_override(override) for override in sets) | ({"experiment.device": device} if device else {})
    return load_detector(
        checkpoint,
        resolve(config, (), device)[0] if config else None,
        lambda configured: apply_overrides(with_values(configured, changes))[0],
    )


@click.command()
@click.argument("reference", type=click.Path(path_type=Path))
@click.argument("hypothesis", type=click.Path(path_type=Path))
@result_options("text", "json")
def score(reference: Path, hypothesis: Path, form: str, output: Path | None, force: bool) -> int:
    """Score the labels in HYPOTHESIS against those in REFERENCE by NEDC's EPOCH, OVLP and TAES and by SzCORE."""
    from brainbrr.evaluation.compare import compare

    refuse_to_overwrite(output, force=force)
    found = compare(reference, hypothesis)
    emit(found.to_dict(), table(found.rows()), form=form, output=output, force=force)
    return 0


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@DEVICE
@SET
@result_options("text", "json")
def info(config: Path, device: str | None, sets: tuple[str, ...], form: str, output: Path | None, force: bool) -> int:
    """Stages, shapes, parameters, memory and backends of the detector that CONFIG describes."""
    from brainbrr.config import ConfigError
    from brainbrr.models.inventory import inventory
    from brainbrr.training.setup import choose_device, new_detector
    from brainbrr.training.step import AUTOCAST

    refuse_to_overwrite(output, force=force)
    resolved, _ = resolve(config, sets, device)
    where, notes = None, []
    try:
        where = choose_device(resolved.experiment.device)
    except ConfigError as error:
        notes.append(str(error))
    found = inventory(
        new_detector(resolved),
        batch_size=resolved.training.batch_size,
        dtype=AUTOCAST.get(resolved.training.mixed_precision or ""),
        device=where,
        notes=notes,
    )
    emit(found.to_dict(), f"{table(found.rows())}\n\n{found.summary()}", form=form, output=output, force=force)
    return 0
