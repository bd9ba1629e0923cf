"""The command line of the detector, and the composition root: the one folder here that knows the debugger.

One file for each group of commands. Heavy imports happen inside the command that uses them, so that `--help` answers at
once.
"""

from __future__ import annotations

import click

from brainbrr.cli.detection import evaluate, info, predict, score
from brainbrr.cli.recordings import build_cache_command, convert, inspect, scan_cache, synthesize
from brainbrr.cli.training import train
from brainbrr_debug.main import run


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="brainbrr")
def cli() -> None:
    """Detect epileptic seizures in scalp EEG; train the detector under watch."""


for command in (train, build_cache_command, scan_cache, synthesize, inspect, convert, evaluate, predict, score, info):
    cli.add_command(command)


def main() -> None:
    """Entry of the `brainbrr` command."""
    run(cli)
