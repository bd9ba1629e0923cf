"""From a configuration to windows: writes the synthetic corpus and builds the cache where they are not there yet."""

from __future__ import annotations

from collections.abc import Callable

from brainbrr.config import Config
from brainbrr.data.cache import Cache, build_cache, check_patients, open_cache
from brainbrr.data.cache_report import CacheReport
from brainbrr.data.corpus import open_corpus
from brainbrr.data.dataset import WindowDataset
from brainbrr.data.sampling import epoch_order
from brainbrr.data.synthetic import write_corpus

SPLITS = ("train", "dev")


class DataError(ValueError):
    """A folder that holds no data to train on: what was found, what was expected, what to do."""


class Untrainable(DataError):
    """Data that was read well and that nothing can be learnt from; not a matter of how the command was typed."""

    exit_code = 1


Narrate = Callable[[str], None]
Progress = Callable[[int, int, str], None]


def prepare(config: Config, narrate: Narrate = lambda line: None, progress: Progress | None = None) -> dict[str, Cache]:
    """The caches of train and dev, built first where needed.

    Raises CacheError for a folder without recordings, DataError without a training split, Untrainable when it holds no
    seizure (with the counts), and what reading, caching and checking raise.
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
    corpus = open_corpus(data.data_dir, data.layout)
    if "train" not in corpus.splits:
        raise DataError(
            f"{data.data_dir}: no recording of the split 'train' in this corpus of layout {corpus.layout.name!r}; "
            f"expected paths such as {corpus.layout.example}"
        )
    caches = {split: _cache(config, split, narrate, progress) for split in SPLITS if split in corpus.splits}
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
        layout=data.layout,
        limit_files=data.limit_files,
        jobs=1,
        progress=progress,
    )
    tell(report, narrate)
    return open_cache(
        data.cache_dir,
        split,
        config.preprocessing,
        limit_files=data.limit_files,
        rebuild_index=data.rebuild_index,
    )


def tell(report: CacheReport, narrate: Narrate) -> None:
    """What a build of the cache came to, and by name and reason every recording that is left out."""
    narrate(f"cache       {report.split}: {report.summary()}")
    if report.unlabelled:
        narrate(f"left out    {report.unlabelled} recordings of {report.split} without labels")
    for failure in report.failed:
        narrate(f"left out    {failure.name}: {failure.reason}")


def require_seizures(cache: Cache) -> None:
    """Raises Untrainable with the counts when no recording of the cache holds a seizure."""
    events = sum(len(recording.events or ()) for recording in cache.recordings)
    if not events:
        unlabelled = sum(recording.events is None for recording in cache.recordings)
        raise Untrainable(
            f"0 seizures in {len(cache.recordings)} training recordings ({unlabelled} without labels); "
            "expected at least one: are the .csv_bi files beside the .edf files?"
        )


def windows(config: Config, cache: Cache, narrate: Narrate = lambda line: None) -> WindowDataset:
    """The windows of a cache as the configuration cuts them.

    Raises Untrainable, with the counts, when an epoch of them cannot be drawn.
    """
    dataset = WindowDataset(cache, window_size=config.data.window_size, stride=config.data.stride)
    try:
        epoch_order(
            dataset.kinds,
            seed=config.experiment.seed,
            epoch=0,
            balanced=config.data.use_balanced_sampling,
            full_ratio=config.data.full_seizure_ratio,
            background_ratio=config.data.background_ratio,
        )
    except ValueError as error:
        raise Untrainable(str(error)) from error
    if dataset.empty:
        narrate(f"left out    {dataset.empty} windows of {cache.split} that lie wholly in gaps")
    return dataset
