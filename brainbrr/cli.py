"""The command line of the detector, and the composition root: the one file here that knows the debugger.

Heavy imports happen inside the command that uses them, so that `--help` answers at once.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import click

from brainbrr.terminal import finished, interrupted, progress, table
from brainbrr_debug.main import emit, narrate, refuse_to_overwrite, result_options, run

SET = click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Change one key of the configuration.")
DEVICE = click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), help="Overrides experiment.device.")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="brainbrr")
def cli() -> None:
    """Detect epileptic seizures in scalp EEG; train the detector under watch."""


def resolve(path: Path | None, sets: tuple[str, ...], device: str | None = None) -> tuple[Any, dict[str, Any]]:
    """The configuration at `path` with `--set`, `--device` and the environment's overrides, and what those changed.

    Without a path the values that are not set are the defaults.
    """
    from brainbrr.configure import build_config, load_config, parse_override, set_value
    from brainbrr.environment import apply_overrides

    sets = (*sets, f"experiment.device={device}") if device else sets
    if path is not None:
        return apply_overrides(load_config(path, sets))
    values: dict[str, Any] = {}
    for override in sets:
        set_value(values, *parse_override(override))
    return apply_overrides(build_config(values, source="--set"))


@cli.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--resume", type=click.Path(path_type=Path), help="Run directory to go on with.")
@DEVICE
@SET
@result_options("text", "json")
def train(
    config: Path,
    resume: Path | None,
    device: str | None,
    sets: tuple[str, ...],
    form: str,
    output: Path | None,
    force: bool,
) -> int:
    """Train the detector that CONFIG describes, under watch.

    Exit codes: 0 finished, 1 stopped by a finding (capture written) or no seizure to learn from, 130 interrupted.
    """
    from brainbrr.training.checkpoint import to_resume

    refuse_to_overwrite(output, force=force)
    resolved, overrides = resolve(config, sets, device)
    checkpoint = None if resume is None else to_resume(resume, resolved)
    document, text, code = _train(resolved, overrides, resume, checkpoint)
    emit(document, text, form=form, output=output, force=force)
    return code


def _train(
    config: Any, overrides: dict[str, Any], resume: Path | None, checkpoint: Any
) -> tuple[dict[str, Any], str, int]:
    """Prepare data, build, train under watch: the document, its text and the exit code."""
    from brainbrr.data.prepare import prepare, windows
    from brainbrr.evaluation.validation import validator
    from brainbrr.training.loop import Trainer
    from brainbrr.training.observer import Unobserved
    from brainbrr.training.setup import build_setup
    from brainbrr.training.startup import environment, startup_lines
    from brainbrr.training.tensorboard import scalar_writer
    from brainbrr_debug.environment import describe_environment
    from brainbrr_debug.rundir import RunDir
    from brainbrr_debug.watch import NonFiniteStep

    setup = build_setup(config)  # first, because building the cache can take hours and this can fail
    with progress("recordings", narrate, live=config.experiment.progress) as advance:
        caches = prepare(config, narrate, advance)
    dataset = windows(config, caches["train"], narrate)
    for line in startup_lines(setup, config, overrides):
        narrate(line)
    run_dir = RunDir.at(resume) if resume else RunDir.create(config.experiment.output_dir, config.experiment.name)
    narrate(f"run         {run_dir.path}")
    run_dir.write_config(config.model_dump(mode="json"))
    facts = environment(setup, config, overrides)
    watch = _watch(config, setup, run_dir, facts) if config.watch.enabled else None
    if watch is None:
        run_dir.write_environment({**describe_environment(setup.device), **facts})
    log, close = scalar_writer(run_dir.path / "tensorboard", enabled=config.experiment.tensorboard)
    trainer = Trainer(
        config,
        setup,
        dataset,
        checkpoints=run_dir.path / "checkpoints",
        observer=watch or Unobserved(),
        validate=validator(config, caches.get("dev"), narrate),
        narrate=narrate,
        scalars=log,
    )
    if checkpoint is not None:
        trainer.resume(checkpoint)
    try:
        with watch or contextlib.nullcontext():
            outcome = trainer.train()
    except NonFiniteStep as stop:
        document = {"run": str(run_dir.path), "stopped": True, "step": trainer.step, "finding": stop.finding}
        capture = None if stop.capture_path is None else str(stop.capture_path)
        return {**document, "capture": capture}, f"stopped: {stop}", 1
    except KeyboardInterrupt:
        narrate(interrupted(trainer.step, trainer.saved, run_dir.path))
        raise
    finally:
        close()
    document, text = finished(
        outcome, watch.counters if watch else {}, setup.step.altered, setup.model.counters(), run_dir.path
    )
    run_dir.write_outcome(document)
    return document, text, 0


def _watch(config: Any, setup: Any, run_dir: Any, environment: dict[str, Any]) -> Any:
    """The Watch that the configuration asks for."""
    from brainbrr_debug.watch import Watch

    return Watch(
        setup.model,
        setup.optimizer,
        run_dir=run_dir,
        policy=config.training.on_nonfinite,
        max_skipped=config.training.max_skipped_steps,
        healthy_batches=config.watch.healthy_batches,
        sentinel=config.watch.sentinel,
        eigengap=config.watch.eigengap,
        snapshot_every=config.watch.snapshot_every,
        scaler=setup.step.scaler,
        subject="brainbrr_debug.subjects.brainbrr:DetectorSubject",
        config=config.model_dump(mode="json"),
        environment=environment,
        seed=config.experiment.seed,
    )


@cli.command("build-cache")
@click.option("--data-dir", required=True, type=click.Path(path_type=Path), help="Folder that holds edf/SPLIT.")
@click.option("--cache-dir", required=True, type=click.Path(path_type=Path))
@click.option("--split", default="train", show_default=True, type=click.Choice(["train", "dev", "eval"]))
@click.option("--limit-files", type=click.IntRange(min=1), help="Only the first N recordings.")
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Processes.")
@click.option("--config", type=click.Path(path_type=Path), help="Take `preprocessing` from this configuration.")
@SET
@result_options("text", "json")
def build_cache_command(
    data_dir: Path,
    cache_dir: Path,
    split: str,
    limit_files: int | None,
    jobs: int,
    config: Path | None,
    sets: tuple[str, ...],
    form: str,
    output: Path | None,
    force: bool,
) -> int:
    """Preprocess the recordings of a split into a memory-mapped cache; resumes where it was stopped.

    Exit codes: 0 all of them, 1 a recording failed or a training split holds no seizure.
    """
    from brainbrr.data.cache import build_cache

    refuse_to_overwrite(output, force=force)
    resolved, _ = resolve(config, sets)
    with progress("recordings", narrate, live=resolved.experiment.progress) as advance:
        report = build_cache(
            data_dir,
            cache_dir,
            split,
            resolved.preprocessing,
            limit_files=limit_files or resolved.data.limit_files,
            jobs=jobs,
            progress=advance,
        )
    emit(report.to_dict(), report.text(), form=form, output=output, force=force)
    return 1 if report.failed or (split == "train" and not report.has_seizures) else 0


@cli.command("scan-cache")
@click.option("--cache-dir", required=True, type=click.Path(path_type=Path))
@result_options("text", "json")
def scan_cache(cache_dir: Path, form: str, output: Path | None, force: bool) -> int:
    """Label coverage and manifest of a cache: 0 it can train a detector, 1 it cannot."""
    from brainbrr.data.cache import scan

    refuse_to_overwrite(output, force=force)
    report = scan(cache_dir)
    emit(report.to_dict(), report.text(), form=form, output=output, force=force)
    return 0 if report.trainable else 1


@cli.command()
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


@cli.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--config", type=click.Path(path_type=Path), help="For a checkpoint that holds none.")
@click.option("--split", default="eval", show_default=True, type=click.Choice(["train", "dev", "eval"]))
@click.option("--thresholds-from", type=click.Choice(["train", "dev"]), help="Choose the thresholds on this split.")
@click.option("--cache-dir", type=click.Path(path_type=Path), help="Cache of DATA.  [default: cache/evaluate-NAME]")
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
    device: str | None,
    sets: tuple[str, ...],
    form: str,
    output: Path | None,
    force: bool,
) -> int:
    """Score CHECKPOINT on the labelled recordings in DATA/edf/SPLIT, per recording and pooled.

    Exit codes: 0 scored, 1 the detector's output is not finite.
    """
    from brainbrr.configure import parse_override, with_values
    from brainbrr.environment import apply_overrides
    from brainbrr.evaluation.checkpointed import evaluate_checkpoint, load_detector
    from brainbrr.evaluation.events import NonFiniteOutput

    refuse_to_overwrite(output, force=force)
    changes = dict(parse_override(override) for override in sets) | ({"experiment.device": device} if device else {})
    detector, found = load_detector(
        checkpoint,
        resolve(config, ())[0] if config else None,
        lambda configured: apply_overrides(with_values(configured, changes))[0],
    )
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
            document = {"stopped": True, "message": str(error)}
            emit(document, f"stopped: {error}", form=form, output=output, force=force)
            return 1
    emit(
        {"stopped": False, **report.to_dict(), "failed": failed},
        f"{table(report.rows())}\n\n{table(report.point_rows())}",
        form=form,
        output=output,
        force=force,
    )
    return 0


@cli.command()
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


@cli.command()
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


@cli.command()
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


def main() -> None:
    """Entry of the `brainbrr` command."""
    run(cli)
