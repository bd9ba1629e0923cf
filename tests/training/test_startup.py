from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from brainbrr.config import Config
from brainbrr.environment import apply_overrides
from brainbrr.training.setup import build_setup
from brainbrr.training.startup import environment, startup_lines

MakeConfig = Callable[..., Config]


def lines_of(config: Config, environ: dict[str, str] | None = None) -> dict[str, list[str]]:
    """The start-up lines by their first word."""
    config, overrides = apply_overrides(config, environ or {})
    found: dict[str, list[str]] = {}
    for line in startup_lines(build_setup(config), config, overrides):
        found.setdefault(line.split()[0], []).append(line[12:])
    return found


def test_device_precision_size_and_backends_are_stated(tiny: MakeConfig, v3: dict[str, Any]) -> None:
    lines = lines_of(tiny(v3))
    assert lines["device"][0].startswith("cpu (") and "threads, torch 2." in lines["device"][0]
    assert lines["precision"] == ["float32"]
    assert lines["detector"][0].startswith("v3, ") and lines["detector"][0].endswith(" parameters")
    assert lines["backend"] == ["mamba torch, graph dense"]
    assert "fallback" not in lines and "override" not in lines


@pytest.mark.parametrize(
    ("precision", "stated"),
    [(True, "float16 autocast with loss scaling"), ("fp16", "float16 autocast with loss scaling"),
     ("bf16", "bfloat16 autocast")],
)  # fmt: skip
def test_mixed_precision_is_named_in_full(precision: str | bool, stated: str, tiny: MakeConfig) -> None:
    assert lines_of(tiny({"training.mixed_precision": precision}))["precision"] == [stated]


@pytest.mark.parametrize("backend", ["auto", "conv1d"])
def test_every_fallback_has_a_line(backend: str, tiny: MakeConfig, v3: dict[str, Any]) -> None:
    (note,) = lines_of(tiny({**v3, "model.mamba.backend": backend}))["fallback"]
    assert f"mamba.backend {'' if backend == 'auto' else 'is '}{backend}" in note


def test_every_override_has_a_line_with_what_it_sets(tiny: MakeConfig) -> None:
    lines = lines_of(tiny(), {"BGB_LIMIT_FILES": "3", "BGB_ANOMALY_DETECT": "0"})
    assert lines["override"] == ["BGB_LIMIT_FILES=3 sets data.limit_files=3", "BGB_ANOMALY_DETECT=0 sets nothing"]


def test_lines_are_aligned(tiny: MakeConfig) -> None:
    config = tiny()
    lines = startup_lines(build_setup(config), config, {})
    assert all(line[11] == " " and line[12] != " " for line in lines)


def test_what_the_watch_cannot_know_is_json(tiny: MakeConfig, v3: dict[str, Any]) -> None:
    config, overrides = apply_overrides(tiny(v3), {"BGB_LIMIT_FILES": "3"})
    facts = json.loads(json.dumps(environment(build_setup(config), config, overrides), allow_nan=False))
    assert facts["brainbrr"] and facts["mixed_precision"] == "float32"
    assert facts["backends"]["mamba"] == "torch" and facts["backends"]["graph"] == "dense"
    assert facts["overrides"]["BGB_LIMIT_FILES"]["changes"] == {"data.limit_files": 3}
