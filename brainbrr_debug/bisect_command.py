"""The `bisect` command: a target in, a verdict out, and a log from which it can be gone on with."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from brainbrr_debug.errors import EXIT_BAD, EXIT_GOOD, UsageError
from brainbrr_debug.main import emit, narrate, refuse_to_overwrite, result_options, wrote
from brainbrr_debug.options import GIT, QUIET, SEED, SETS, STEPS, SUBJECT, teller

if TYPE_CHECKING:
    from brainbrr_debug.records import Verdict
    from brainbrr_debug.target import Target


RESUMED = ("subject_name", "budget", "timeout", "jobs", "cluster", "skip", "log", "quiet", "prove", "prove_steps")
"""The options that a resumed bisection has again."""


@click.command(short_help="Name component, samples and operation that broke a step, with proof.")
@click.argument("target", metavar="CAPTURE|RUN|CONFIG|SUBJECT")
@click.option("--budget", metavar="10m", help="Begin no trial after this time: 90s, 10m, 1h.")
@click.option("--timeout", metavar="60s", help="Skip a trial that takes longer.  [default: many times the first]")
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Trials at a time.")
@click.option("--cluster", metavar="ADDRESS", help="Run trials on a Dask cluster: tcp://host:8786.")
@click.option("--skip", multiple=True, metavar="QUESTION", help="Leave a question out; may be repeated.")
@click.option("--log", type=click.Path(path_type=Path), help="Of the trials.  [default: bisect.jsonl in the run]")
@click.option("--resume", is_flag=True, help="Go on from the log; no trial in it is run again.")
@click.option("--prove/--no-prove", default=True, help="Train the best repair under watch.  [default: prove]")
@click.option("--prove-steps", type=click.IntRange(min=20), default=500, show_default=True, help="Of that training.")
@SUBJECT
@SEED
@STEPS
@SETS
@QUIET
@GIT
@result_options("text", "json")
def bisect(
    target: str,
    budget: str | None,
    timeout: str | None,
    jobs: int,
    cluster: str | None,
    skip: tuple[str, ...],
    log: Path | None,
    resume: bool,
    prove: bool,
    prove_steps: int,
    quiet: bool,
    git_bisect: bool,
    form: str,
    output: Path | None,
    force: bool,
    **options: Any,
) -> int:
    """Find the component, the samples and the operation that broke a step, and prove it.

    A CONFIG or SUBJECT is first run from its seed until a step does harm. Exit codes: 0 a verdict, or healthy and said
    so; 1 no verdict; 125 cannot run here.
    """
    from brainbrr_debug.bisect import bisect as ask
    from brainbrr_debug.bisect import require_questions
    from brainbrr_debug.cluster import on_cluster
    from brainbrr_debug.proofs import candidates
    from brainbrr_debug.target import healthy_verdict, resolve, seconds

    started = time.monotonic()
    refuse_to_overwrite(output, force=force)
    require_questions(skip)
    limits = {"budget_s": seconds("--budget", budget), "timeout_s": seconds("--timeout", timeout)}
    say = teller(quiet)
    found = resolve(target, narrate=say, **options)
    if log is None and found.run is not None:
        log = found.run.path / "bisect.jsonl"
    if resume and log is None:
        raise UsageError(f"{target} lies in no run directory, so there is no log to resume from; name one with --log")
    if found.content is None:
        verdict = healthy_verdict(found)
    else:
        try:
            with on_cluster(cluster) as executor:
                how: Any = {"jobs": jobs, "executor": executor, "skip": skip, "log": log, "resume": resume, **limits}
                verdict = ask(found.content, run=found.run, progress=say, **how)
        except KeyboardInterrupt:
            kept = f"every trial is in {log}; go on with: {_resumed(found)}" if log else "no --log: none kept"
            narrate(kept)
            raise
    verdict_path = None
    if prove and not git_bisect and found.content is not None and candidates(verdict):
        verdict_path = _keep(found, verdict.to_dict())
        narrate(verdict.sentence)
        verdict = _proved(verdict, found, prove_steps, limits["budget_s"] and started + limits["budget_s"], say)
    document = verdict.to_dict()
    emit(document, _text(document, form, output), form=form, output=output, force=force)
    _keep(found, document, verdict_path)
    return EXIT_BAD if verdict.details["outcome"] in ("did-not-reproduce", "incomplete") else EXIT_GOOD


def _proved(verdict: Verdict, found: Target, steps: int, deadline: float | None, say: Callable[[str], None]) -> Verdict:
    """The verdict with its repairs proved in turn; the one without is kept already."""
    from brainbrr_debug.proofs import prove_repairs

    assert found.content is not None
    runs = None if found.run is None else found.run.path.parent
    try:
        return prove_repairs(
            verdict, found.content, found.subject, steps=steps, runs=runs, deadline=deadline, progress=say
        )
    except KeyboardInterrupt:
        narrate(f"the verdict stands, and none of its repairs is proved; go on with: {_resumed(found)}")
        raise


def _resumed(found: Target) -> str:
    """The command that goes on with a bisection, with the options that this one was given."""
    context = click.get_current_context()
    words = ["brainbrr-debug", "bisect", str(found.path), "--resume"]
    for option in RESUMED:
        if context.get_parameter_source(option) is click.core.ParameterSource.COMMANDLINE:
            name, value = option.removesuffix("_name").replace("_", "-"), context.params[option]
            for one in value if isinstance(value, tuple) else (value,):
                switch = f"--{name}" if one is not False else f"--no-{name}"
                words += [switch] if isinstance(one, bool) else [switch, str(one)]
    return shlex.join(words)


def _text(document: Mapping[str, Any], form: str, output: Path | None) -> str:
    """The verdict for where it goes: coloured on a terminal, plain lines otherwise."""
    from brainbrr_debug.report.text import verdict_rich, verdict_text

    if form == "text" and output is None and sys.stdout.isatty():
        import shutil

        return verdict_rich(document, width=shutil.get_terminal_size().columns)
    return verdict_text(document)


def _keep(found: Target, document: Mapping[str, Any], path: Path | None = None) -> Path | None:
    """Leave verdict (in place of the one at `path`) and report in the run directory that the capture lies in.

    Returns where the verdict is; None where the capture lies in no run directory.
    """
    from brainbrr_debug.integrations.tensorboard import installed, log_run
    from brainbrr_debug.report.html import page
    from brainbrr_debug.report.material import gather
    from brainbrr_debug.rundir import atomic_write

    if found.run is None:
        return None
    kept = found.run.write_verdict(document, path)
    wrote(kept)
    if installed():
        wrote(log_run(found.run))
    report = found.run.path / "report.html"
    with atomic_write(report) as file:
        file.write(page(gather(found.run)))
    wrote(report)
    return kept
