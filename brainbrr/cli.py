"""The command line of the detector, and the composition root: the one file here that knows the debugger.

Heavy imports happen inside the command that uses them, so that `--help` answers at once.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from brainbrr_debug.main import emit, refuse_to_overwrite, run

FORMAT = click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Form of the result.",
)
SET = click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Change one key of the configuration.")
OUTPUT = click.option("--output", type=click.Path(path_type=Path), help="Write the result to a file.")
FORCE = click.option("--force", is_flag=True, help="Overwrite what is there.")
DEVICE = click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), help="Overrides experiment.device.")


def narrate(line: str) -> None:
    """One line about the work, apart from the result."""
    click.echo(line, err=True)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="brainbrr")
def cli() -> None:
    """Detect epileptic seizures in scalp EEG; train the detector under watch."""


def resolve(path: Path, sets: tuple[str, ...], device: str | None = None) -> tuple[Any, dict[str, Any]]:
    """The configuration at `path` with `--set`, `--device` and the environment's overrides, and what those changed."""
    from brainbrr.configure import load_config
    from brainbrr.environment import apply_overrides

    sets = (*sets, f"experiment.device={device}") if device else sets
    return apply_overrides(load_config(path, sets))


@cli.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--resume", type=click.Path(path_type=Path), help="Run directory to go on with.")
@DEVICE
@SET
@FORMAT
def train(config: Path, resume: Path | None, device: str | None, sets: tuple[str, ...], form: str) -> int:
    """Train the detector that CONFIG describes, under watch.

    Exit codes: 0 finished, 1 stopped by a finding (capture written) or no seizure to learn from, 130 interrupted.
    """
    from brainbrr.training.checkpoint import load_checkpoint

    resolved, overrides = resolve(config, sets, device)
    checkpoint = None
    if resume is not None:
        checkpoint = load_checkpoint(resume / "checkpoints" / "last.pt")
        refuse_another_configuration(checkpoint.config, resolved, resume)
    document, text, code = _train(resolved, overrides, resume, checkpoint)
    emit(document, text, form=form)
    return code


def refuse_another_configuration(ran: Any, asked: Any, run_dir: Path) -> None:
    """A resumed run keeps its configuration, the lengths and the device excepted."""
    from brainbrr.config import ConfigError
    from brainbrr.configure import differences

    free = ("training.epochs", "training.max_steps", "experiment.device", "experiment.progress")
    changed = [line for line in differences(ran, asked) if not line.startswith(free)]
    if changed:
        raise ConfigError(
            f"{run_dir} was started with another configuration: {'; '.join(changed)}; "
            f"give {run_dir / 'config.yaml'} to go on, or leave --resume out"
        )


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
    from brainbrr_debug.rundir import RunDir
    from brainbrr_debug.watch import NonFiniteStep

    with progress("recordings", live=config.experiment.progress) as advance:
        caches = prepare(config, narrate, advance)
    setup = build_setup(config)
    for line in startup_lines(setup, config, overrides):
        narrate(line)
    run_dir = RunDir.open(resume) if resume else RunDir.create(config.experiment.output_dir, config.experiment.name)
    narrate(f"run         {run_dir.path}")
    log, close = scalar_writer(run_dir.path / "tensorboard", enabled=config.experiment.tensorboard)
    watch = _watch(config, setup, run_dir, environment(setup, config, overrides)) if config.watch.enabled else None
    trainer = Trainer(
        config,
        setup,
        windows(config, caches["train"]),
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
        return {**document, "capture": str(stop.capture_path)}, f"stopped at step {trainer.step}: {stop}", 1
    except KeyboardInterrupt:
        resume_command = f"brainbrr train {run_dir.path / 'config.yaml'} --resume {run_dir.path}"
        narrate(f"interrupted at step {trainer.step}, state saved; to go on: {resume_command}")
        raise
    finally:
        close()
    return *finished(outcome, watch.counters if watch else {}, setup.step.altered, run_dir.path), 0


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
        scaler=setup.step.scaler,
        subject="brainbrr_debug.subjects.brainbrr:DetectorSubject",
        config=config.model_dump(mode="json"),
        environment=environment,
        seed=config.experiment.seed,
    )


def finished(outcome: Any, counters: Any, altered: Any, run_dir: Path) -> tuple[dict[str, Any], str]:
    """The document of a run that came to its end and its text; whatever was skipped or altered is named."""
    import dataclasses

    document = {
        "run": str(run_dir),
        "stopped": False,
        **dataclasses.asdict(outcome),
        "watch": counters,
        "altered": altered,
    }
    quiet = [f"{count} {name}" for name, count in counters.items() if count and name != "steps"]
    quiet += [f"{count} {name} sanitised" for name, count in altered.items() if count]
    text = (
        f"finished {outcome.steps} steps in {outcome.seconds:.0f} s; {', '.join(quiet) or 'nothing skipped or altered'}"
    )
    return document, f"{text}\n{run_dir / 'checkpoints' / 'last.pt'}"


@cli.command("build-cache")
@click.option("--data-dir", required=True, type=click.Path(path_type=Path), help="Folder that holds edf/SPLIT.")
@click.option("--cache-dir", required=True, type=click.Path(path_type=Path))
@click.option("--split", default="train", show_default=True, type=click.Choice(["train", "dev", "eval"]))
@click.option("--limit-files", type=click.IntRange(min=1), help="Only the first N recordings.")
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Processes.")
@click.option("--config", type=click.Path(path_type=Path), help="Take `preprocessing` from this configuration.")
@SET
@FORMAT
def build_cache_command(
    data_dir: Path,
    cache_dir: Path,
    split: str,
    limit_files: int | None,
    jobs: int,
    config: Path | None,
    sets: tuple[str, ...],
    form: str,
) -> int:
    """Preprocess the recordings of a split into a memory-mapped cache; resumes where it was stopped."""
    from brainbrr.configure import build_config, parse_override, set_value
    from brainbrr.data.cache import build_cache

    if config is not None:
        preprocessing = resolve(config, sets)[0].preprocessing
    else:
        values: dict[str, Any] = {}
        for override in sets:
            set_value(values, *parse_override(override))
        preprocessing = build_config(values).preprocessing
    with progress("recordings") as advance:
        report = build_cache(
            data_dir, cache_dir, split, preprocessing, limit_files=limit_files, jobs=jobs, progress=advance
        )
    emit(report.to_dict(), report.text(), form=form)
    return 1 if report.failed or (split == "train" and not report.has_seizures) else 0


@cli.command("scan-cache")
@click.option("--cache-dir", required=True, type=click.Path(path_type=Path))
@FORMAT
def scan_cache(cache_dir: Path, form: str) -> int:
    """Label coverage and manifest of a cache."""
    from brainbrr.data.cache import scan

    report = scan(cache_dir)
    emit(report.to_dict(), report.text(), form=form)
    return 0 if report.trainable else 1


@cli.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--patients", type=click.IntRange(min=1), default=6, show_default=True, help="Patients of each split.")
@click.option("--minutes", type=click.FloatRange(min=0.1), default=6.0, show_default=True, help="Of each recording.")
@click.option("--seizures", type=click.IntRange(min=0), default=1, show_default=True, help="In each recording.")
@click.option("--lookalikes", type=click.IntRange(min=0), default=1, show_default=True, help="In each recording.")
@click.option("--artefact", "artefacts", multiple=True, help="flat, bridged, saturation, pop, calibration or mains.")
@click.option("--split", "splits", multiple=True, default=("train", "dev"), show_default=True)
@click.option("--seed", type=int, default=42, show_default=True)
@FORCE
@FORMAT
def synthesize(
    directory: Path,
    patients: int,
    minutes: float,
    seizures: int,
    lookalikes: int,
    artefacts: tuple[str, ...],
    splits: tuple[str, ...],
    seed: int,
    force: bool,
    form: str,
) -> int:
    """Write a synthetic corpus of EDF and CSV_BI files to DIRECTORY."""
    from brainbrr.data.synthetic import write_corpus

    with progress("recordings") as advance:
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
    emit(report.to_dict(), report.text(), form=form)
    return 0


@cli.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--config", type=click.Path(path_type=Path), help="For a checkpoint that holds none.")
@click.option("--split", default="eval", show_default=True, type=click.Choice(["train", "dev", "eval"]))
@click.option("--thresholds-from", type=click.Choice(["train", "dev"]), help="Choose the thresholds on this split.")
@click.option("--cache-dir", type=click.Path(path_type=Path), help="Cache of DATA.  [default: DATA/.cache]")
@DEVICE
@SET
@FORMAT
@OUTPUT
@FORCE
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
    """Score CHECKPOINT on the labelled recordings in DATA/edf/SPLIT, per recording and pooled."""
    from brainbrr.configure import parse_override, with_values
    from brainbrr.evaluation.checkpointed import evaluate_checkpoint, load_detector

    refuse_to_overwrite(output, force=force)
    detector, found = load_detector(checkpoint, resolve(config, ())[0] if config else None)
    changes = dict(parse_override(override) for override in sets)
    found = with_values(found, {**changes, "experiment.device": device or "auto"})
    with progress("recordings") as advance:
        report = evaluate_checkpoint(
            detector,
            found,
            data,
            split=split,
            thresholds_from=thresholds_from,
            cache_dir=cache_dir,
            narrate=narrate,
            progress=advance,
        )
    emit(
        report.to_dict(),
        f"{table(report.rows())}\n\n{table(report.point_rows())}",
        form=form,
        output=output,
        force=force,
    )
    return 0


@cli.command()
@click.argument("config", type=click.Path(path_type=Path))
@SET
@FORMAT
def info(config: Path, sets: tuple[str, ...], form: str) -> int:
    """Stages, shapes, parameters, memory and backends of the detector that CONFIG describes."""
    from brainbrr.models.inventory import inventory

    resolved, _ = resolve(config, sets)
    found = inventory(resolved)
    emit(found.to_dict(), f"{table(found.rows())}\n\n{found.summary()}", form=form)
    return 0


def table(rows: list[list[str]]) -> str:
    """Rows as aligned columns; the first row is the header."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


@contextlib.contextmanager
def progress(what: str, *, live: bool = True) -> Iterator[Callable[[int, int, str], None]]:
    """A live bar on a terminal, a plain line each tenth elsewhere; yields `advance(done, total, name)`."""
    if not (live and sys.stderr.isatty()):
        tenths: set[int] = set()

        def line(done: int, total: int, name: str) -> None:
            if (tenth := 10 * done // max(1, total)) not in tenths:
                tenths.add(tenth)
                narrate(f"{done}/{total} {what}  {name}")

        yield line
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what)
        yield lambda done, total, name: bar.update(task, completed=done, total=total, description=f"{what}  {name}")


def main() -> None:
    """Entry of the `brainbrr` command."""
    run(cli)
