"""Programs around the real detector, for incidents that its own options cannot express; each says why.

All read config.yaml of the working directory. Letters: B batch, C = 19 electrodes, L samples, N samples of a recording.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from brainbrr.config import SAMPLING_RATE, Config
from brainbrr.configure import load_config
from brainbrr.data.dataset import WindowDataset
from brainbrr.data.edf import read_recording
from brainbrr.data.montage import to_electrodes
from brainbrr.data.prepare import prepare, windows
from brainbrr.data.synthesis.artefacts import RAIL_UV
from brainbrr.training.setup import window_batches
from brainbrr_debug.subject import Batch, Run, Switch
from brainbrr_debug.subjects.brainbrr import DetectorSubject


class Around:
    """The detector of config.yaml; what is in front of it, or done to it, is up to the subclasses."""

    channels = DetectorSubject.channels
    own: ClassVar[Mapping[str, Switch]] = {}

    def __init__(self) -> None:
        self.config: Config = load_config(Path("config.yaml"))
        self.detector = DetectorSubject(self.config)

    def build(self, seed: int, switches: Mapping[str, object]) -> Run:
        run = self.detector.build(seed, {name: value for name, value in switches.items() if name not in self.own})
        return self.altered(run, {name: value for name, value in switches.items() if name in self.own})

    def altered(self, run: Run, switches: Mapping[str, object]) -> Run:
        return run

    def switches(self) -> Mapping[str, Switch]:
        return {**self.own, **self.detector.switches()}

    def identify(self, batch_index: int, sample_index: int) -> dict[str, Any]:
        return self.detector.identify(batch_index, sample_index)


class Compression(nn.Module):
    """sign(x) log cosh x: linear below 1 σ, |x| - log 2 above it, which is the usual way to soften large amplitudes.

    Written down as it is named, it takes cosh x first, which leaves float32 at 89.4.
    """

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form

    def forward(self, x: Tensor) -> Tensor:
        if self.form == "stable":
            size = x.abs()
            return x.sign() * (size + torch.log1p((-2 * size).exp()) - np.log(2))
        return x.sign() * torch.log(torch.cosh(x))


class Compressed(nn.Module):
    def __init__(self, detector: nn.Module, form: str) -> None:
        super().__init__()
        self.compress, self.detector = Compression(form), detector

    def forward(self, signal: Tensor) -> Tensor:  # (B,C,L) -> (B,L)
        return self.detector(self.compress(signal))


class CompressedSubject(Around):
    """An amplitude compression in front of the detector, because nothing within the detector overflows at 121 σ: its
    streams end in RMS norms, and its other functions are softplus, GELU and log-sigmoid."""

    own: ClassVar = {"compression": Switch(values=("named", "stable"), safe="stable", component="compress")}

    def altered(self, run: Run, switches: Mapping[str, object]) -> Run:
        model = Compressed(run.model, str(switches.get("compression", "named")))
        run.step.model = model
        return dataclasses.replace(run, model=model)

    def switches(self) -> Mapping[str, Switch]:
        inner = {
            name: dataclasses.replace(switch, component=switch.component and f"detector.{switch.component}")
            for name, switch in self.detector.switches().items()
        }
        return {**self.own, **inner}


class LiftSubject(Around):
    """An edge lift drawn with a gain of 1e10 instead of 1e-10, because the detector's own is not open to its user."""

    own: ClassVar = {
        "edge_lift_gain": Switch(values=(1e10, 1.0), safe=1.0, keeps_weights=False, component="graph.edges.lift")
    }

    def altered(self, run: Run, switches: Mapping[str, object]) -> Run:
        graph = getattr(run.model, "graph", None)  # a switch may have taken it away
        if graph is not None and graph.edges.stream is not None:
            with torch.no_grad():
                graph.edges.lift.weight *= float(switches.get("edge_lift_gain", 1e10))
        return run


class MarkedSubject(Around):
    """A reader of its own, because no NaN can come from the detector's: EDF and its cache hold integers, and it bridges
    what it cannot calibrate. This one takes the recorder's mark of a missing sample for NaN, as many scripts do, and
    scales every electrode by what remains."""

    def build(self, seed: int, switches: Mapping[str, object]) -> Run:
        return dataclasses.replace(super().build(seed, switches), batches=MarkedBatches(self.config))


class MarkedBatches:
    """The batches of the first epoch."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def __iter__(self) -> Iterator[Batch]:
        dataset = windows(self.config, prepare(self.config)["train"])
        signals = {recording.name: self.signal(recording.source) for recording in dataset.recordings}
        for batch in window_batches(self.config, dataset, 0):
            cut = [self.window(dataset, signals, window) for window in batch.windows]
            yield (torch.from_numpy(np.stack(cut)),), batch.target

    def signal(self, source: str) -> np.ndarray:
        """(C, N) σ, NaN where the recorder left its mark."""
        recording = read_recording(self.config.data.data_dir / "edf" / "train" / source)
        signal = to_electrodes(recording).signal.copy()
        signal[signal < -(RAIL_UV + 0.1)] = np.nan
        signal -= np.nanmean(signal, axis=1, keepdims=True)
        return signal / np.nanstd(signal, axis=1, keepdims=True)

    def window(self, dataset: WindowDataset, signals: Mapping[str, np.ndarray], window: int) -> np.ndarray:
        found = dataset.identify(window)
        start = round(found["start_s"] * SAMPLING_RATE)
        return signals[found["recording"]][:, start : start + dataset.length].astype(np.float32)
