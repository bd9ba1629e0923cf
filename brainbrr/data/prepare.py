"""From a configuration to windows: writes the synthetic corpus and builds the cache where they are not there yet."""

from __future__ import annotations

from collections.abc import Callable

from brainbrr.config import Config
from brainbrr.data.cache import Cache, build_cache, check_patients, open_cache
from brainbrr.data.dataset import WindowDataset
from brainbrr.data.synthetic import write_corpus

SPLITS = ("train", "dev")


class DataError(ValueError):
    """Data that cannot be trained on: what was found, what was expected, what to do."""

    exit_code = 1


Narrate = Callable[[str], None]
Progress = Callable[[int, int, str], None]


def prepare(config: Config, narrate: Narrate = lambda line: None, progress: Progress | None = None) -> dict[str, Cache]:
    """The caches of train and dev, built first where needed.

    Raises DataError when the training split holds no seizure (with the counts), and what reading, caching and
    checking raise.
    """
    data = config.data
    if data.synthetic is not None and not (data.data_dir / "edf").is_dir():
        report = write_corpus(
            data.data_dir,
            patients=data.synthetic.patients,
            minutes=data.synthetic.minutes,
            seizures=data.synthetic.seizures,
            lookalikes=data.synthetic.lookalikes,
            artefacts=data.synthetic.artefacts,
            seed=config.experiment.seed if data.synthetic.seed is None else data.synthetic.seed,
            splits=SPLITS,
            progress=progress,
        )
        narrate(f"corpus      wrote {report.recordings} synthetic recordings ({report.hours:.1f} h) to {data.data_dir}")
    caches = {
        split: _cache(config, split, narrate, progress) for split in SPLITS if (data.data_dir / "edf" / split).is_dir()
    }
    if "train" not in caches:
        raise DataError(f"{data.data_dir}: no folder edf/train; expected recordings in edf/{{train,dev,eval}}")
    check_patients(data.cache_dir)
    require_seizures(caches["train"])
    return caches


def _cache(config: Config, split: str, narrate: Narrate, progress: Progress | None) -> Cache:
    data = config.data
    report = build_cache(
        data.data_dir,
        data.cache_dir,
        split,
        config.preprocessing,
        limit_files=data.limit_files,
        jobs=1,
        progress=progress,
    )
    narrate(f"cache       {split}: {report.summary()}")
    return open_cache(
        data.cache_dir,
        split,
        config.preprocessing,
        limit_files=data.limit_files,
        rebuild_index=data.rebuild_index,
    )


def require_seizures(cache: Cache) -> None:
    """Raises DataError with the counts when no recording of the cache holds a seizure."""
    events = sum(len(recording.events or ()) for recording in cache.recordings)
    if not events:
        unlabelled = sum(recording.events is None for recording in cache.recordings)
        raise DataError(
            f"0 seizures in {len(cache.recordings)} training recordings ({unlabelled} without labels); "
            "expected at least one: are the .csv_bi files beside the .edf files?"
        )


def windows(config: Config, cache: Cache) -> WindowDataset:
    """The windows of a cache as the configuration cuts them."""
    return WindowDataset(cache, window_size=config.data.window_size, stride=config.data.stride)
