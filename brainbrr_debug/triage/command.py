"""The `triage` command: arguments in, one page or document out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from brainbrr_debug.errors import EXIT_BAD, EXIT_GOOD, EXIT_INTERNAL, UsageError
from brainbrr_debug.main import emit, refuse_to_overwrite, result_options, write

if TYPE_CHECKING:
    from brainbrr_debug.checks.given import Given

PATH = click.Path(path_type=Path)
GIVEN = ("config", "cache", "checkpoint", "run", "source", "smoke", "subject")


@click.command(short_help="Know before training whether a run can succeed; audit a repository.")
@click.option("--config", type=PATH, help="A configuration.")
@click.option("--cache", type=PATH, help="A folder of preprocessed recordings.")
@click.option("--checkpoint", type=PATH, help="A checkpoint, of whatever program; nothing in it is run.")
@click.option("--run", type=PATH, help="A run directory.")
@click.option("--source", type=PATH, help="A repository; nothing in it is imported or run.")
@click.option("--smoke", metavar="CMD", help="A short command of your own, run under observation.")
@click.option("--subject", metavar="NAME", help="package.module:attribute that builds the model.")
@click.option("--checklist", type=PATH, help="Which checks, how severe, with which thresholds.  [default: all]")
@click.option("--select", multiple=True, metavar="GLOB", help="Only these checks.")
@click.option("--ignore", multiple=True, metavar="GLOB", help="Not these checks.")
@click.option(
    "--fail-on", type=click.Choice(["P0", "P1", "P2", "P3"]), default="P1", show_default=True, help="Exit code 1 from."
)
@click.option("--strict", is_flag=True, help="Let checks fail that by themselves only advise.")
@click.option("--baseline", type=PATH, help="Findings that are known already.")
@click.option("--write-baseline", type=PATH, metavar="FILE", help="Write the present findings as a baseline.")
@click.option("--list-checks", is_flag=True, help="List the checks, and do nothing else.")
@click.option("--explain", metavar="ID", help="What a check means, how to confirm it and how to repair it.")
@result_options("text", "json", "sarif", "junit")
def triage(
    checklist: Path | None,
    select: tuple[str, ...],
    ignore: tuple[str, ...],
    fail_on: str,
    strict: bool,
    baseline: Path | None,
    write_baseline: Path | None,
    list_checks: bool,
    explain: str | None,
    form: str,
    output: Path | None,
    force: bool,
    **paths: Any,
) -> int:
    """Run every check that has what it needs over what is given; without anything, over this machine.

    Exit codes: 0 nothing at or above --fail-on, 1 something, 3 a check crashed (the others still ran). Checks over
    source only advise, unless --strict: a text can be read in more ways than a check knows.
    """
    given = _given(paths)
    if given.only_source:
        from brainbrr_debug.checks.source.index import without_collector

        click.get_current_context().with_resource(without_collector())
    from brainbrr_debug.records import Severity
    from brainbrr_debug.triage.baseline import Baseline, baseline_text, read_baseline
    from brainbrr_debug.triage.checklist import default_checklist, read_checklist
    from brainbrr_debug.triage.run import chosen
    from brainbrr_debug.triage.run import triage as run

    refuse_to_overwrite(output, force=force)
    refuse_to_overwrite(write_baseline, force=force)
    listed = default_checklist() if checklist is None else read_checklist(checklist)
    wanted = chosen(listed, select, ignore)
    if list_checks or explain is not None:
        document, text = _about(explain, wanted)
        emit(document, text, form="json" if form == "json" else "text", output=output, force=force)
        return EXIT_GOOD
    known = Baseline(entries={}) if baseline is None else read_baseline(baseline)
    found = run(given, listed, wanted, known)
    if strict:
        found = dataclasses.replace(found, advice=())
    threshold = Severity[fail_on]
    if write_baseline is not None:
        write(write_baseline, baseline_text([*found.findings, *found.known]), force=force)
    _emit(found, threshold, form=form, output=output, force=force)
    if write_baseline is None and found.failing(threshold):
        return EXIT_BAD
    return EXIT_INTERNAL if found.crashed else EXIT_GOOD


def _given(paths: Mapping[str, Any]) -> Given:
    """What the options name. Raises UsageError for a path that is not there, or of another kind."""
    from brainbrr_debug.checks.given import Given

    for name, folder in {"config": False, "checkpoint": False, "cache": True, "source": True}.items():
        path = paths[name]
        if path is not None and not (path.is_dir() if folder else path.is_file()):
            found = "another kind of thing" if path.exists() else "nothing"
            raise UsageError(f"--{name} {path}: found {found}; expected a {'folder' if folder else 'file'}")
    if paths["run"] is not None:
        from brainbrr_debug.rundir import RunDir

        RunDir.open(paths["run"])
    return Given(**{name: paths[name] for name in GIVEN})


def _about(explain: str | None, wanted: list[str]) -> tuple[dict[str, Any], str]:
    """The list of checks, or one check with its runbook."""
    from brainbrr_debug.checks.registry import CHECKS
    from brainbrr_debug.records import SCHEMA, to_json
    from brainbrr_debug.triage.checklist import nearest
    from brainbrr_debug.triage.page import explanation, listing

    names = wanted if explain is None else [explain]
    if explain is not None and explain not in CHECKS:
        raise UsageError(f"no check {explain}{nearest(explain, CHECKS)}")
    rows = [
        {
            **{key: to_json(getattr(CHECKS[name], key)) for key in ("id", "severity", "summary", "advises")},
            "needs": [list(look.needs) for look in CHECKS[name].looks],
        }
        for name in names
    ]
    text = listing({name: CHECKS[name] for name in names}) if explain is None else explanation(CHECKS[explain])
    return {"schema": SCHEMA, "checks": rows, "text": text}, text


def _emit(found: Any, threshold: Any, *, form: str, output: Path | None, force: bool) -> None:
    from brainbrr_debug.triage.document import document, junit_text, sarif_text
    from brainbrr_debug.triage.page import page

    texts = {"sarif": sarif_text, "junit": junit_text}
    text = texts[form](found) if form in texts else page(found, threshold)
    emit(document(found), text, form="json" if form == "json" else "text", output=output, force=force)
