"""What the recordings of a cache are like, split by split: lengths, amplitudes, labels, patients, dead electrodes.

Reads every sample once, one block at a time. C = 19 electrodes.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from brainbrr.config import ELECTRODES, SAMPLING_RATE
from brainbrr.data.cache_index import read_index
from brainbrr.data.cache_scan import RecordingScan, ScanReport, SplitScan, scan
from brainbrr.data.stored import STEPS, CachedRecording
from brainbrr.terminal import table

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
TAILS_SIGMA = (3.0, 5.0, 8.0)
_BLOCK_S = 600

Progress = Callable[[int, int, str], None]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ElectrodeSummary:
    """One electrode over the recordings of a split. `amplitudes_uv`: QUANTILES of its usual amplitude.

    `flat_s`: seconds in which it stands still; `dead`: recordings throughout which it does; `interpolated`: recordings
    in which it was computed.
    """

    electrode: str
    amplitudes_uv: tuple[float, ...]
    flat_s: int
    dead: int
    interpolated: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SplitInspection:
    """One split. Distributions are QUANTILES, empty where there is nothing; `beyond`: share of samples past n σ."""

    scan: SplitScan
    durations_s: tuple[float, ...]
    seizure_durations_s: tuple[float, ...]
    source_rates: dict[str, int]
    beyond: dict[str, float]
    clipped: float
    electrodes: tuple[ElectrodeSummary, ...]
    patients: dict[str, dict[str, float]]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CacheInspection:
    """A cache: what `scan-cache` says of it, and what its recordings are like."""

    cache: str
    report: ScanReport
    splits: tuple[SplitInspection, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        splits = [dataclasses.asdict(split) | {"split": split.scan.split} for split in self.splits]
        return {"cache": self.cache, "quantiles": QUANTILES, "splits": splits, "problems": self.report.problems}

    def text(self) -> str:
        """For a person: labels and manifest in sums, then distributions and electrodes of each split."""
        parts = [self.report.text()]
        for split in self.splits:
            parts += ["", f"{split.scan.split}:", table(distribution_rows(split)), "", table(electrode_rows(split))]
        return "\n".join(parts)


def inspect_cache(cache_dir: Path, progress: Progress = lambda done, total, name: None) -> CacheInspection:
    """Look at every recording of a cache. Raises CacheError where there is none or an array is damaged."""
    report = scan(cache_dir)
    total = sum(len(split.recordings) for split in report.splits)
    splits, done = [], 0
    for split in report.splits:
        recordings = read_index(cache_dir, split.split).recordings
        looks = []
        for recording in recordings:
            looks.append(_look(recording))
            done += 1
            progress(done, total, recording.name)
        splits.append(_split(split, recordings, looks))
    return CacheInspection(cache=str(cache_dir), report=report, splits=tuple(splits))


@dataclasses.dataclass(frozen=True, slots=True)
class _Look:
    """Of one recording: seconds in which each electrode stands still (C,), and samples past each of TAILS_SIGMA."""

    flat_s: npt.NDArray[np.int64]
    beyond: npt.NDArray[np.int64]


def _look(recording: CachedRecording) -> _Look:
    steps, unit = recording.steps(), recording.clip_sigma / STEPS
    flat, beyond = np.zeros(len(ELECTRODES), dtype=np.int64), np.zeros(len(TAILS_SIGMA), dtype=np.int64)
    for start in range(0, recording.n_samples, _BLOCK_S * SAMPLING_RATE):
        block = np.asarray(steps[:, start : start + _BLOCK_S * SAMPLING_RATE]).astype(np.int32)
        whole = block.shape[1] // SAMPLING_RATE
        seconds = block[:, : whole * SAMPLING_RATE].reshape(len(block), whole, SAMPLING_RATE)
        flat += (np.ptp(seconds, axis=2) == 0).sum(axis=1)
        size = np.abs(block, out=block)
        beyond += [int((size > sigma / unit).sum()) for sigma in TAILS_SIGMA]
    return _Look(flat, beyond)


def _split(scanned: SplitScan, recordings: Sequence[CachedRecording], looks: Sequence[_Look]) -> SplitInspection:
    samples = len(ELECTRODES) * sum(recording.n_samples for recording in recordings)
    events = [event for recording in recordings for event in recording.events or ()]
    beyond = np.sum([look.beyond for look in looks], axis=0) / max(1, samples)
    clipped = sum(sum(recording.clipped) * recording.n_samples for recording in recordings)
    rates = Counter(f"{recording.source_rate:g} Hz" for recording in recordings)
    return SplitInspection(
        scan=scanned,
        durations_s=_quantiles([recording.duration_s for recording in recordings]),
        seizure_durations_s=_quantiles([event.stop_s - event.start_s for event in events]),
        source_rates=dict(sorted(rates.items())),
        beyond={f"{sigma:g}": float(share) for sigma, share in zip(TAILS_SIGMA, np.atleast_1d(beyond), strict=True)},
        clipped=clipped / max(1, samples),
        electrodes=tuple(_electrode(i, recordings, looks) for i in range(len(ELECTRODES))),
        patients=_patients(scanned.recordings),
    )


def _electrode(i: int, recordings: Sequence[CachedRecording], looks: Sequence[_Look]) -> ElectrodeSummary:
    name = ELECTRODES[i]
    recorded = [recording for recording in recordings if name not in recording.interpolated]
    dead = sum(
        int(look.flat_s[i]) == recording.n_samples // SAMPLING_RATE > 0
        for recording, look in zip(recordings, looks, strict=True)
    )
    return ElectrodeSummary(
        electrode=name,
        amplitudes_uv=_quantiles([recording.amplitudes_uv[i] for recording in recorded]),
        flat_s=int(sum(look.flat_s[i] for look in looks)),
        dead=dead,
        interpolated=len(recordings) - len(recorded),
    )


def _patients(manifest: Sequence[RecordingScan]) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for line in manifest:
        entry = found.setdefault(line.patient, {"recordings": 0, "hours": 0.0, "seizures": 0})
        entry["recordings"] += 1
        entry["hours"] += line.hours
        entry["seizures"] += line.seizures or 0
    return found


def _quantiles(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(np.quantile(values, QUANTILES).tolist()) if len(values) else ()


def distribution_rows(split: SplitInspection) -> list[list[str]]:
    """A table: what, then its quantiles."""
    amplitudes = [e.amplitudes_uv[QUANTILES.index(0.5)] for e in split.electrodes if e.amplitudes_uv]
    hours = [entry["hours"] for entry in split.patients.values()]
    lines: list[tuple[str, Sequence[float]]] = [
        ("length, s", split.durations_s),
        ("seizure, s", split.seizure_durations_s),
        ("hours of a patient", _quantiles(hours)),
        ("electrode's median amplitude, µV", _quantiles(amplitudes)),
    ]
    head = ["", *("least" if q == 0 else "most" if q == 1 else f"{q:.0%}" for q in QUANTILES)]
    cells = {what: [f"{value:.4g}" for value in values] or ["–"] * len(QUANTILES) for what, values in lines}
    return [head, *([what, *numbers] for what, numbers in cells.items())]


def electrode_rows(split: SplitInspection) -> list[list[str]]:
    """A table: a row an electrode."""
    middle, high = QUANTILES.index(0.5), QUANTILES.index(0.95)
    rows = [["electrode", "amplitude, µV", "95 %", "flat, s", "dead in", "interpolated in"]]
    for each in split.electrodes:
        amplitudes = [f"{each.amplitudes_uv[k]:.1f}" for k in (middle, high)] if each.amplitudes_uv else ["–", "–"]
        rows.append([each.electrode, *amplitudes, str(each.flat_s), str(each.dead), str(each.interpolated)])
    return rows
