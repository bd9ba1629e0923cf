"""Evaluation of a checkpoint on a folder of recordings: what `brainbrr evaluate` does."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

from brainbrr.config import Config, ConfigError
from brainbrr.configure import with_values
from brainbrr.data.cache import Cache, Failure, build_cache, open_cache
from brainbrr.data.corpus import open_corpus
from brainbrr.data.prepare import Narrate, tell
from brainbrr.evaluation.evaluate import evaluate
from brainbrr.evaluation.report import EvaluationReport
from brainbrr.models.detector import Detector
from brainbrr.training.checkpoint import load_checkpoint, load_weights
from brainbrr.training.setup import choose_device, new_detector

Progress = Callable[[int, int, str], None]


def load_detector(
    path: Path, config: Config | None = None, adapt: Callable[[Config], Config] = lambda config: config
) -> tuple[Detector, Config]:
    """The detector of a checkpoint, on the CPU, and the configuration to evaluate it with.

    `config` is for a file that holds none; where both exist they must agree on the model. What the training run was
    told of its device and of a limit of files does not hold here; `adapt` changes what is left, and the detector is
    built from that. Raises ConfigError when there is no configuration, CheckpointError as `load_checkpoint` and
    `load_weights` do.
    """
    checkpoint = load_checkpoint(path)
    known = checkpoint.config or config
    if known is None:
        raise ConfigError(f"{path}: a checkpoint without configuration; give the one it was trained with by --config")
    if config is not None and config.model != known.model:
        raise ConfigError(f"{path}: trained with another `model` section than --config has; leave --config out")
    used = adapt(config or with_values(known, {"experiment.device": "auto", "data.limit_files": None}))
    detector = new_detector(used)
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
    narrate: Narrate = lambda line: None,
    progress: Progress | None = None,
    left_out: Callable[[Failure], None] = lambda failure: None,
) -> EvaluationReport:
    """Score `detector` on the labelled recordings of `data`'s split, cached first.

    `cache_dir` is the folder of the cache (None: cache/evaluate-NAME). The threshold for each rate of false alarms is
    chosen on the split `thresholds_from`: on other patients, or on `split` itself where that is the same. None: on dev
    for eval where `data` has labels there, else on `split` itself. `left_out` is told of every recording of the split
    that could not be read.
    """
    device = choose_device(config.experiment.device)
    detector = detector.to(device)
    for note in detector.backends.notes:
        narrate(f"fallback    {note}")
    folder = cache_dir or Path("cache") / f"evaluate-{data.resolve().name}"

    def cached(name: str) -> Cache:
        limit = config.data.limit_files
        tell(build_cache(data, folder, name, config.preprocessing, limit_files=limit, progress=progress), narrate)
        return open_cache(folder, name, config.preprocessing, limit_files=limit)

    def score(cache: Cache, chosen: Mapping[float, float | None] | None = None) -> EvaluationReport:
        return evaluate(detector, cache.recordings, config, device=device, chosen=chosen, progress=progress)

    cache = cached(split)
    for failure in cache.failed:
        left_out(failure)
    source = thresholds_from or _source(data, split, cached, narrate)
    if source == split:
        return score(cache)
    choosing = score(cached(source))
    narrate(f"thresholds  chosen on {source}")
    report = score(cache, {point.fa_rate: point.threshold for point in choosing.points})
    points = [
        dataclasses.replace(point, chosen_on=there.score)
        for point, there in zip(report.points, choosing.points, strict=True)
    ]
    return dataclasses.replace(report, points=tuple(points), threshold_source=source)


def _source(data: Path, split: str, cached: Callable[[str], Cache], narrate: Narrate) -> str:
    """The split to choose thresholds on where none is named."""
    if split != "eval" or "dev" not in open_corpus(data).splits:
        return split
    if any(recording.events is not None for recording in cached("dev").recordings):
        return "dev"
    narrate("thresholds  chosen on eval itself: dev has no labels")
    return split
