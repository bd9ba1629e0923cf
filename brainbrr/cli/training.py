"""Train the detector under watch."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import click

from brainbrr.cli.configuration import DEVICE, SET, resolve
from brainbrr.terminal import finished, interrupted, progress
from brainbrr_debug.main import emit, narrate, refuse_to_overwrite, result_options


@click.command()
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
    from brainbrr_debug.integrations.tensorboard import log_run
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
    watch = watch_of(config, setup, run_dir, facts) if config.watch.enabled else None
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
        if config.experiment.tensorboard:
            log_run(run_dir)
    document, text = finished(
        outcome, watch.counters if watch else {}, setup.step.altered, setup.model.counters(), run_dir.path
    )
    run_dir.write_outcome(document)
    return document, text, 0


def watch_of(config: Any, setup: Any, run_dir: Any, environment: dict[str, Any]) -> Any:
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
        every=config.watch.every,
        ranges=config.watch.ranges,
        loss_fn=setup.step.loss_fn,
        scaler=setup.step.scaler,
        subject="brainbrr_debug.subjects.brainbrr:DetectorSubject",
        config=config.model_dump(mode="json"),
        environment=environment,
        seed=config.experiment.seed,
    )
