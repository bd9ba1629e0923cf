"""What a person sees of the work: a table, progress, how a run ended. Prints nothing itself but the live bar."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

Narrate = Callable[[str], None]


def table(rows: list[list[str]]) -> str:
    """Rows as aligned columns; the first row is the header."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


@contextlib.contextmanager
def progress(what: str, narrate: Narrate, *, live: bool) -> Iterator[Callable[[int, int, str], None]]:
    """A live bar on a terminal where `live`, a plain line each tenth elsewhere; yields `advance(done, total, name)`."""
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


def finished(
    outcome: Any, watch: Mapping[str, int], altered: Mapping[str, int], detector: Mapping[str, int], run_dir: Path
) -> tuple[dict[str, Any], str]:
    """The document of a run that came to its end and its text.

    `watch`, `altered` and `detector` count what was skipped, sanitised and dropped on the way; what happened is named.
    """
    counts = {"watch": dict(watch), "altered": dict(altered), "detector": dict(detector)}
    document = {"run": str(run_dir), "stopped": False, **dataclasses.asdict(outcome), **counts}
    happened = [f"{count} {name}" for name, count in watch.items() if count and name != "steps"]
    happened += [f"{count} {name} sanitised" for name, count in altered.items() if count]
    happened += [f"{count} {name}" for name, count in detector.items() if count and not name.endswith(".seen")]
    happened = happened or ["nothing skipped or altered"]
    text = f"finished {outcome.steps} steps in {outcome.seconds:.0f} s; {', '.join(happened)}"
    return document, f"{text}\n{run_dir / 'checkpoints' / 'last.pt'}"


def interrupted(step: int, saved: int | None, run_dir: Path) -> str:
    """What is kept of a run that was interrupted in `step`, and the command that goes on with it."""
    if saved is None:
        return f"interrupted in step {step}, before anything was saved"
    command = f"brainbrr train {run_dir / 'config.yaml'} --resume {run_dir}"
    return f"interrupted in step {step}, the state before step {saved} is saved; to go on: {command}"
