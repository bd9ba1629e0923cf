"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable

import click

from brainbrr_debug.main import GIT_BISECT, narrate

SUBJECT = click.option("--subject", "subject_name", help="package.module:attribute instead of the one in the capture.")
GIT = click.option(GIT_BISECT, is_flag=True, help="For `git bisect run`: codes 2 and 3 become 125 (skip).")
SEED = click.option("--seed", type=int, help="Seed of a subject's run.  [default: experiment.seed, else 0]")
STEPS = click.option(
    "--max-steps", type=click.IntRange(min=1), default=200, show_default=True, help="Of a subject's run."
)
SETS = click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Change one key of a configuration.")
QUIET = click.option("--quiet", is_flag=True, help="No line for each trial.")


def teller(quiet: bool) -> Callable[[str], None]:
    """Where the lines about single trials go."""
    return (lambda line: None) if quiet else narrate
