"""Probabilities of a whole recording from a detector that sees windows: weighted overlap-add.

Letters: B windows of a batch, C = 19 electrodes, L samples of a window, N samples of the recording.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from brainbrr.config import SAMPLING_RATE
from brainbrr.evaluation.events import EvaluationError, NonFiniteOutput

Signal = npt.NDArray[np.float32]
OnLogits = Callable[[torch.Tensor, tuple[int, ...]], None]


class SignalReader(Protocol):
    """What is needed of a recording: a name, and its signal piece by piece."""

    @property
    def name(self) -> str:
        """Name for messages and tables."""

    def read(self, start: int, stop: int) -> Signal:
        """Samples [start, stop) as (C, stop - start) float32 in σ."""


def probabilities(
    detector: nn.Module,
    recording: SignalReader,
    *,
    n_samples: int,
    window: int,
    stride: int,
    batch_size: int,
    device: torch.device | str,
    on_logits: OnLogits | None = None,
) -> npt.NDArray[np.float32]:
    """The seizure probability of every sample of `recording`, (N,) float32, N = `n_samples`.

    Windows of `window` samples start every `stride` samples; the last one is moved back so that it ends with the
    recording and every sample is judged on real signal. Only a recording shorter than a window is padded, with zeros,
    and the padding is cut off again. Overlapping windows are averaged with a triangular weight: a sample at the edge of
    one window has its context in another. Memory: two float32 arrays of N, and one batch.

    `detector` (already on `device`) runs in evaluation mode without gradients and is left in the mode it was found in.
    `on_logits(logits (B, L), starts)` sees every batch, padded part included. Raises NonFiniteOutput naming
    recording and second when a logit is not finite, EvaluationError when window, stride, signal or output do not fit.
    """
    _require_cover(recording.name, n_samples, window, stride)
    taper = _triangle(window)
    total = np.zeros(n_samples, dtype=np.float32)
    weight = np.zeros(n_samples, dtype=np.float32)
    training = detector.training
    detector.eval()
    try:
        with torch.no_grad():
            for starts in _batches(window_starts(n_samples, window, stride), batch_size):
                logits = _logits(detector, _signals(recording, starts, n_samples, window), recording.name, device)
                _require_finite(logits, recording, starts, n_samples)
                if on_logits is not None:
                    on_logits(logits, starts)
                for start, prob in zip(starts, torch.sigmoid(logits.float()).cpu().numpy(), strict=True):
                    stop = min(start + window, n_samples)
                    total[start:stop] += taper[: stop - start] * prob[: stop - start]
                    weight[start:stop] += taper[: stop - start]
    finally:
        detector.train(training)
    # Every product and sum rounds monotonically, so that the quotient of probabilities stays within 0 and 1.
    np.divide(total, weight, out=total)
    return total


def window_starts(n_samples: int, window: int, stride: int) -> tuple[int, ...]:
    """First samples of the windows that cover `n_samples`: every `stride`, and one that ends with the recording."""
    last = max(0, n_samples - window)
    return (*range(0, last, stride), last)


def _batches(starts: tuple[int, ...], size: int) -> Iterator[tuple[int, ...]]:
    for first in range(0, len(starts), size):
        yield starts[first : first + size]


def _triangle(window: int) -> Signal:
    """(L,) weights that rise to the middle; above zero at the edges, so that a sample seen once is seen."""
    rise = np.arange(1, window + 1, dtype=np.float32)
    return (np.minimum(rise, rise[::-1]) / ((window + 1) / 2)).astype(np.float32)


def _require_cover(name: str, n_samples: int, window: int, stride: int) -> None:
    if n_samples < 1:
        raise EvaluationError(f"{name}: the recording has no samples; leave it out")
    if not 1 <= stride <= window:
        raise EvaluationError(
            f"{name}: windows of {window / SAMPLING_RATE:g} s every {stride / SAMPLING_RATE:g} s do not cover a "
            "recording; expected a stride above 0 s and at most the window: set evaluation.stride <= data.window_size"
        )


def _signals(recording: SignalReader, starts: tuple[int, ...], n_samples: int, window: int) -> Signal:
    """The windows (B, C, L), zero behind the end of the recording."""
    pieces = []
    for start in starts:
        stop = min(start + window, n_samples)
        piece = recording.read(start, stop)
        if piece.ndim != 2 or piece.shape[1] != stop - start:
            raise EvaluationError(
                f"{recording.name}: reading samples {start} to {stop} gave an array of shape {piece.shape}; "
                f"expected (electrodes, {stop - start})"
            )
        pieces.append(np.pad(piece, ((0, 0), (0, window - piece.shape[1]))))
    return np.stack(pieces)


def _logits(detector: nn.Module, signal: Signal, name: str, device: torch.device | str) -> torch.Tensor:
    logits: torch.Tensor = detector(torch.from_numpy(signal).to(device))
    expected = (signal.shape[0], signal.shape[2])
    if tuple(logits.shape) != expected:
        raise EvaluationError(
            f"{name}: the detector gave {tuple(logits.shape)} for windows {signal.shape}; expected logits {expected}"
        )
    return logits


def _require_finite(logits: torch.Tensor, recording: SignalReader, starts: tuple[int, ...], n_samples: int) -> None:
    """A NaN must not become a probability: sigmoid and any comparison would hide where it came from."""
    window = logits.shape[1]
    counted = torch.ones_like(logits, dtype=torch.bool)
    if starts[-1] + window > n_samples:
        counted[-1, n_samples - starts[-1] :] = False
    bad = counted & ~torch.isfinite(logits)
    if not bool(bad.any()):
        return
    row, column = (int(index) for index in bad.nonzero()[0])
    start, stop = starts[row], min(starts[row] + window, n_samples)
    innocent = bool(np.isfinite(recording.read(start, stop)).all())
    raise NonFiniteOutput(
        f"{recording.name}: {int(bad.sum())} logits are not finite, the first at "
        f"{(start + column) / SAMPLING_RATE:.3f} s in the window {start / SAMPLING_RATE:g} to "
        f"{stop / SAMPLING_RATE:g} s; expected finite logits. The window's signal is "
        + (
            "finite, so the cause lies in the weights or in an operation: look for it with brainbrr-debug"
            if innocent
            else "not finite either: rebuild the cache"
        )
    )
