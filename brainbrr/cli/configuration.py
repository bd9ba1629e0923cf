"""How a command comes by its configuration: a file, `--set`, `--device` and the environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

SET = click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Change one key of the configuration.")
DEVICE = click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), help="Overrides experiment.device.")


def resolve(path: Path | None, sets: tuple[str, ...], device: str | None = None) -> tuple[Any, dict[str, Any]]:
    """The configuration at `path` with `--set`, `--device` and the environment's overrides, and what those changed.

    Without a path the values that are not set are the defaults.
    """
    from brainbrr.configure import build_config, load_config, parse_override, set_value
    from brainbrr.environment import apply_overrides

    sets = (*sets, f"experiment.device={device}") if device else sets
    if path is not None:
        return apply_overrides(load_config(path, sets))
    values: dict[str, Any] = {}
    for override in sets:
        set_value(values, *parse_override(override))
    return apply_overrides(build_config(values, source="--set"))
