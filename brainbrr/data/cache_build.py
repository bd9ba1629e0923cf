"""Building the cache of a split: each recording read, brought to 19 electrodes, preprocessed and stored once.

Largest recording first, one at a time per worker process, each stored before it is counted: a build that is stopped
goes on where it was, a changed source or option is built anew, and a recording that cannot be read is reported by name
and does not stop the others.
"""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from brainbrr.config import LayoutName, Preprocessing
from brainbrr.data import cache_index, fingerprint, stored
from brainbrr.data.cache_index import Index
from brainbrr.data.cache_report import CacheReport, Made, failures, summarise
from brainbrr.data.corpus import Source, open_corpus
from brainbrr.data.edf import read_recording
from brainbrr.data.errors import CacheError
from brainbrr.data.formats import find_labels, read_label_file
from brainbrr.data.labels import clip_events
from brainbrr.data.montage import to_electrodes
from brainbrr.data.preprocess import preprocess
from brainbrr.data.quality import amplitudes
from brainbrr.data.stored import CachedRecording

Progress = Callable[[int, int, str], None]


def build_cache(
    data_dir: str | Path,
    cache_dir: str | Path,
    split: str,
    preprocessing: Preprocessing,
    *,
    layout: LayoutName = "auto",
    limit_files: int | None = None,
    jobs: int = 1,
    progress: Progress | None = None,
) -> CacheReport:
    """Bring the cache of `split` up to date with the recordings of that split below `data_dir`.

    `layout` says how they lie there, see `layouts`. `limit_files`: only the first of them by path. `progress(done,
    total, name)` is called after each recording. Raises CacheError for a folder without recordings or of another
    layout, a patient in two splits, or a build under way elsewhere.
    """
    began = time.monotonic()
    cache_dir = Path(cache_dir)
    sources = open_corpus(data_dir, layout).recordings(split)
    wanted = sources[:limit_files]
    with cache_index.locked(cache_dir, split):
        made = _up_to_date(cache_dir, split, sources, wanted, preprocessing)
        if made is None:
            made = _build_missing(cache_dir, split, wanted, preprocessing, jobs=jobs, progress=progress)
            _index(cache_dir, split, sources, made, preprocessing)
    return summarise(split, made, time.monotonic() - began)


def _up_to_date(
    cache_dir: Path,
    split: str,
    sources: tuple[Source, ...],
    wanted: tuple[Source, ...],
    preprocessing: Preprocessing,
) -> list[Made] | None:
    """The outcome when the index answers for every source, holds every wanted one, and none changed; else None."""
    if not cache_index.index_path(cache_dir, split).is_file():
        return None
    try:
        index = cache_index.read_index(cache_dir, split)
    except CacheError:
        return None  # damaged or of another schema: built anew
    known = {recording.source: recording for recording in index.recordings}
    if {*known, *index.pending, *(failure.source for failure in index.failures)} != {s.relative for s in sources}:
        return None
    wanted_hash = fingerprint.preprocessing_hash(preprocessing)
    made = []
    for source in wanted:
        recording = known.get(source.relative)
        if recording is None or not _is_current(recording, source, wanted_hash, read_content=False):
            return None
        made.append(Made(source=source, status="reused", recording=recording))
    return made


def _build_missing(
    cache_dir: Path,
    split: str,
    wanted: tuple[Source, ...],
    preprocessing: Preprocessing,
    *,
    jobs: int,
    progress: Progress | None,
) -> list[Made]:
    folder = cache_dir / split
    folder.mkdir(parents=True, exist_ok=True)
    cache_index.index_path(cache_dir, split).unlink(missing_ok=True)
    for leftover in folder.glob(".*.tmp"):  # of a build that was killed; the lock says that none is running
        leftover.unlink()
    largest_first = sorted(wanted, key=lambda source: (-source.bytes, source.relative))
    made = []
    for outcome in _outcomes(largest_first, folder, preprocessing, jobs):
        made.append(outcome)
        if progress is not None:
            progress(len(made), len(wanted), outcome.source.name)
    return made


def _outcomes(sources: list[Source], folder: Path, preprocessing: Preprocessing, jobs: int) -> Iterator[Made]:
    """Outcomes as they come; with several jobs from a pool whose workers start clean (a fork would copy threads)."""
    if jobs == 1 or len(sources) == 1:
        for source in sources:
            yield make_recording(source, folder, preprocessing)
        return
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "edfio", "scipy.signal", "soxr"])  # imported once, not by each worker
    pool = concurrent.futures.ProcessPoolExecutor(min(jobs, len(sources)), mp_context=context)
    try:
        futures = {pool.submit(make_recording, source, folder, preprocessing): source for source in sources}
        for future in concurrent.futures.as_completed(futures):
            try:
                yield future.result()
            except concurrent.futures.BrokenExecutor:
                reason = "a worker process died (out of memory?); run again with --jobs 1"
                yield Made(source=futures[future], status="failed", recording=None, reason=reason)
    finally:
        pool.shutdown(cancel_futures=True)


def make_recording(source: Source, folder: Path, preprocessing: Preprocessing) -> Made:
    """Reuse or build one recording; what is wrong with it becomes the reason of a failure."""
    try:
        wanted_hash = fingerprint.preprocessing_hash(preprocessing)
        stored_before = _load(folder, source.name)
        if stored_before is not None and _is_current(stored_before, source, wanted_hash, read_content=True):
            state = tuple(fingerprint.file_state(source.path).to_list())
            return Made(source=source, status="reused", recording=stored.restate(folder, stored_before, state))
        return Made(source=source, status="built", recording=_build(source, folder, preprocessing, wanted_hash))
    except (ValueError, OSError, MemoryError) as error:
        return Made(source=source, status="failed", recording=None, reason=str(error) or type(error).__name__)


def _load(folder: Path, name: str) -> CachedRecording | None:
    try:
        return stored.load(folder, name)
    except CacheError:
        return None  # a damaged description is as good as none


def _is_current(recording: CachedRecording, source: Source, wanted_hash: str, *, read_content: bool) -> bool:
    """Whether a stored recording is what building it again would give; content is read only where the state differs."""
    if recording.preprocessing_hash != wanted_hash or recording.source != source.relative:
        return False
    try:
        recording.check_size()
    except CacheError:
        return False
    if list(recording.source_state) == fingerprint.file_state(source.path).to_list():
        return True
    return read_content and recording.source_hash == fingerprint.content_hash(source.path)


def _build(source: Source, folder: Path, preprocessing: Preprocessing, wanted_hash: str) -> CachedRecording:
    # The state before the content: a file that changes meanwhile is then seen as changed next time.
    state = tuple(fingerprint.file_state(source.path).to_list())
    source_hash = fingerprint.content_hash(source.path)
    recording = read_recording(source.path)
    labels_at = find_labels(source.path)
    labels = None if labels_at is None else read_label_file(labels_at, source.name)
    montaged = to_electrodes(recording)
    prepared = preprocess(montaged.signal, recording.rate, preprocessing, gaps=recording.gaps)
    notes = [*recording.notes, *montaged.notes, *prepared.notes]
    events = None
    if labels is not None:
        events, cut = clip_events(labels.events, recording.duration_s)
        notes += cut
        notes += [f"{count} label(s) {label!r} count as background" for label, count in labels.ignored.items()]
    return stored.store(
        folder,
        prepared.signal,
        CachedRecording(
            name=source.name,
            patient=source.patient,
            n_samples=prepared.signal.shape[1],
            events=events,
            path=folder / f"{source.name}.npy",
            interpolated=montaged.interpolated,
            clipped=prepared.clipped,
            amplitudes_uv=amplitudes(montaged.signal, recording.rate),
            nonfinite=prepared.nonfinite,
            gaps=recording.gaps,
            notes=tuple(notes),
            clip_sigma=preprocessing.clip_sigma,
            source=source.relative,
            source_rate=recording.rate,
            source_hash=source_hash,
            source_state=state,
            preprocessing_hash=wanted_hash,
            crc32=0,
        ),
    )


def _index(
    cache_dir: Path, split: str, sources: tuple[Source, ...], made: list[Made], preprocessing: Preprocessing
) -> None:
    """Write the index: what was made, and what an earlier build with a higher limit left in the folder."""
    outcomes = {outcome.source.relative: outcome for outcome in made}
    wanted_hash = fingerprint.preprocessing_hash(preprocessing)
    recordings, pending = [], []
    for source in sources:
        if source.relative in outcomes:
            recording = outcomes[source.relative].recording
        else:
            recording = _load(cache_dir / split, source.name)
            if recording is None or not _is_current(recording, source, wanted_hash, read_content=True):
                pending.append(source.relative)
                continue
        if recording is not None:
            recordings.append(recording)
    index = Index(
        preprocessing_hash=wanted_hash, recordings=tuple(recordings), failures=failures(made), pending=tuple(pending)
    )
    cache_index.write_index(cache_dir, split, index)
