"""Preprocessing that uses no future: the same numbers whether a recording comes whole or second by second.

Order as in `preprocess`: hold over non-finite samples, resample, band-pass and notch, scale, clip. The scale is the
root mean square of what has passed so far, older samples counting less (time constant TAU_S), instead of the standard
deviation of the whole recording. Every step works in blocks of one second, so that the chunks in which samples arrive
change no bit of the result. C = 19 electrodes.
"""

from __future__ import annotations

import dataclasses
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from brainbrr.config import ELECTRODES, SAMPLING_RATE, Preprocessing
from brainbrr.data.filters import IDLE_UV, NOMINAL_SIGMA_UV, design

TAU_S = 60.0
FLOOR_UV = 0.1  # the scale never falls below: far under scalp EEG, far over what a dead electrode's filter leaves
_REACH = 20  # zero crossings of the resampler's sinc on either side
_KAISER_BETA = 8.0

Block = npt.NDArray[np.float64]


@dataclasses.dataclass(slots=True)
class CausalState:
    """Everything that the past leaves behind; plain arrays and numbers, to be saved and restored."""

    pending: npt.NDArray[np.float32]  # (C, fewer than a block) µV, not yet worked on
    last: Block  # (C,) the last finite sample, minus the first
    first: Block  # (C,) the first finite sample; NaN before there was one
    history: Block  # (C, taps) samples that the resampler still needs
    filter: Block  # (sections, C, 2)
    power: Block  # (C, 1) of the running mean square
    received: int = 0  # samples that went through the resampler
    emitted: int = 0  # samples at 256 Hz that came out
    held: int = 0  # non-finite samples replaced by the last finite one


class CausalPreprocessor:
    """From µV at `rate` Hz to σ at 256 Hz, (C, n) float32, block by block. `state` may be saved and put back.

    `latency_s` is what the resampler's reach adds to a block's length. Raises ValueError for a rate that is no simple
    ratio of 256 Hz, and one too low for the band-pass.
    """

    def __init__(self, rate: float, preprocessing: Preprocessing) -> None:
        ratio = (Fraction(SAMPLING_RATE) / Fraction(rate).limit_denominator(1000)).limit_denominator(1000)
        if abs(float(ratio) * rate / SAMPLING_RATE - 1) > 1e-9:
            raise ValueError(
                f"{rate:g} Hz is no simple ratio of {SAMPLING_RATE} Hz; expected a rate such as 250 or 512"
            )
        self.rate, self.preprocessing = rate, preprocessing
        self.block = max(1, round(rate))
        self._up, self._down = ratio.numerator, ratio.denominator
        self._taps = _polyphase(self._up, self._down)
        self._sos, self.notes = design(rate, preprocessing)
        width = self._taps.shape[1]
        self.latency_s = (self.block + width // 2) / rate
        self.state = CausalState(
            pending=np.empty((len(ELECTRODES), 0), dtype=np.float32),
            last=np.zeros(len(ELECTRODES)),
            first=np.full(len(ELECTRODES), np.nan),
            history=np.zeros((len(ELECTRODES), width)),
            filter=np.zeros((len(self._sos), len(ELECTRODES), 2)),
            power=np.zeros((len(ELECTRODES), 1)),
        )

    def push(self, samples: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
        """Take (C, n) µV, give what is finished, (C, m)."""
        state = self.state
        state.pending = np.concatenate([state.pending, samples.astype(np.float32)], axis=1)
        done = [np.empty((len(ELECTRODES), 0), dtype=np.float32)]
        while state.pending.shape[1] >= self.block:
            done.append(self._work(state.pending[:, : self.block].astype(np.float64)))
            state.pending = state.pending[:, self.block :]
        return np.concatenate(done, axis=1)

    def finish(self) -> npt.NDArray[np.float32]:
        """What is left when nothing more comes, up to the last sample received; the last value is held behind it."""
        state = self.state
        total = max(1, round((state.received + state.pending.shape[1]) * SAMPLING_RATE / self.rate))
        before = state.emitted
        rest = state.pending.astype(np.float64)
        held = rest[:, -1:] if rest.shape[1] else (state.last + np.nan_to_num(state.first))[:, None]
        tail = np.repeat(held, self._taps.shape[1], axis=1)
        state.pending = state.pending[:, :0]
        return self._work(np.concatenate([rest, tail], axis=1))[:, : total - before]

    def _work(self, block: Block) -> npt.NDArray[np.float32]:
        from scipy import signal as sp

        rows = self._resampled(self._held(block))
        rows += IDLE_UV
        rows, self.state.filter = sp.sosfilt(self._sos, rows, axis=1, zi=self.state.filter)
        rows /= self._scale(rows) if self.preprocessing.normalize else NOMINAL_SIGMA_UV
        clip = self.preprocessing.clip_sigma
        self.state.emitted += rows.shape[1]
        out: npt.NDArray[np.float32] = np.clip(rows, -clip, clip).astype(np.float32)
        return out

    def _held(self, block: Block) -> Block:
        """The block relative to the recording's first sample, non-finite samples replaced by the last finite one."""
        state = self.state
        for row in range(len(block)):
            finite = np.isfinite(block[row])
            if np.isnan(state.first[row]) and finite.any():
                state.first[row] = block[row, np.argmax(finite)]
            block[row] -= state.first[row]
            if not finite.all():
                state.held += int(np.count_nonzero(~finite))
                places = np.maximum.accumulate(np.where(finite, np.arange(finite.size), -1))
                block[row] = np.where(places >= 0, block[row, np.maximum(places, 0)], state.last[row])
            state.last[row] = block[row, -1]
        return block

    def _resampled(self, block: Block) -> Block:
        """All samples at 256 Hz whose reach has arrived; sample n stands at input time n · down / up."""
        state, width = self.state, self._taps.shape[1]
        if self._up == self._down:
            state.received += block.shape[1]
            return block
        rows = np.concatenate([state.history, block], axis=1)
        start = state.received - width  # input index of the first column
        state.received += block.shape[1]
        reach = width // 2
        last = ((state.received - reach) * self._up - 1) // self._down  # the last whose base + reach is here
        n = np.arange(state.emitted, max(state.emitted, last + 1))
        base, phase = np.divmod(n * self._down, self._up)
        columns = (base - reach + 1 - start)[:, None] + np.arange(width)
        out: Block = np.einsum("cnk,nk->cn", rows[:, columns], self._taps[phase])
        state.history = rows[:, -width:].copy()
        return out

    def _scale(self, rows: Block) -> Block:
        from scipy import signal as sp

        decay = np.exp(-1 / (TAU_S * SAMPLING_RATE))
        power, self.state.power = sp.lfilter([1 - decay], [1, -decay], rows**2, axis=1, zi=self.state.power)
        seen = np.arange(self.state.emitted + 1, self.state.emitted + rows.shape[1] + 1)
        scale: Block = np.maximum(np.sqrt(power / -np.expm1(-seen / (TAU_S * SAMPLING_RATE))), FLOOR_UV)
        return scale


def _polyphase(up: int, down: int) -> Block:
    """(up, taps): the taps for each phase of a Kaiser-windowed sinc that passes a constant unchanged."""
    half = int(np.ceil(_REACH * max(1, down / up)))
    cutoff = min(1.0, up / down)  # of the input's Nyquist frequency
    offsets = np.arange(-half + 1, half + 1)[None, :] - np.arange(up)[:, None] / up
    window = np.i0(_KAISER_BETA * np.sqrt(np.maximum(0, 1 - (offsets / half) ** 2))) / np.i0(_KAISER_BETA)
    taps = cutoff * np.sinc(cutoff * offsets) * window
    return np.asarray(taps / taps.sum(axis=1, keepdims=True))
