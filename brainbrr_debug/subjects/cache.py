"""What lies in a cache of recordings, as neutral facts: the detector's own, or another program's NPZ files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from brainbrr.config import ELECTRODES, SAMPLING_RATE, Config
from brainbrr.data.cache_index import build_command, read_index
from brainbrr.data.cache_scan import Problem, scan, spread
from brainbrr.data.corpus import Source, open_corpus
from brainbrr.data.errors import CacheError, LabelError
from brainbrr.data.formats import read_labels
from brainbrr.data.layouts import SPLITS
from brainbrr.data.stored import STEPS, CachedRecording
from brainbrr_debug.facts import CachedItem, CacheFacts, ChannelFault, Damage
from brainbrr_debug.subjects.configuration import config_of
from brainbrr_debug.subjects.npz import foreign_facts

BLOCK_S = 600
PIECE_S, PIECES = 10, 12
ALIKE = 0.9999
"""Correlation beyond which two electrodes show one signal: neighbours on a head stay below 0.99."""


def cache_facts(cache: Path, config: Path | None, verify: int) -> CacheFacts:
    """Everything but the signal's own faults; of `verify` recordings of each split every sample is read."""
    if not any((cache / f"{split}.json").exists() for split in SPLITS) and any(cache.rglob("*.npz")):
        return foreign_facts(cache, verify)
    options = None if config is None else config_of(config)
    try:
        report = scan(cache, verify=verify, preprocessing=None if options is None else options.preprocessing)
    except CacheError as error:
        found: tuple[Problem, ...] = (Problem(kind="empty", path=cache, message=str(error)),)
    else:
        found = report.found
    damage = tuple(Damage(kind=p.kind, path=p.path, message=p.message) for p in found)
    items = tuple(_item(split, recording) for split, recording in _recordings(cache))
    sampled = any(sum(item.split == split for item in items) > verify for split in SPLITS)
    note = f"cache.corrupt: every sample of {verify} recordings of each split was read, of the others the size alone"
    return CacheFacts(
        path=cache,
        foreign=False,
        rebuild=build_command(cache, "SPLIT").strip("`"),
        items=items,
        damage=damage,
        sources={} if options is None else _label_totals(cache, options),
        notes=(note,) if sampled else (),
    )


def _recordings(cache: Path) -> Iterator[tuple[str, CachedRecording]]:
    for split in SPLITS:
        try:
            recordings = read_index(cache, split).recordings
        except CacheError:
            continue  # no such split, or damaged, which the scan has said
        yield from ((split, recording) for recording in recordings)


def _item(split: str, recording: CachedRecording) -> CachedItem:
    events = recording.events
    return CachedItem(
        name=recording.name,
        path=recording.path,
        split=split,
        group=recording.patient,
        positives=None if events is None else len(events),
        positive_seconds=sum(event.stop_s - event.start_s for event in events or ()),
        clipped=dict(zip(ELECTRODES, recording.clipped, strict=False)),
    )


def _label_totals(cache: Path, config: Config) -> dict[str, tuple[int, float]]:
    """Seizures and their seconds in the label files of what is cached, by split; empty where there is no corpus."""
    try:
        corpus = open_corpus(config.data.data_dir, config.data.layout)
        cached = {split: [r.source for s, r in _recordings(cache) if s == split] for split in corpus.splits}
        return {
            split: _total(source for source in corpus.recordings(split) if source.relative in set(names))
            for split, names in cached.items()
        }
    except (CacheError, OSError):
        return {}


def _total(sources: Iterable[Source]) -> tuple[int, float]:
    count, seconds = 0, 0.0
    for source in sources:
        try:
            events = read_labels(source.path) or ()
        except LabelError:
            continue  # the build of the cache has left it out, with the reason
        count, seconds = count + len(events), seconds + sum(event.stop_s - event.start_s for event in events)
    return count, seconds


def channel_faults(cache: Path, count: int, least_s: float) -> Iterator[ChannelFault]:
    """Flat, saturated and duplicated electrodes in `count` recordings of each split, stretches of `least_s` at least.

    Stretches in which nothing was recorded are left out, and so are electrodes that were computed from others.
    """
    recordings = list(_recordings(cache))
    for split in SPLITS:
        for _, recording in spread([pair for pair in recordings if pair[0] == split], count):
            try:
                yield from _faults(recording, least_s)
            except CacheError:
                continue  # damaged, which the scan has said


def _faults(recording: CachedRecording, least_s: float) -> Iterator[ChannelFault]:
    still, railed = _by_second(recording)
    silent = np.zeros(still.shape[1], dtype=np.bool_)
    for gap in recording.gaps:
        silent[int(gap.start_s) : int(np.ceil(gap.stop_s))] = True
    for kind, mask in (("flat", still & ~railed & ~silent), ("saturated", railed & ~silent)):
        groups: dict[tuple[int, int], list[str]] = {}
        for name, row in zip(ELECTRODES, mask, strict=True):
            for first, last in _runs(row):
                if last - first >= least_s:
                    groups.setdefault((first, last), []).append(name)
        for (first, last), names in groups.items():
            yield _fault(recording, kind, tuple(names), first, last)
    for pair in _twins(recording, np.asarray(still.all(axis=1))):
        yield _fault(recording, "duplicated", pair, 0, recording.duration_s)


def _fault(
    recording: CachedRecording, kind: str, channels: tuple[str, ...], start_s: float, stop_s: float
) -> ChannelFault:
    return ChannelFault(
        recording=recording.name,
        path=recording.path,
        kind=kind,
        channels=channels,
        start_s=float(start_s),
        stop_s=float(stop_s),
    )


def _by_second(recording: CachedRecording) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """(C, seconds): whether an electrode stands still in a second, and whether it does so at the end of the range."""
    steps = recording.steps()
    seconds = recording.n_samples // SAMPLING_RATE
    still = np.zeros((len(ELECTRODES), seconds), dtype=np.bool_)
    railed = np.zeros_like(still)
    for first in range(0, seconds, BLOCK_S):
        last = min(first + BLOCK_S, seconds)
        block = np.asarray(steps[:, first * SAMPLING_RATE : last * SAMPLING_RATE]).reshape(len(ELECTRODES), -1, 256)
        low, high = block.min(axis=2), block.max(axis=2)
        still[:, first:last] = low == high
        railed[:, first:last] = (low == high) & (np.abs(low.astype(np.int32)) >= STEPS)
    return still, railed


def _twins(recording: CachedRecording, dead: npt.NDArray[np.bool_]) -> Iterator[tuple[str, str]]:
    """Pairs of measured electrodes that show one signal, by correlation over pieces spread over the recording."""
    steps, n = recording.steps(), recording.n_samples
    width = min(n, PIECE_S * SAMPLING_RATE)
    starts = spread(range(0, max(1, n - width + 1), width), PIECES)
    rows = np.concatenate([np.asarray(steps[:, start : start + width], dtype=np.float64) for start in starts], axis=1)
    rows -= rows.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(rows, axis=1)
    shown = (norms > 0) & ~dead & np.array([name not in recording.interpolated for name in ELECTRODES])
    rows[shown] /= norms[shown, None]
    for a, b in np.argwhere(np.triu(np.abs(rows @ rows.T) >= ALIKE, k=1)):
        if shown[a] and shown[b]:
            yield ELECTRODES[a], ELECTRODES[b]


def _runs(where: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], where, [False]]).astype(np.int8)))
    return [(int(first), int(last)) for first, last in edges.reshape(-1, 2)]
