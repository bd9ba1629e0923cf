"""The seam between commands and the shell: results to stdout, errors in one line to stderr, exit codes in one place.

    0 good · 1 bad · 2 usage · 3 internal error · 125 cannot tell · 130 interrupted

A command returns its exit code. Click is run with `standalone_mode=False`, because by itself it maps Ctrl-C, an abort
and a crash all to 1, which a script (and `git bisect run`) would take for "bad".
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from brainbrr_debug.errors import (
    EXIT_CANNOT_TELL,
    EXIT_GOOD,
    EXIT_INTERNAL,
    EXIT_INTERRUPTED,
    EXIT_USAGE,
    UsageError,
)

Command = TypeVar("Command", bound=Callable[..., int])

GIT_BISECT = "--git-bisect"
PACKAGES = ("brainbrr", "brainbrr_debug")
_PATHS = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)


def result_options(*forms: str) -> Callable[[Command], Command]:
    """--format with these forms, the first of them by default, --output and --force: what every command takes."""
    options = (
        click.option(
            "--format", "form", type=click.Choice(forms), default=forms[0], show_default=True, help="Of the result."
        ),
        click.option("--output", type=click.Path(path_type=Path), help="Write the result to a file."),
        click.option("--force", is_flag=True, help="Overwrite what is there."),
    )

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def narrate(line: str) -> None:
    """One line about the work, apart from the result."""
    click.echo(line, err=True)


def run(cli: click.Command, arguments: Sequence[str] | None = None) -> None:
    """Run a command line and exit with its code; never returns."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    code = exit_code(cli, arguments)
    if GIT_BISECT in arguments and code in (EXIT_USAGE, EXIT_INTERNAL):
        code = EXIT_CANNOT_TELL
    sys.exit(code)


def exit_code(cli: click.Command, arguments: Sequence[str]) -> int:
    """Run a command line; what went wrong is said on stderr, in one line where a person can put it right."""
    try:
        code = cli.main(list(arguments), standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return EXIT_USAGE
    except (click.Abort, KeyboardInterrupt):
        narrate("interrupted")
        return EXIT_INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the seam: a crash becomes exit code 3
        return _explain(error)
    return code if isinstance(code, int) else EXIT_GOOD


def emit(document: Mapping[str, Any], text: str, *, form: str, output: Path | None = None, force: bool = False) -> None:
    """The result of a command: `text`, or with `form` "json" exactly one document; to stdout or into `output`.

    Raises UsageError when `output` exists and `force` is not set.
    """
    from brainbrr_debug.records import dumps

    result = dumps(document, indent=2) if form == "json" else text.rstrip("\n")
    if output is None:
        click.echo(result)
    else:
        write(output, result + "\n", force=force)


def write(path: Path, text: str, *, force: bool) -> None:
    """Write a whole file and say so on stderr. Raises UsageError when it exists and `force` is not set."""
    from brainbrr_debug.rundir import atomic_write

    refuse_to_overwrite(path, force=force)
    with atomic_write(path) as file:
        file.write(text)
    wrote(path)


def refuse_to_overwrite(path: Path | None, *, force: bool) -> None:
    """To be asked before the work begins. Raises UsageError when `path` exists and `force` is not set."""
    if path is not None and path.exists() and not force:
        raise UsageError(f"{path} exists; give another --output, or --force to overwrite it")


def wrote(path: Path) -> None:
    """The last line of a command that left a file behind."""
    narrate(f"Wrote {path}")


def main() -> None:
    """Entry of the `brainbrr-debug` command."""
    from brainbrr_debug.cli import cli

    run(cli)


def _explain(error: Exception) -> int:
    """One line for what our packages raise on purpose and for paths; a traceback and a hint for the rest."""
    ours = type(error).__module__.partition(".")[0] in PACKAGES
    if ours or isinstance(error, _PATHS):
        narrate(f"error: {_path_error(error) if isinstance(error, _PATHS) else error}")
        return int(getattr(error, "exit_code", EXIT_USAGE))
    narrate("".join(traceback.format_exception(error)).rstrip())
    narrate(
        f"internal error: {type(error).__name__}: {error} — a fault of the program, not of its input; report it "
        "with the lines above and the output of `brainbrr-debug env`"
    )
    return EXIT_INTERNAL


def _path_error(error: OSError) -> str:
    reason = (error.strerror or str(error)).lower()
    return f"{error.filename}: {reason}" if error.filename is not None else reason
