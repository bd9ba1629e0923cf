"""Evaluation of a checkpoint on a folder of recordings: what `brainbrr evaluate` does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from brainbrr.config import SAMPLING_RATE, Config, ConfigError
from brainbrr.data.cache import Cache, build_cache, open_cache
from brainbrr.evaluation.evaluate import evaluate
from brainbrr.evaluation.report import EvaluationReport
from brainbrr.evaluation.scoring import choose_threshold
from brainbrr.models.detector import Detector, build_detector
from brainbrr.training.checkpoint import load_checkpoint, load_weights
from brainbrr.training.setup import choose_device

Progress = Callable[[int, int, str], None]


def load_detector(path: Path, config: Config | None = None) -> tuple[Detector, Config]:
    """The detector of a checkpoint and its configuration.

    `config` is for a file that holds none; where both exist they must agree on the model. Raises ConfigError when the
    checkpoint has no configuration and none is given, CheckpointError as `load_checkpoint` and `load_weights` do.
    """
    checkpoint = load_checkpoint(path)
    known = checkpoint.config or config
    if known is None:
        raise ConfigError(f"{path}: a checkpoint without configuration; give the one it was trained with by --config")
    if config is not None and config.model != known.model:
        raise ConfigError(f"{path}: trained with another `model` section than --config has; leave --config out")
    used = config or known
    detector = build_detector(used.model, samples_per_window=round(used.data.window_size * SAMPLING_RATE))
    load_weights(detector, checkpoint, path)
    return detector, used


def evaluate_checkpoint(
    detector: Detector,
    config: Config,
    data: Path,
    *,
    split: str,
    thresholds_from: str | None = None,
    cache_dir: Path | None = None,
    narrate: Callable[[str], None] = lambda line: None,
    progress: Progress | None = None,
) -> EvaluationReport:
    """Score `detector` on the labelled recordings in `data`/edf/`split`, cached below `cache_dir` first.

    With `thresholds_from` the threshold for each rate of false alarms is chosen on that split, on other patients.
    """
    device = choose_device(config.experiment.device)
    detector = detector.to(device)
    folder = cache_dir or Path("cache") / f"evaluate-{data.resolve().name}"

    def cached(name: str) -> Cache:
        report = build_cache(data, folder, name, config.preprocessing, progress=progress)
        narrate(f"cache       {name}: {report.summary()}")
        return open_cache(folder, name, config.preprocessing)

    chosen: Mapping[float, float | None] | None = None
    if thresholds_from is not None:
        sweep = evaluate(detector, cached(thresholds_from).recordings, config, device=device, progress=progress).sweep
        chosen = {rate: choose_threshold(sweep, rate) for rate in config.evaluation.fa_rates}
        narrate(f"thresholds  chosen on {thresholds_from}: {chosen}")
    return evaluate(detector, cached(split).recordings, config, device=device, chosen=chosen, progress=progress)
