"""Seizure probabilities while the recording runs, chunk by chunk.

The rule: a window ends every `evaluation.stride`, the first when it is full, and its newest samples (all of the first
window's) get the probability it gives them. `newest_probabilities` is that rule for a recording that is there as a
whole; a stream gives the same bits in whatever chunks it arrives. C = 19 electrodes, L samples of a window.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from brainbrr.config import ELECTRODES, SAMPLING_RATE, Config, ConfigError
from brainbrr.data.causal import CausalPreprocessor, CausalState
from brainbrr.data.edf import Recording
from brainbrr.data.montage import to_electrodes
from brainbrr.evaluation.events import NonFiniteOutput
from brainbrr.evaluation.postprocess import Probabilities

Signal = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """Probabilities (n,) float32 at 256 Hz of the samples from `start_s` on; n is often 0."""

    start_s: float
    probabilities: Probabilities


@dataclasses.dataclass(slots=True)
class StreamState:
    """What a stream has behind it: plain arrays and numbers, independent of the detector."""

    preprocessing: CausalState
    window: Signal  # (C, up to L) the newest samples in σ
    arrived: int = 0  # samples at 256 Hz so far
    judged: int = 0


class StreamingDetector:
    """Push samples in µV as they come, (len(labels), n) at `rate` Hz; get probabilities back.

    `labels` name the signals as an EDF file would; Fz and Pz may be missing. `latency_s` is the longest time from a
    sample to its probability, computing not counted. Raises ConfigError for a configuration whose preprocessing looks
    ahead (the model was trained with another scale than a stream can have), RecordingError for missing electrodes.
    """

    def __init__(
        self,
        detector: nn.Module,
        config: Config,
        *,
        rate: float,
        labels: Sequence[str] = ELECTRODES,
        device: torch.device | str = "cpu",
    ) -> None:
        if not config.preprocessing.causal:
            raise ConfigError(
                "preprocessing.causal is false: the detector was trained on signals scaled by their whole recording, "
                "which a stream does not have; train with --set preprocessing.causal=true"
            )
        self._detector, self._device = detector.to(device).eval(), device
        self._rate, self._labels = rate, tuple(labels)
        self._window = round(config.data.window_size * SAMPLING_RATE)
        self._stride = round(config.evaluation.stride * SAMPLING_RATE)
        self._causal = CausalPreprocessor(rate, config.preprocessing)
        self._stream = StreamState(
            preprocessing=self._causal.state, window=np.empty((len(ELECTRODES), 0), dtype=np.float32)
        )
        self._electrodes(np.zeros((len(self._labels), 1), dtype=np.float32))  # names are wrong from the start or never
        self.latency_s = self._causal.latency_s + self._stride / SAMPLING_RATE
        """For every sample but those of the first window, which wait until it is full."""

    def push(self, samples: npt.NDArray[np.floating]) -> Judged:
        """Take the next samples, (len(labels), n) µV. Raises ValueError for another shape."""
        if samples.ndim != 2 or len(samples) != len(self._labels):
            raise ValueError(f"samples of shape {samples.shape}; expected ({len(self._labels)}, n)")
        return self._judge(self._causal.push(self._electrodes(samples.astype(np.float32))), finished=False)

    def finish(self) -> Judged:
        """The end of the recording: what no window has judged yet."""
        return self._judge(self._causal.finish(), finished=True)

    def state(self) -> StreamState:
        """A copy of everything the stream has behind it."""
        return copy.deepcopy(self._stream)

    def restore(self, state: StreamState) -> None:
        """Go on where `state` was taken, on a stream of the same detector, configuration, rate and labels."""
        self._stream = copy.deepcopy(state)
        self._causal.state = self._stream.preprocessing

    def _electrodes(self, samples: Signal) -> Signal:
        recording = Recording(
            path=Path("stream"),
            signal=samples,
            labels=self._labels,
            rate=self._rate,
            start=None,
            gaps=(),
            annotations=(),
            notes=(),
            found=self._labels,
        )
        return to_electrodes(recording).signal

    def _judge(self, signal: Signal, *, finished: bool) -> Judged:
        stream = self._stream
        start, found = stream.judged, [np.empty(0, dtype=np.float32)]
        while signal.shape[1]:
            room = max(self._window, stream.judged + self._stride) - stream.arrived
            piece, signal = signal[:, :room], signal[:, room:]
            stream.window = np.concatenate([stream.window, piece], axis=1)[:, -self._window :]
            stream.arrived += piece.shape[1]
            if piece.shape[1] == room:
                found.append(self._newest())
        if finished and stream.arrived > stream.judged:
            found.append(self._newest())
        return Judged(start_s=start / SAMPLING_RATE, probabilities=np.concatenate(found))

    def _newest(self) -> Probabilities:
        """The probabilities of the samples that arrived since the last window ended."""
        stream = self._stream
        prob = window_probabilities(self._detector, stream.window, self._window, self._device)
        newest = prob[stream.judged - stream.arrived :]
        if not np.isfinite(newest).all():
            raise NonFiniteOutput(f"stream: logits are not finite in the window ending at sample {stream.arrived}")
        stream.judged = stream.arrived
        return newest


def newest_probabilities(
    detector: nn.Module, signal: Signal, *, window: int, stride: int, device: torch.device | str = "cpu"
) -> Probabilities:
    """The rule of the stream for a whole preprocessed recording `signal` (C, N) in σ: (N,) float32."""
    n = signal.shape[1]
    detector = detector.to(device).eval()
    ends = [*range(window, n, stride), n]
    pieces, judged = [], 0
    for end in ends:
        prob = window_probabilities(detector, signal[:, max(0, end - window) : end], window, device)
        pieces.append(prob[judged - end :])
        judged = end
    return np.concatenate(pieces)


def window_probabilities(detector: nn.Module, signal: Signal, window: int, device: torch.device | str) -> Probabilities:
    """The probabilities of one window's samples (C, n), padded with zeros behind where n is less than `window`."""
    padded = np.pad(signal, ((0, 0), (0, window - signal.shape[1])))
    with torch.no_grad():
        logits = detector(torch.from_numpy(padded)[None].to(device))
    prob: Probabilities = torch.sigmoid(logits[0, : signal.shape[1]].float()).cpu().numpy()
    return prob
