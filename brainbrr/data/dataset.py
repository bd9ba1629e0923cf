"""Windows of a cache as tensors. Letters: B batch, C = 19 electrodes, L samples of a window.

The last window of a recording and recordings shorter than a window are padded with zeros, never dropped; the target is
-1 (IGNORED) wherever nothing was recorded, behind the end and in gaps, so that the loss leaves it out.
"""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from brainbrr.config import ELECTRODES, SAMPLING_RATE
from brainbrr.data.cache import Cache, CachedRecording
from brainbrr.data.windows import gap_runs, seizure_runs, window_kinds, window_starts

IGNORED = -1.0
Signal = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class WindowBatch:
    """`signal` (B, 19, L) float32 σ; `target` (B, L) float32: 1 seizure, 0 background, -1 not recorded; indices."""

    signal: torch.Tensor
    target: torch.Tensor
    windows: tuple[int, ...]

    def pin_memory(self) -> WindowBatch:
        """The same in page-locked memory (called by torch's DataLoader)."""
        return dataclasses.replace(self, signal=self.signal.pin_memory(), target=self.target.pin_memory())


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Targets:
    seizures: npt.NDArray[np.int64]
    gaps: npt.NDArray[np.int64]


class WindowDataset(Dataset[tuple[Signal, Signal]]):
    """All windows of the labelled recordings of a cache, in the order of recordings and time.

    `kinds`: (W,) int8, 0 background, 1 partly, 2 wholly seizure. `unlabelled`: recordings left out for want of labels.
    `empty`: windows left out because they lie wholly in a gap.
    """

    def __init__(self, cache: Cache, *, window_size: float, stride: float) -> None:
        """Cut windows of `window_size` s every `stride` s. Raises ValueError for less than one sample of either."""
        self.length = round(window_size * SAMPLING_RATE)
        step = round(stride * SAMPLING_RATE)
        self.recordings: tuple[CachedRecording, ...] = tuple(r for r in cache.recordings if r.events is not None)
        self.unlabelled = tuple(r.name for r in cache.recordings if r.events is None)
        self.empty = 0
        self._targets = [_Targets(seizures=seizure_runs(r), gaps=gap_runs(r)) for r in self.recordings]
        self._starts: list[npt.NDArray[np.int64]] = []
        kinds = [np.zeros(0, dtype=np.int8)]
        for recording in self.recordings:
            starts = window_starts(recording.n_samples, self.length, step)
            kind, recorded = window_kinds(recording, starts, self.length)
            self.empty += int(np.count_nonzero(recorded == 0))
            self._starts.append(starts[recorded > 0])
            kinds.append(kind[recorded > 0])
        self.kinds: npt.NDArray[np.int8] = np.concatenate(kinds)
        self._last = np.cumsum([len(starts) for starts in self._starts]).tolist()
        self._loader: tuple[Any, DataLoader[WindowBatch], _Order] | None = None

    def __len__(self) -> int:
        return len(self.kinds)

    def __getitem__(self, window: int) -> tuple[Signal, Signal]:
        """Signal (19, L) and target (L,) of a window."""
        signal = np.empty((len(ELECTRODES), self.length), dtype=np.float32)
        target = np.empty(self.length, dtype=np.float32)
        self._fill(window, signal, target)
        return signal, target

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_loader": None}  # worker processes load nothing through loaders of their own

    def identify(self, window: int) -> dict[str, Any]:
        """Recording and seconds of a window; a padded one ends with its recording."""
        place, start = self._locate(window)
        recording = self.recordings[place]
        stop = min(start + self.length, recording.n_samples)
        return {"recording": recording.name, "start_s": start / SAMPLING_RATE, "stop_s": stop / SAMPLING_RATE}

    def batch(self, windows: Sequence[int]) -> WindowBatch:
        """The windows of these indices, read straight into one tensor."""
        signal = np.empty((len(windows), len(ELECTRODES), self.length), dtype=np.float32)
        target = np.empty((len(windows), self.length), dtype=np.float32)
        for row, window in enumerate(windows):
            self._fill(window, signal[row], target[row])
        return WindowBatch(
            signal=torch.from_numpy(signal), target=torch.from_numpy(target), windows=tuple(int(w) for w in windows)
        )

    def _locate(self, window: int) -> tuple[int, int]:
        """Place of the recording and first sample of a window."""
        if not 0 <= window < len(self):
            raise IndexError(f"window {window}; expected 0 to {len(self) - 1}")
        place = bisect.bisect_right(self._last, window)
        first = self._last[place - 1] if place else 0
        return place, int(self._starts[place][window - first])

    def _fill(self, window: int, signal: Signal, target: Signal) -> None:
        place, start = self._locate(window)
        recording, targets = self.recordings[place], self._targets[place]
        n = min(self.length, recording.n_samples - start)
        recording.read_into(signal[:, :n], start)
        signal[:, n:] = 0.0
        target[:n], target[n:] = 0.0, IGNORED
        for runs, value in ((targets.seizures, 1.0), (targets.gaps, IGNORED)):
            for first, last in runs:
                if first < start + n and last > start:
                    target[max(first - start, 0) : min(last - start, n)] = value

    def _batches(self, chunks: list[list[int]], batch_options: dict[str, Any]) -> DataLoader[WindowBatch]:
        """A loader of these batches; with persistent workers the one of the epoch before, so that they do persist."""
        if self._loader is not None and self._loader[0] == batch_options:
            self._loader[2].chunks = chunks
            return self._loader[1]
        order = _Order(chunks)
        # batch_size=None: the sampler's items, lists of windows, go to the dataset as they are.
        loader: DataLoader[WindowBatch] = DataLoader(
            _Batched(self),
            batch_size=None,
            sampler=order,
            **batch_options,
        )
        self._loader = (batch_options, loader, order) if batch_options["persistent_workers"] else None
        return loader


def load_batches(
    dataset: WindowDataset,
    order: Sequence[int] | npt.NDArray[np.int64],
    batch_size: int,
    *,
    num_workers: int = 0,
    pin_memory: bool = False,
    persistent_workers: bool = False,
    prefetch_factor: int = 2,
    drop_last: bool = False,
) -> Iterator[WindowBatch]:
    """Batches of the windows in `order`. Without workers a plain loop: reading a window costs less than sending one.

    `pin_memory` takes effect where there is a CUDA device. `persistent_workers` keeps the workers for the next call
    with the same options. Raises ValueError for a batch size below 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; expected at least 1")
    windows = [int(window) for window in order]
    chunks = [windows[i : i + batch_size] for i in range(0, len(windows), batch_size)]
    if drop_last and chunks and len(chunks[-1]) < batch_size:
        chunks.pop()
    pin = pin_memory and torch.cuda.is_available()
    if num_workers == 0:
        for chunk in chunks:
            batch = dataset.batch(chunk)
            yield batch.pin_memory() if pin else batch
        return
    options = {
        "num_workers": num_workers,
        "pin_memory": pin,
        "persistent_workers": persistent_workers,
        "prefetch_factor": prefetch_factor,
    }
    yield from dataset._batches(chunks, options)


class _Order(Sampler[list[int]]):
    """Batches of window indices; those of the next epoch can be put in their place."""

    def __init__(self, chunks: list[list[int]]) -> None:
        self.chunks = chunks

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.chunks)

    def __len__(self) -> int:
        return len(self.chunks)


class _Batched(Dataset[WindowBatch]):
    """A dataset whose items are batches: a worker reads a whole batch into one tensor."""

    def __init__(self, windows: WindowDataset) -> None:
        self.windows = windows

    def __getitem__(self, chunk: list[int]) -> WindowBatch:
        return self.windows.batch(chunk)
