"""Windows of noise and a detector of a few hundred parameters, for everything that is about the loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from brainbrr.config import Config
from brainbrr.configure import build_config, with_values
from brainbrr.data.dataset import WindowBatch, WindowDataset
from brainbrr.training.checkpoint import load_checkpoint
from brainbrr.training.loop import Trainer
from brainbrr.training.observer import Observer, Unobserved
from brainbrr.training.setup import build_setup

SECONDS = 2
SAMPLES = SECONDS * 256


class Noise(WindowDataset):
    """Ten windows of noise, each from a seed of its own; the first two are partly seizure."""

    def __init__(self, windows: int = 10) -> None:
        self.kinds = np.array([1, 1] + [0] * (windows - 2), dtype=np.int8)
        self._loader = None

    def batch(self, windows: Sequence[int]) -> WindowBatch:
        signals = [torch.randn(19, SAMPLES, generator=torch.Generator().manual_seed(int(w))) for w in windows]
        targets = torch.zeros(len(windows), SAMPLES)
        for row, window in enumerate(windows):
            if self.kinds[window]:
                targets[row, : SAMPLES // 2] = 1
        return WindowBatch(signal=torch.stack(signals), target=targets, windows=tuple(int(w) for w in windows))

    def identify(self, window: int) -> dict[str, Any]:
        return {"recording": f"r{window}", "start_s": 0.0, "stop_s": float(SECONDS)}


TINY: dict[str, Any] = {
    "data": {"window_size": SECONDS, "use_balanced_sampling": False},
    "model": {"architecture": "tcn", "tcn": {"num_layers": 1, "channels": [4], "stride_down": 64, "dropout": 0.2}},
    "training": {"batch_size": 2, "epochs": 2, "learning_rate": 1e-2, "scheduler": {"warmup_ratio": 0.2}},
    "evaluation": {"stride": SECONDS},
}
V3 = {
    "model.architecture": "v3",
    "model.mamba": {"backend": "torch", "n_layers": 1, "d_model": 4, "d_state": 4, "headdim": 4, "chunk_size": 4},
    "model.graph": {
        "n_layers": 1,
        "edge_mamba_layers": 1,
        "edge_mamba_d_model": 4,
        "edge_mamba_d_state": 4,
        "edge_mamba_headdim": 4,
    },
}
"""Changes that turn the tiny configuration into one with streams, graph and encoding."""


@pytest.fixture
def tiny() -> Callable[..., Config]:
    """The tiny configuration (five steps an epoch, two epochs) with dotted keys changed."""
    return lambda changes=(): with_values(build_config(TINY), dict(changes))


@pytest.fixture
def v3() -> dict[str, Any]:
    return V3


@pytest.fixture
def noise() -> Noise:
    return Noise()


@pytest.fixture
def make_trainer(noise: Noise, tmp_path: Path) -> Callable[..., Trainer]:
    """A trainer with new objects, as a new process would have them; `resume` takes its checkpoint from there."""

    def make(
        config: Config, *, resume: Path | None = None, observer: Observer | None = None, name: str = "run", **more: Any
    ) -> Trainer:
        torch.manual_seed(torch.randint(1_000_000, ()).item())  # nothing may depend on what was drawn before
        options = {"checkpoints": tmp_path / name, "observer": observer or Unobserved(), **more}
        trainer = Trainer(config, build_setup(config), noise, **options)
        if resume is not None:
            trainer.resume(load_checkpoint(resume))
        return trainer

    return make
