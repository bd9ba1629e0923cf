"""Evaluation between epochs, as the training loop asks for it."""

from __future__ import annotations

from collections.abc import Callable

from brainbrr.config import Config
from brainbrr.data.cache import Cache
from brainbrr.evaluation.evaluate import evaluate
from brainbrr.training.setup import Setup


def validator(config: Config, cache: Cache | None) -> Callable[[Setup], dict[str, float]] | None:
    """A function from a setup to the metrics by name, NaN for what is unreachable; None without labelled recordings."""
    if cache is None or not any(recording.events for recording in cache.recordings):
        return None

    def validate(setup: Setup) -> dict[str, float]:
        return evaluate(setup.model, cache.recordings, config, device=setup.device).scalars()

    return validate
