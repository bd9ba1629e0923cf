"""The commands of `brainbrr-debug`: arguments in, a document out, an exit code back. No torch until one runs.

0 good · 1 bad · 2 usage · 3 internal error · 125 cannot tell · 130 interrupted
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from brainbrr_debug.bisect_command import bisect
from brainbrr_debug.errors import EXIT_BAD, EXIT_CANNOT_TELL, EXIT_GOOD, UsageError
from brainbrr_debug.main import emit, refuse_to_overwrite, result_options, wrote
from brainbrr_debug.options import GIT, QUIET, SEED, SETS, STEPS, SUBJECT, teller
from brainbrr_debug.prove_command import prove
from brainbrr_debug.triage.command import triage


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="brainbrr")
def cli() -> None:
    """Find out why a training run went numerically wrong.

    Exit codes: 0 good, 1 bad, 2 usage, 3 internal error, 125 cannot tell here, 130 interrupted.
    """
    # A console script does not see the folder it is called from, and subjects usually live there.
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))


@cli.command(short_help="Repeat a captured step.")
@click.argument("capture", type=click.Path(path_type=Path))
@click.option("--times", type=click.IntRange(min=1), default=3, show_default=True, help="Repeats.")
@click.option("--device", help="Another device than the subject chooses: cpu, cuda, cuda:1.")
@click.option("--dtype", type=click.Choice(["float32", "float64", "bfloat16", "float16"]), help="Another precision.")
@SUBJECT
@GIT
@result_options("text", "json")
def replay(
    capture: Path,
    times: int,
    device: str | None,
    dtype: str | None,
    subject_name: str | None,
    git_bisect: bool,
    form: str,
    output: Path | None,
    force: bool,
) -> int:
    """Repeat a captured step: 0 it is healthy, 1 it failed again, 125 it did not reproduce or cannot run here."""
    from brainbrr_debug.replay import replay_capture

    refuse_to_overwrite(output, force=force)
    replayed = replay_capture(
        capture, times=times, device=device, dtype=dtype, subject=subject_name, code_may_differ=git_bisect
    )
    emit(replayed.to_dict(), replayed.text(), form=form, output=output, force=force)
    return {"healthy": EXIT_GOOD, "failed again": EXIT_BAD}.get(replayed.outcome, EXIT_CANNOT_TELL)


@cli.command(short_help="What a capture holds; --strip-signal copies it without patient data.")
@click.argument("capture", type=click.Path(path_type=Path))
@click.option("--strip-signal", type=click.Path(path_type=Path), metavar="COPY", help="Write a copy without the data.")
@result_options("text", "json")
def capture(capture: Path, strip_signal: Path | None, form: str, output: Path | None, force: bool) -> int:
    """Show what a capture holds, and check every bit of it; nothing is run.

    With --strip-signal, the capture shown is a copy for people who may not see the data: it says what it keeps and what
    it leaves out. Such a copy cannot be replayed (exit code 125).
    """
    from brainbrr_debug.contents import contents_of
    from brainbrr_debug.strip import strip_file

    refuse_to_overwrite(output, force=force)
    refuse_to_overwrite(strip_signal, force=force)
    notes: dict[str, Any] = {} if strip_signal is None else strip_file(capture, strip_signal)
    found = contents_of(strip_signal or capture)
    lines = [f"{name:<12}{line}" for name, texts in notes.items() for line in texts]
    emit({**found.to_dict(), **notes}, "\n".join([found.text(), *lines]), form=form, output=output, force=force)
    if strip_signal is not None:
        wrote(strip_signal)
    return EXIT_GOOD


@cli.command(short_help="Name the operation a failure was born in, and its line.")
@click.argument("target", metavar="SUBJECT|CONFIG|CAPTURE")
@SUBJECT
@SEED
@STEPS
@SETS
@QUIET
@GIT
@result_options("text", "json")
def diagnose(
    target: str, quiet: bool, git_bisect: bool, form: str, output: Path | None, force: bool, **options: Any
) -> int:
    """Name the operation in which a failure was born, and the line that called it.

    Exit codes: 0 an origin, or healthy and said so; 1 no origin could be found; 125 cannot run here.
    """
    from brainbrr_debug.report.text import origin_text
    from brainbrr_debug.target import resolve, trace

    refuse_to_overwrite(output, force=force)
    found = resolve(target, narrate=teller(quiet), keep=False, **options)
    traced = trace(found)
    emit(traced.to_dict(), origin_text(traced.to_dict()), form=form, output=output, force=force)
    return EXIT_GOOD if traced.explained else EXIT_BAD


@cli.command(short_help="Every matrix decomposition of a captured step, and which matrices are degenerate.")
@click.argument("capture", type=click.Path(path_type=Path))
@SUBJECT
@result_options("text", "json", "html")
def spectrum(capture: Path, subject_name: str | None, form: str, output: Path | None, force: bool) -> int:
    """Repeat a captured step and measure every matrix that it decomposes, inverts or solves with.

    Eigengaps, multiplicities, condition numbers, residuals, and through which results a gradient came back; html draws
    them. Exit codes: 0 all are wide, 1 the step depends on a degenerate one, 125 cannot run here.
    """
    from brainbrr_debug.report.spectrum_page import spectrum_page
    from brainbrr_debug.report.spectrum_text import spectrum_text
    from brainbrr_debug.spectrum import spectrum_of

    refuse_to_overwrite(output, force=force)
    found = spectrum_of(capture, subject=subject_name)
    text = spectrum_page(found) if form == "html" else spectrum_text(found)
    emit(found.to_dict(), text, form=form, output=output, force=force)
    return EXIT_BAD if found.degenerate else EXIT_GOOD


@cli.command(short_help="One file about a run: verdicts, curves, trials, repairs.")
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--show-signal", is_flag=True, help="Draw the signal of the samples to blame: it is somebody's. Only html."
)
@click.option("--tensorboard", is_flag=True, help="Write RUN/tensorboard/watch, too: readings, findings, verdicts.")
@result_options("html", "text", "json", "sarif", "junit")
def report(run: Path, show_signal: bool, tensorboard: bool, form: str, output: Path | None, force: bool) -> int:
    """Everything known about a run in one file: verdicts, curves, trials, repairs, environment.

    With html it goes to RUN/report.html unless --output says otherwise; with --show-signal to
    RUN/report-with-signal.html, so that nobody hands out a signal by mistake.
    """
    from brainbrr_debug.report.material import gather
    from brainbrr_debug.rundir import RunDir

    refuse_to_overwrite(output, force=force)
    if show_signal and form != "html":
        raise UsageError(f"--show-signal draws a picture, and {form} holds none; leave it out, or use --format html")
    directory = RunDir.open(run)
    material = gather(directory, show_signal=show_signal)
    if form == "html":
        from brainbrr_debug.report.html import page

        # The report beside a run is made from the run, and made anew whenever the run has grown.
        beside = directory.path / ("report-with-signal.html" if show_signal else "report.html")
        emit({}, page(material), form=form, output=output or beside, force=force or not output)
    else:
        from brainbrr_debug.report.machine import document, junit_text, sarif_text
        from brainbrr_debug.report.text import run_text

        text = {"text": run_text, "sarif": sarif_text, "junit": junit_text}.get(form, run_text)(material)
        emit(document(material), text, form=form, output=output, force=force)
    if tensorboard:
        from brainbrr_debug.integrations.tensorboard import log_run

        wrote(log_run(directory))
    return EXIT_GOOD


@cli.command(short_help="What the bits of a run depend on here.")
@result_options("text", "json")
def env(form: str, output: Path | None, force: bool) -> int:
    """What the bits of a run depend on here: versions, processor, threads, precision. Paste it into a report."""
    from brainbrr_debug.environment import PACKAGES, describe_environment
    from brainbrr_debug.report.text import environment_text

    refuse_to_overwrite(output, force=force)
    found = describe_environment()
    found["not_installed"] = [name for name in PACKAGES if name not in found["packages"]]
    emit({"schema": 1, **found}, environment_text(found), form=form, output=output, force=force)
    return EXIT_GOOD


cli.add_command(prove)
cli.add_command(bisect)
cli.add_command(triage)
