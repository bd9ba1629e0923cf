"""Overrides through environment variables: each stands for configuration keys and is read when used, never at import.

The variables keep the names that users of the original know. What was set, and what it changed, goes into the run
directory.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from brainbrr.config import Config, ConfigError
from brainbrr.configure import with_values

TRUE, FALSE = {"1", "true", "yes", "on"}, {"0", "false", "no", "off", ""}


def _flag(name: str, text: str) -> bool:
    if text.strip().lower() in TRUE:
        return True
    if text.strip().lower() in FALSE:
        return False
    raise ConfigError(f"{name}={text!r}: expected 1 or 0")


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"{name}={text!r}: expected a number") from None


def _clamp(name: str, environ: Mapping[str, str]) -> dict[str, Any]:
    if not _flag(name, environ[name]):
        return {}
    bounds = {"BGB_SAFE_CLAMP_MIN": "-10", "BGB_SAFE_CLAMP_MAX": "10"}
    return {"model.clamp": [_number(bound, environ.get(bound, default)) for bound, default in bounds.items()]}


def _when_set(**changes: Any) -> Callable[[str, Mapping[str, str]], dict[str, Any]]:
    named = {key.replace("__", "."): value for key, value in changes.items()}
    return lambda name, environ: named if _flag(name, environ[name]) else {}


def _limit(name: str, environ: Mapping[str, str]) -> dict[str, Any]:
    value = _number(name, environ[name])
    if value < 1 or value != int(value):
        raise ConfigError(f"{name}={environ[name]!r}: expected a whole number from 1")
    return {"data.limit_files": int(value)}


OVERRIDES: dict[str, Callable[[str, Mapping[str, str]], dict[str, Any]]] = {
    "BGB_SMOKE_TEST": _when_set(data__limit_files=3, training__epochs=1, watch__sentinel=True),
    "BGB_LIMIT_FILES": _limit,
    "BGB_DISABLE_TQDM": _when_set(experiment__progress=False),
    "BGB_FORCE_MANIFEST_REBUILD": _when_set(data__rebuild_index=True),
    "BGB_NAN_DEBUG": _when_set(watch__healthy_batches=8),
    "BGB_DEBUG_FINITE": _when_set(watch__sentinel=True),
    "BGB_ANOMALY_DETECT": _when_set(training__detect_anomaly=True),
    "BGB_SANITIZE_INPUTS": _when_set(training__sanitize_inputs=True),
    "BGB_SANITIZE_GRADS": _when_set(training__on_nonfinite="sanitize"),
    "BGB_SKIP_OPT_STEP_ON_NAN": _when_set(training__on_nonfinite="skip"),
    "BGB_SAFE_CLAMP": _clamp,
}
"""Variable to the configuration keys it stands for, in the order in which they apply."""


def apply_overrides(config: Config, environ: Mapping[str, str] | None = None) -> tuple[Config, dict[str, Any]]:
    """`config` with the overrides set in `environ` (the process's own when None), and what each of them changed.

    Raises ConfigError for a value that cannot be read.
    """
    environ = os.environ if environ is None else environ
    applied: dict[str, Any] = {}
    for name, changes_of in OVERRIDES.items():
        if name in environ:
            changes = changes_of(name, environ)
            applied[name] = {"value": environ[name], "changes": changes}
            config = with_values(config, changes)
    return config, applied
