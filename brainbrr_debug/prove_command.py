"""`brainbrr-debug prove`: a training under watch, and its certificate. No torch until it runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from brainbrr_debug.errors import EXIT_BAD, EXIT_GOOD, UsageError
from brainbrr_debug.main import emit, narrate, refuse_to_overwrite, result_options, wrote

if TYPE_CHECKING:
    from brainbrr_debug.capture import CaptureContent
    from brainbrr_debug.recipe import Recipe

STEPS = 500


@click.command(short_help="Train under watch, and certify that nothing went wrong and nothing was hidden.")
@click.argument("target", metavar="CONFIG|SUBJECT|CAPTURE|RUN")
@click.option("--steps", type=click.IntRange(min=20), default=STEPS, show_default=True, help="Of the training.")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Change one key of a configuration.")
@click.option("--switch", "switches", multiple=True, metavar="NAME=VALUE", help="Turn one switch of the subject.")
@click.option("--seed", type=int, help="Of the training.  [default: experiment.seed or the capture's, else 0]")
@click.option("--run-dir", type=click.Path(path_type=Path), help="New folder for the run.  [default: below runs]")
@click.option("--quiet", is_flag=True, help="No line about the progress.")
@result_options("text", "json")
def prove(
    target: str,
    steps: int,
    sets: tuple[str, ...],
    switches: tuple[str, ...],
    seed: int | None,
    run_dir: Path | None,
    quiet: bool,
    form: str,
    output: Path | None,
    force: bool,
) -> int:
    """Train under watch and issue a certificate, or refuse it with the reason.

    Asked for: nothing that is not finite before any sanitiser, no step skipped, no value altered, learning rates as
    scheduled, outputs that depend on the input, and a loss significantly below that of the best constant predictor.
    What --set and --switch take away must come back, one at a time, without a failure.

    Batches that end begin anew. Exit codes: 0 a certificate, 1 refused, 125 cannot run here.
    """
    from brainbrr_debug.certificate import NAME
    from brainbrr_debug.prove import prove as certify
    from brainbrr_debug.witness import Plan

    refuse_to_overwrite(output, force=force)
    if run_dir is not None and run_dir.exists() and (not run_dir.is_dir() or any(run_dir.iterdir())):
        raise UsageError(f"--run-dir {run_dir}: there is something already; expected a new or empty folder")
    recipe, content = _named(target, sets, switches, seed)
    run = _run_dir(run_dir, recipe.name)
    tell = _silent if quiet else narrate
    tell(f"run         {run.path}")
    try:
        certificate = certify(Plan(recipe=recipe, steps=steps, run_dir=run), content=content, progress=tell)
    except KeyboardInterrupt:
        narrate(f"nothing is certified; what was seen is in {run.path}, and the same command begins anew")
        raise
    emit(certificate.to_dict(), certificate.text(), form=form, output=output, force=force)
    wrote(run.path / NAME)
    return EXIT_GOOD if certificate.granted else EXIT_BAD


def _named(
    target: str, sets: tuple[str, ...], switches: tuple[str, ...], seed: int | None
) -> tuple[Recipe, CaptureContent | None]:
    """What the target stands for, and the captured step where it is one."""
    import dataclasses

    from brainbrr_debug.capture import read_capture
    from brainbrr_debug.forward import forwarded
    from brainbrr_debug.recipe import of_capture, of_config, of_subject, turned
    from brainbrr_debug.target import first_capture
    from brainbrr_debug.trial import load_captured_subject

    path = Path(target)
    if path.suffix in (".yaml", ".yml"):
        return of_config(path, sets, switches, seed), None
    if sets:
        raise UsageError(f"--set needs a configuration, and {target} is none; --switch turns a switch of any subject")
    if not path.exists() and ":" in target:
        return of_subject(target, switches, seed), None
    content = read_capture(first_capture(path, narrate) if path.is_dir() else path)
    subject = load_captured_subject(content)
    content = forwarded(content, subject)
    recipe = of_capture(content, subject, turned(subject, switches))
    return (recipe if seed is None else dataclasses.replace(recipe, seed=seed)), content


def _run_dir(path: Path | None, name: str) -> Any:
    from brainbrr_debug.rundir import RunDir
    from brainbrr_debug.target import RUNS

    return RunDir.at(path) if path is not None else RunDir.create(RUNS, f"proof-{name.rpartition(':')[2]}")


def _silent(line: str) -> None:
    """For --quiet."""
