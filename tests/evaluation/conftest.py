"""Recordings and detectors that tests of the evaluation share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from brainbrr.data.labels import Event

RATE = 256


@dataclass(kw_only=True, eq=False)
class FakeRecording:
    """A recording in memory that counts what is read of it."""

    signal: npt.NDArray[np.float32]
    events: tuple[Event, ...] | None = ()
    name: str = "rec"
    patient: str = "pat"
    reads: int = 0

    @property
    def n_samples(self) -> int:
        return self.signal.shape[1]

    def read(self, start: int, stop: int) -> npt.NDArray[np.float32]:
        assert 0 <= start < stop <= self.n_samples, "read outside the recording"
        self.reads += 1
        return self.signal[:, start:stop]


MakeRecording = Callable[..., FakeRecording]


@pytest.fixture(scope="session")
def make_recording() -> MakeRecording:
    """A recording whose first electrode is `trace` (N,), the logits of the `Echo` detector."""

    def make(trace: npt.ArrayLike, seizures: list[tuple[float, float]] | None = None, **names: str) -> FakeRecording:
        signal = np.zeros((19, np.size(trace)), dtype=np.float32)
        signal[0] = trace
        events = None if seizures is None else tuple(Event(start_s=a, stop_s=b) for a, b in seizures)
        return FakeRecording(signal=signal, events=events, **names)

    return make


class Echo(nn.Module):
    """Logits are the first electrode."""

    def forward(self, signal: torch.Tensor) -> torch.Tensor:
        return signal[:, 0]


@pytest.fixture(scope="session")
def echo() -> nn.Module:
    return Echo()
