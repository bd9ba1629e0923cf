"""Which implementations the detector would take, for a checkpoint that remembers which it was trained with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from brainbrr.config import ConfigError
from brainbrr.configure import build_config
from brainbrr.models.backend import BackendError, choose
from brainbrr.training.setup import choose_device


def backends_here(values: Mapping[str, Any]) -> Mapping[str, str]:
    """By what a checkpoint calls them; empty for a configuration that is not the detector's, or cannot run here."""
    try:
        config = build_config(values)
        choice = choose(config.model.mamba.backend, choose_device(config.experiment.device))
    except (ConfigError, BackendError):
        return {}
    return {"mamba": choice.name}
