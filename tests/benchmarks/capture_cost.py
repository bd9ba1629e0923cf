"""What a capture costs: a model of 10 M parameters with AdamW state, against `torch.save` of the same trees plus fsync.

    python tests/benchmarks/capture_cost.py [--rounds N] [--folder DIR]

The two take turns within a round; the first line is the median of the rounds' ratios with a distribution-free 95 %
interval. The table below it is what compression of single datasets would bring: seconds and bytes relative to none,
medians over the rounds. Exits 1 when the interval lies wholly above the target of 3.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import functools
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import nn

from brainbrr_debug.capture import CaptureContent, write_capture
from brainbrr_debug.environment import describe_environment
from brainbrr_debug.records import Finding, Severity
from brainbrr_debug.rng import RngState
from brainbrr_debug.training_state import collect_state

TARGET = 3.0
PIPELINES: dict[str, dict[str, Any]] = {
    "none": {},
    "lzf": {"compression": "lzf"},
    "lzf, shuffled": {"compression": "lzf", "shuffle": True},
    "gzip 1, shuffled": {"compression": "gzip", "compression_opts": 1, "shuffle": True},
}


def signal(generator: np.random.Generator, windows: int) -> np.ndarray:
    """Like EEG: (windows, 19, 15360) of 1/f noise in µV that the electrodes share in part, float32."""
    shape = (windows, 20, 15360)
    spectrum = np.fft.rfft(generator.standard_normal(shape))
    rows = np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(spectrum.shape[-1]), 1)), shape[-1])
    return ((rows[:, 1:] + rows[:, :1]) / rows.std() * 20).astype(np.float32)


def trained(signals: torch.Tensor) -> CaptureContent:
    """A step of a network of 10 M parameters that has made five updates."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1024, 2816), nn.GELU(), nn.Linear(2816, 2048), nn.GELU(), nn.Linear(2048, 704))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(5):
        optimizer.zero_grad()
        model(torch.randn(32, 1024)).square().mean().backward()
        optimizer.step()
    state = collect_state(model, optimizer, {}, {})
    return CaptureContent(
        step=5,
        subject="",
        seed=0,
        config={},
        environment=describe_environment(),
        finding=Finding(check="run.nonfinite", severity=Severity.P0, message=""),
        micro_batches=(((signals,), torch.zeros(len(signals), 15360)),),
        healthy_micro_batches=(((signals.flip(0).contiguous(),), torch.zeros(len(signals), 15360)),),
        identities=(),
        healthy_identities=(),
        model_state=state.model,
        optimizer_state=state.optimizer,
        extra_state=state.extra,
        rng=RngState.take(),
        readings=(),
        expected={},
    )


def saved(path: Path, content: CaptureContent) -> None:
    """The same trees as PyTorch would keep them, on the disk when it returns."""
    trees = ("micro_batches", "healthy_micro_batches", "model_state", "optimizer_state", "extra_state")
    with path.open("wb") as file:
        torch.save({name: getattr(content, name) for name in trees}, file)
        file.flush()
        os.fsync(file.fileno())


def seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def median_interval(values: list[float]) -> tuple[float, float, float]:
    """The median, and the order statistics that enclose the true one in 95 % of all samples."""
    ordered = sorted(values)
    rank = max(math.floor(len(ordered) / 2 - 1.96 * math.sqrt(len(ordered)) / 2), 0)
    return statistics.median(ordered), ordered[rank], ordered[-1 - rank]


def datasets(content: CaptureContent, signals: np.ndarray) -> dict[str, np.ndarray]:
    """One array of each kind that a capture holds."""
    moments = content.optimizer_state["state"][0]
    return {
        "weights": content.model_state["2.weight"].numpy(),
        "first moments": moments["exp_avg"].numpy(),
        "second moments": moments["exp_avg_sq"].numpy(),
        "signal, float32": signals,
        "signal, int16": np.round(signals * 10).astype(np.int16),
        "target, 0 or 1": (np.arange(signals.shape[0] * 15360) % 15360 > 9000).astype(np.float32),
    }


def compare_compression(kinds: dict[str, np.ndarray], folder: Path, rounds: int) -> None:
    print(f"\n{'dataset':<18}{'MiB':>7}" + "".join(f"{name:>24}" for name in PIPELINES))
    for name, array in kinds.items():
        times: dict[str, list[float]] = {pipeline: [] for pipeline in PIPELINES}
        sizes = {}
        path = folder / "dataset.h5"
        for _ in range(rounds):
            for pipeline, options in PIPELINES.items():
                times[pipeline].append(seconds(functools.partial(stored, path, array, options)))
                sizes[pipeline] = path.stat().st_size
        base = statistics.median(times["none"])
        cells = [f"{statistics.median(t) / base:.1f} × s, {sizes[p] / sizes['none']:.2f} × B" for p, t in times.items()]
        print(f"{name:<18}{array.nbytes / 2**20:>7.1f}" + "".join(f"{cell:>24}" for cell in cells))


def stored(path: Path, array: np.ndarray, options: dict[str, Any]) -> None:
    with h5py.File(path, "w", libver="v110") as file:
        file.create_dataset("x", data=array, **options)
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--folder", type=Path, help="on the disk to be measured; a temporary one by default")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    signals = signal(np.random.default_rng(0), 8)
    content = trained(torch.from_numpy(signals))
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        capture, plain = folder / "capture.h5", folder / "plain.pt"
        ratios = []
        for _ in range(arguments.rounds + 1):
            ratios.append(seconds(lambda: write_capture(capture, content)) / seconds(lambda: saved(plain, content)))
        middle, low, high = median_interval(ratios[1:])  # the first round warms up
        print(f"write_capture : torch.save + fsync  {middle:.2f} ({low:.2f} to {high:.2f}), target {TARGET:g}")
        print(f"{capture.stat().st_size / 2**20:.1f} MiB against {plain.stat().st_size / 2**20:.1f} MiB")
        compare_compression(datasets(content, signals), folder, max(3, arguments.rounds // 5))
    return int(low > TARGET)


if __name__ == "__main__":
    sys.exit(main())
