"""`make incidents`: runs those of triage/incidents as a user would and holds every verdict against what is known.

Each recipe is carried out in a fresh folder that holds its config.yaml and nothing else; expected.yaml stays behind.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import glob
import itertools
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import yaml

from tests.incidents.comparison import objections, summary, told

ROOT = Path(__file__).parents[2]
INCIDENTS = ROOT / "triage" / "incidents"
PROGRAMS = {"brainbrr": "brainbrr", "brainbrr-debug": "brainbrr_debug", "plant": "tests.incidents.plant"}
TIMEOUT_S = 900
TOOK_TOO_LONG = 124  # the exit code of such a command, as of timeout(1)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One incident: what was expected and found in words, where they differ, and what it took."""

    name: str
    expected: str
    found: str
    wrong: tuple[str, ...]
    trials: int | None
    seconds: float
    false_alarm: bool


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A recipe carried out: the exit code of every command, the last one's document (None: none), what it said."""

    exits: tuple[int, ...]
    document: dict[str, Any] | None
    narration: str


class RecipeError(ValueError):
    """A recipe that cannot be carried out."""


def names() -> tuple[str, ...]:
    """Every incident there is."""
    return tuple(sorted(path.parent.name for path in INCIDENTS.glob("*/recipe.yaml")))


def run(name: str, *, folder: Path | None = None) -> Outcome:
    """Carry out one incident and judge it; `folder` (new, and kept) in place of a temporary one."""
    expected = yaml.safe_load((INCIDENTS / name / "expected.yaml").read_text(encoding="utf-8"))
    started = time.monotonic()
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="incident-") as place:
            done = carry_out(name, Path(place))
    else:
        folder.mkdir(parents=True)
        done = carry_out(name, folder)
    outcome = judge(name, expected, done)
    return dataclasses.replace(outcome, seconds=time.monotonic() - started)


def carry_out(name: str, folder: Path) -> Done:
    """The recipe's commands, one after the other, with `folder` as the working directory."""
    recipe = yaml.safe_load((INCIDENTS / name / "recipe.yaml").read_text(encoding="utf-8"))
    (folder / "config.yaml").write_bytes((INCIDENTS / name / "config.yaml").read_bytes())
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120", **_environment(recipe)}
    exits, narration, output = [], [], ""
    *earlier, last = recipe["commands"]
    for command in [*earlier, f"{last} --format json"]:
        words = [sys.executable, "-m", *_words(command, folder)]
        try:
            done = subprocess.run(
                words, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=TIMEOUT_S
            )
        except subprocess.TimeoutExpired as late:
            done = subprocess.CompletedProcess(words, TOOK_TOO_LONG, stdout="", stderr=f"{late}\n")
        exits.append(done.returncode)
        narration.append(f"$ {command}\n{done.stderr}{done.stdout}")
        output = done.stdout
    document = json.loads(output) if output.startswith("{") else None
    return Done(exits=tuple(exits), document=document, narration="\n".join(narration))


def judge(name: str, expected: Mapping[str, Any], done: Done) -> Outcome:
    """Hold exit codes and verdict against the expectation."""
    known = dict(expected)
    exits = tuple(known.pop("exits"))
    wrong = [] if done.exits == exits else [f"exit codes are {list(done.exits)}; expected {list(exits)}"]
    if done.document is None:
        wrong.append(f"no verdict; it said: {done.narration[-2000:]}")
    else:
        wrong += objections(known, done.document)
    return Outcome(
        name=name,
        expected=told(known),
        found="nothing" if done.document is None else told(summary(done.document)),
        wrong=tuple(wrong),
        trials=None if done.document is None else done.document["trials"],
        seconds=0.0,
        false_alarm=known["outcome"] == "healthy" and bool(wrong),
    )


def last_line(outcomes: list[Outcome]) -> str:
    """How many are right, and how many healthy ones were blamed."""
    right = sum(not outcome.wrong for outcome in outcomes)
    alarms = sum(outcome.false_alarm for outcome in outcomes)
    return f"incidents {right}/{len(outcomes)} right, false alarms {alarms}"


def table(outcomes: list[Outcome]) -> Iterator[str]:
    """One line an incident, and below it what is wrong with it."""
    yield f"{'incident':<24}{'expected':<52}{'found':<52}{'trials':>7}{'s':>7}"
    for outcome in outcomes:
        trials = "–" if outcome.trials is None else str(outcome.trials)
        yield (
            f"{outcome.name:<24}{outcome.expected[:50]:<52}{outcome.found[:50]:<52}{trials:>7}{outcome.seconds:>7.0f}"
        )
        yield from (f"  wrong: {line}" for line in outcome.wrong)


@click.command()
@click.option("--only", multiple=True, metavar="NAME", help="Of these incidents alone.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--jobs", type=click.IntRange(min=1), default=2, show_default=True, help="Incidents at a time.")
@click.option("--keep", type=click.Path(path_type=Path), metavar="FOLDER", help="Leave everything below FOLDER.")
def main(only: tuple[str, ...], form: str, jobs: int, keep: Path | None) -> None:
    """Run the incidents; exit 1 unless every verdict is right and no healthy run is blamed."""
    unknown = set(only) - set(names())
    if unknown:
        raise click.UsageError(f"no incident {', '.join(sorted(unknown))}; expected some of {', '.join(names())}")
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        running = [pool.submit(run, name, folder=keep and keep / name) for name in only or names()]
        for done in concurrent.futures.as_completed(running):
            click.echo(f"{done.result().name}: {'wrong' if done.result().wrong else 'right'}", err=True)
    outcomes = [done.result() for done in running]
    if form == "json":
        rows = [dataclasses.asdict(outcome) for outcome in outcomes]
        click.echo(json.dumps({"schema": 1, "incidents": rows, "result": last_line(outcomes)}, ensure_ascii=False))
    else:
        click.echo("\n".join([*table(outcomes), last_line(outcomes)]))
    sys.exit(1 if any(outcome.wrong for outcome in outcomes) else 0)


def _environment(recipe: Mapping[str, Any]) -> dict[str, str]:
    wanted = dict(recipe.get("environment", {}))
    paths = [str(ROOT), *(str(ROOT / path) for path in wanted.pop("PYTHONPATH", "").split(":") if path)]
    return {"PYTHONPATH": os.pathsep.join(paths), **wanted}


def _words(command: str, folder: Path) -> list[str]:
    """The command as Python's -m takes it; a pattern stands for the paths that it fits, as in a shell."""
    program, *words = shlex.split(command)
    if program not in PROGRAMS:
        raise RecipeError(f"{command}: expected one of {', '.join(PROGRAMS)}")
    paths = (sorted(glob.glob(word, root_dir=folder)) or [word] for word in words)
    return [PROGRAMS[program], *itertools.chain.from_iterable(paths)]


if __name__ == "__main__":
    main()
