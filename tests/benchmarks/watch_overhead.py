"""What watching costs: interleaved paired steps of the same model, unwatched, watched in each tier, and by others.

Every round takes one step of each arm, in rotating order; an arm's figure is the median over rounds of its time over
the unwatched arm's time in the same round, with a distribution-free 95 % interval of that median. `every50` is 49 parts
of a watched step and one of a sampled one. Peak memory counts the bytes that torch's allocator has given out, from the
making of the model on. Exits 1 when an interval lies wholly above its target, or a peak is more than 1 % higher.

    python tests/benchmarks/watch_overhead.py                     # 200 rounds
    python tests/benchmarks/watch_overhead.py --rounds 20 --model transformer
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import itertools
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from brainbrr_debug import Watch

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's profiler speaks on stderr otherwise
ROOT = Path(__file__).parents[2]
TARGETS = {
    ("transformer", "watched"): 1.02,
    ("tcn", "watched"): 1.01,
    ("detector", "watched"): 1.01,
    ("transformer", "sentinel"): 1.05,
    ("tcn", "sentinel"): 1.08,
    ("detector", "sentinel"): 1.08,
    ("transformer", "ranges"): 1.10,
    ("tcn", "ranges"): 1.15,
    ("detector", "ranges"): 1.15,
    ("transformer", "every50"): 1.03,
    ("tcn", "every50"): 1.03,
    ("detector", "every50"): 1.03,
}
TIERS: dict[str, dict[str, Any]] = {
    "watched": {},
    "sentinel": {"sentinel": True},
    "ranges": {"ranges": 16},
    "sampled": {"every": 1},
}
ARMS = ("unwatched", *TIERS, "anomaly", "transformers_debugger")
PEAK = 1.01

Case = tuple[nn.Module, torch.Tensor, torch.Tensor, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]]


class Transformer(nn.Module):
    """Tokens (B, L) -> logits (B, L, V)."""

    def __init__(self, vocabulary: int = 512, width: int = 128, layers: int = 4) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.1, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(self.embed(x)))


class TCN(nn.Module):
    """Signal (B, 19, L) -> logits (B, L / 16): the input of the detector."""

    def __init__(self, width: int = 32, layers: int = 6) -> None:
        super().__init__()
        blocks: list[nn.Module] = [nn.Conv1d(19, width, 7, stride=4, padding=3), nn.ReLU()]
        for index in range(layers):
            dilation = 2**index
            blocks += [
                nn.Conv1d(width, width, 7, padding=3 * dilation, dilation=dilation),
                nn.BatchNorm1d(width),
                nn.ReLU(),
            ]
        self.stack = nn.Sequential(*blocks, nn.Conv1d(width, 1, 7, stride=4, padding=3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.stack(x)[:, 0]


def transformer() -> Case:
    x = torch.randint(512, (8, 128))

    def loss_fn(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(output.flatten(0, 1), target.flatten())

    return Transformer(), x, torch.randint(512, (8, 128)), loss_fn


def tcn() -> Case:
    loss_fn = nn.functional.binary_cross_entropy_with_logits
    return TCN(), torch.randn(4, 19, 15360), torch.randint(2, (4, 960)).float(), loss_fn


def detector() -> Case:
    from brainbrr.configure import load_config
    from brainbrr.training.setup import build_setup

    config = load_config(ROOT / "configs" / "local" / "smoke.yaml")
    setup = build_setup(config)
    samples = round(config.data.window_size * 256)
    target = torch.randint(2, (config.training.batch_size, samples)).float()
    return setup.model, torch.randn(config.training.batch_size, 19, samples), target, setup.loss_fn


CASES: dict[str, Callable[[], Case]] = {"transformer": transformer, "tcn": tcn, "detector": detector}


class Arm:
    """One way of running the same step, on a model of its own."""

    def __init__(self, name: str, case: str, device: torch.device, folder: Path, stack: contextlib.ExitStack) -> None:
        torch.manual_seed(0)
        self.name, self.device = name, device
        self.model, self.x, self.target, self.loss_fn = CASES[case]()
        self.model.to(device)
        self.x, self.target = self.x.to(device), self.target.to(device)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=True)
        self.watch: Watch | None = None
        if name in TIERS:
            self.watch = stack.enter_context(Watch(self.model, self.optimizer, folder / name, **TIERS[name]))
        if name == "transformers_debugger":
            from transformers.debug_utils import DebugUnderflowOverflow

            stack.enter_context(contextlib.redirect_stdout(io.StringIO()))  # what it has to say about its own hooks
            DebugUnderflowOverflow(self.model)

    def step(self) -> float:
        """Seconds of one step: CPU time on a CPU (the machine may be shared), else wall time to the last kernel."""
        mode = torch.autograd.detect_anomaly(check_nan=True) if self.name == "anomaly" else contextlib.nullcontext()
        started = self._now()
        with mode:
            if self.watch is not None:
                self.watch.begin(self.x, self.target)
            self.optimizer.zero_grad(set_to_none=True)
            output = self.model(self.x)
            loss = self.loss_fn(output, self.target)
            loss.backward()
        parameters = list(self.model.parameters())
        if self.watch is not None:
            # as the detector's trainer does it: the watch's norm is the one that clips
            if not self.watch.check(loss, output):
                raise SystemExit("the benchmark's own step is not finite")
            norm = self.watch.gradient_norm
        else:
            norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        torch.nn.utils.clip_grads_with_norm_(parameters, 1.0, norm)
        self.optimizer.step()
        return self._now() - started

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time()


def median_interval(values: list[float]) -> tuple[float, float, float]:
    """Median and the order statistics that enclose the true median in 95 % of all samples."""
    ordered = sorted(values)
    n = len(ordered)
    half = 1.96 * math.sqrt(n) / 2
    low, high = max(0, math.floor(n / 2 - half)), min(n - 1, math.ceil(n / 2 + half))
    return statistics.median(ordered), ordered[low], ordered[high]


def peak_bytes(case: str, name: str, device: torch.device) -> int:
    """The most bytes that tensors held at one time: model, optimizer and watch made, and three steps taken."""
    gc.collect()  # an arm before this one must not be let go while this one is counted
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        if device.type == "cuda":
            torch.cuda.empty_cache()
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            arm = Arm(name, case, device, Path(folder), stack)
            for _ in range(3):
                arm.step()
            return torch.cuda.max_memory_allocated() - before
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
            arm = Arm(name, case, device, Path(folder), stack)
            for _ in range(3):
                arm.step()
    results = profile.profiler.kineto_results
    held = sorted((e.start_ns(), e.nbytes()) for e in results.events() if e.name() == "[memory]")
    return max(itertools.accumulate(size for _, size in held))


def measure_peaks(case: str, device: torch.device) -> bool:
    """Print the peaks; False when a tier's is too high."""
    base = peak_bytes(case, "unwatched", device)
    ratios = {name: peak_bytes(case, name, device) / base for name in TIERS}
    shown = ", ".join(f"{name} {ratio:.4f}" for name, ratio in ratios.items())
    missed = [name for name, ratio in ratios.items() if ratio > PEAK]
    print(f"peak memory {base / 1e6:.1f} MB unwatched; {shown}" + (f"  MISSED: {', '.join(missed)}" if missed else ""))
    return not missed


def measure(case: str, rounds: int, device: torch.device) -> bool:
    """Print the case's table; False when an interval lies wholly above its target."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        arms = [Arm(name, case, device, Path(folder), stack) for name in ARMS]
        times: dict[str, list[float]] = {name: [] for name in ARMS}
        for arm in arms * 3:
            arm.step()
        for index in range(rounds):
            for place in range(len(arms)):
                arm = arms[(index + place) % len(arms)]
                times[arm.name].append(arm.step())
    parameters = sum(p.numel() for p in arms[0].model.parameters())
    base = statistics.median(times["unwatched"])
    print(f"\n{case}: {parameters:,} parameters, {1e3 * base:.1f} ms a step, {rounds} rounds, {device}")
    print(f"{'arm':<22}{'median ratio':>14}{'95 % interval':>20}{'target':>9}")
    good = True
    times["every50"] = [(49 * w + s) / 50 for w, s in zip(times["watched"], times["sampled"], strict=True)]
    for name in (*ARMS[1:], "every50"):
        ratios = [a / b for a, b in zip(times[name], times["unwatched"], strict=True)]
        middle, low, high = median_interval(ratios)
        target = TARGETS.get((case, name))
        missed = target is not None and low > target
        good = good and not missed
        shown = "" if target is None else f"{target:.2f}" + ("  MISSED" if missed else "")
        print(f"{name:<22}{middle:>14.4f}{f'{low:.4f} to {high:.4f}':>20}{shown:>9}")
    return measure_peaks(case, device) and good


def main() -> int:
    """Measure; 1 when a target was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--model", action="append", choices=list(CASES), help="default: all")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results = [measure(case, options.rounds, torch.device(options.device)) for case in options.model or CASES]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
