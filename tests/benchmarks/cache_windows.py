"""Compressed NPZ files of overlapping windows against the continuous int16 cache: disk, CPU to build, CPU a window.

    python tests/benchmarks/cache_windows.py [--recordings N] [--minutes M] [--windows W]

Both start from the same EDF files and deliver the same 60-s windows every 10 s. Every figure is a ratio NPZ : cache,
with the median and the range over the recordings (over the draws, for windows), because absolute times are the
machine's. CPU seconds of this process, one thread; everything is in the page cache.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import edfio
import numpy as np

from brainbrr.config import ELECTRODES, SAMPLING_RATE, Preprocessing
from brainbrr.data.cache import build_cache, open_cache
from brainbrr.data.dataset import WindowDataset
from brainbrr.data.edf import read_recording
from brainbrr.data.montage import to_electrodes
from brainbrr.data.preprocess import preprocess
from brainbrr.data.windows import window_starts

LENGTH, STRIDE = 60 * SAMPLING_RATE, 10 * SAMPLING_RATE


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    disk: list[float]
    build: list[float]
    store: list[float]
    window: list[float]


def write_recording(path: Path, minutes: float, seed: int) -> None:
    """1/f noise with a common part, 16 bit: compresses about as badly as EEG does."""
    generator = np.random.default_rng(seed)
    n = round(minutes * 60) * SAMPLING_RATE
    spectrum = np.fft.rfft(generator.standard_normal((len(ELECTRODES) + 1, n)))
    spectrum /= np.sqrt(np.maximum(np.arange(spectrum.shape[1]), 1))
    rows = np.fft.irfft(spectrum, n)
    rows = (rows[1:] + rows[0]) / rows.std() * 20
    signals = [
        edfio.EdfSignal(row, SAMPLING_RATE, label=f"EEG {name}-REF", physical_dimension="uV")
        for name, row in zip(ELECTRODES, rows, strict=True)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    edfio.Edf(signals).write(path)
    path.with_suffix(".csv_bi").write_text(
        f"channel,start_time,stop_time,label,confidence\nTERM,0,{n / SAMPLING_RATE},bckg,1\n"
    )


def cpu(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def npz_windows(paths: Sequence[Path], folder: Path, draws: Sequence[tuple[int, int]]) -> Cost:
    """One compressed file a recording, holding every window; a random window inflates the file."""
    cost = Cost(disk=[], build=[], store=[], window=[])
    files = []
    for path in paths:
        prepared: list[np.ndarray] = []

        def prepare(path: Path = path, prepared: list[np.ndarray] = prepared) -> None:
            recording = read_recording(path)
            prepared.append(preprocess(to_electrodes(recording).signal, recording.rate, Preprocessing()).signal)

        first = cpu(prepare)
        out = folder / f"{path.stem}.npz"

        def store(signal: np.ndarray = prepared[0], out: Path = out) -> None:
            starts = window_starts(signal.shape[1], LENGTH, STRIDE)
            windows = np.stack([signal[:, start : start + LENGTH] for start in starts])
            np.savez_compressed(out, windows=windows, labels=np.zeros(windows.shape[::2], np.float32))

        second = cpu(store)
        cost.disk.append(out.stat().st_size)
        cost.build.append(first + second)
        cost.store.append(second)
        files.append(out)
    for recording, window in draws:

        def read(file: Path = files[recording], window: int = window) -> None:
            with np.load(file) as archive:
                archive["windows"][window].copy()

        cost.window.append(cpu(read))
    return cost


def cached_windows(root: Path, cache: Path, draws: Sequence[tuple[int, int]], per_recording: int) -> Cost:
    """The cache of this package, through its own door."""
    marks: list[float] = [time.process_time()]
    build_cache(root, cache, "train", Preprocessing(), progress=lambda *_: marks.append(time.process_time()))
    build = np.diff(marks).tolist()
    opened = open_cache(cache, "train")
    cost = Cost(
        disk=[float(recording.path.stat().st_size) for recording in opened.recordings], build=build, store=[], window=[]
    )
    for recording in opened.recordings:
        from brainbrr.data.stored import store

        signal = recording.read(0, recording.n_samples)
        again = dataclasses.replace(recording, path=cache / "again.npy", name="again")
        cost.store.append(cpu(lambda signal=signal, again=again: store(cache, signal, again)))  # type: ignore[misc]
    dataset = WindowDataset(opened, window_size=60, stride=10)
    repeats = 20  # one window takes too little to be timed by itself
    for recording, window in draws:
        index = recording * per_recording + window
        cost.window.append(cpu(lambda index=index: [dataset[index] for _ in range(repeats)]) / repeats)  # type: ignore[misc]
    return cost


def line(what: str, theirs: Sequence[float], ours: Sequence[float]) -> str:
    ratios = sorted(a / max(b, 1e-9) for a, b in zip(theirs, ours, strict=True))
    return f"{what:<28} {statistics.median(ratios):>9.1f} x   ({ratios[0]:.1f} to {ratios[-1]:.1f}, n = {len(ratios)})"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recordings", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--windows", type=int, default=10)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        paths = [root / "edf" / "train" / f"p{i}_s001_t000.edf" for i in range(options.recordings)]
        for seed, path in enumerate(paths):
            write_recording(path, options.minutes, seed)
        preprocess(np.ones((19, 300), np.float32) * np.arange(300, dtype=np.float32), 256, Preprocessing())  # imports
        read_recording(paths[0])
        per_recording = len(window_starts(round(options.minutes * 60) * SAMPLING_RATE, LENGTH, STRIDE))
        generator = np.random.default_rng(0)
        shape = (options.windows, 2)
        drawn = generator.integers(0, [options.recordings, per_recording - 6], size=shape).tolist()
        draws = [(int(recording), int(window)) for recording, window in drawn]
        (root / "npz").mkdir()
        theirs = npz_windows(paths, root / "npz", draws)
        ours = cached_windows(root, root / "cache", draws, per_recording)
    hours = options.minutes / 60
    print(f"{options.recordings} recordings of {options.minutes:g} min, {per_recording} windows each; NPZ : cache")
    print(line("disk", theirs.disk, ours.disk))
    print(line("CPU, whole build", theirs.build, ours.build))
    print(line("CPU, storing alone", theirs.store, ours.store))
    print(line("CPU, a random window", theirs.window, ours.window))
    disk, build = statistics.median(ours.disk) / hours / 1e6, statistics.median(ours.build) / hours
    window = statistics.median(ours.window) * 1e3
    print(f"cache: {disk:.1f} MB and {build:.2f} CPU s an EEG-hour, {window:.2f} ms a window")
    print("An archive is inflated whole for one window, so that the last ratio grows with the length of a recording.")


if __name__ == "__main__":
    main()
