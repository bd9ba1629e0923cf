"""Evaluation between epochs, as the training loop asks for it."""

from __future__ import annotations

import math
from collections.abc import Callable

from brainbrr.config import Config
from brainbrr.data.cache import Cache
from brainbrr.evaluation.evaluate import evaluate
from brainbrr.evaluation.events import NonFiniteOutput
from brainbrr.evaluation.scoring import fa_key
from brainbrr.training.setup import Setup


def validator(
    config: Config, cache: Cache | None, narrate: Callable[[str], None] = lambda line: None
) -> Callable[[Setup], dict[str, float]] | None:
    """A function from a setup to the metrics by name, NaN for what is unreachable; None without labelled recordings.

    A detector whose output is not finite, which `on_nonfinite` other than "stop" lets live, gets NaN throughout.
    """
    if cache is None or not any(recording.events for recording in cache.recordings):
        return None

    def validate(setup: Setup) -> dict[str, float]:
        try:
            return evaluate(setup.model, cache.recordings, config, device=setup.device).scalars()
        except NonFiniteOutput as error:
            narrate(f"validation  not possible: {error}")
            return dict.fromkeys(["loss", "auroc", *map(fa_key, config.evaluation.fa_rates)], math.nan)

    return validate
