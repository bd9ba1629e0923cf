"""From µV at any rate to σ per electrode at 256 Hz.

Order: locate and bridge non-finite samples, resample, band-pass and notch, scale, clip. C = 19 electrodes, N samples.

Electrodes are filtered one at a time in float64 and stored as float32. That keeps the memory at one copy, and lets a
stretch in which the amplifier delivers a constant decay to nothing: some 10 s after the step the filter's answer is
below the resolution of the 16-bit cache, and the stretch is exactly zero there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from brainbrr.config import ELECTRODES, SAMPLING_RATE, Preprocessing
from brainbrr.data.causal import CausalPreprocessor
from brainbrr.data.filters import IDLE_UV, NOMINAL_SIGMA_UV, design
from brainbrr.data.timeline import Gap

_ROUNDING = 4e-6  # relative; below one step of a 16-bit converter, above the rounding of interpolated electrodes
_TAIL_S = 0.5

Row = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NonFinite:
    """Samples of one electrode that were NaN or infinite in the source: the first one's second, and how many."""

    electrode: str
    first_s: float
    count: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessed:
    """`signal`: (19, N) float32 σ at 256 Hz; `clipped`: share of clipped samples per electrode, in electrode order."""

    signal: npt.NDArray[np.float32]
    clipped: tuple[float, ...]
    nonfinite: tuple[NonFinite, ...]
    notes: tuple[str, ...]


def preprocess(
    signal: npt.NDArray[np.floating], rate: float, preprocessing: Preprocessing, *, gaps: Iterable[Gap] = ()
) -> Preprocessed:
    """Filter and scale `signal` (19, N) µV at `rate` Hz. Samples inside `gaps` do not count for the scale.

    Raises ValueError for another shape and for a rate too low for the band-pass.
    """
    if signal.ndim != 2 or signal.shape[0] != len(ELECTRODES) or not signal.shape[1]:
        raise ValueError(f"signal of shape {signal.shape}; expected ({len(ELECTRODES)}, N) with N of at least 1")
    if preprocessing.causal:
        return _causal(signal, rate, preprocessing)
    sos, notes = design(rate, preprocessing)
    n = max(1, round(signal.shape[1] * SAMPLING_RATE / rate))
    recorded = _recorded(n, gaps)
    out = np.empty((len(ELECTRODES), n), dtype=np.float32)
    clipped, nonfinite, constant = [], [], []
    for i, name in enumerate(ELECTRODES):
        row, bad = _bridge(signal[i].astype(np.float64), name, rate)
        nonfinite += bad
        low, high = float(row.min()), float(row.max())
        if high - low <= _ROUNDING * max(abs(low), abs(high)):
            out[i] = 0.0
            clipped.append(0.0)
            constant.append(name)
            continue
        row -= row[0]
        row = _filter(_resample(row, rate, n), sos)
        row /= _sigma(row, recorded) if preprocessing.normalize else NOMINAL_SIGMA_UV
        clip = preprocessing.clip_sigma
        clipped.append((np.count_nonzero(row > clip) + np.count_nonzero(row < -clip)) / n)
        np.clip(row, -clip, clip, out=out[i], casting="same_kind")
    notes += [f"{bad.count} non-finite samples of {bad.electrode} from {bad.first_s:g} s bridged" for bad in nonfinite]
    if constant:
        notes.append(f"constant throughout, left at 0: {', '.join(constant)}")
    return Preprocessed(signal=out, clipped=tuple(clipped), nonfinite=tuple(nonfinite), notes=tuple(notes))


def _causal(signal: npt.NDArray[np.floating], rate: float, preprocessing: Preprocessing) -> Preprocessed:
    """The whole recording through what a stream of it goes through."""
    causal = CausalPreprocessor(rate, preprocessing)
    out = np.concatenate([causal.push(signal), causal.finish()], axis=1)
    clipped = np.count_nonzero(np.abs(out) >= preprocessing.clip_sigma, axis=1) / out.shape[1]
    nonfinite = [
        NonFinite(electrode=name, first_s=float(np.argmax(bad) / rate), count=int(np.count_nonzero(bad)))
        for name, row in zip(ELECTRODES, signal, strict=True)
        if (bad := ~np.isfinite(row)).any()
    ]
    notes = [f"{bad.count} non-finite samples of {bad.electrode} from {bad.first_s:g} s held" for bad in nonfinite]
    return Preprocessed(
        signal=out, clipped=tuple(clipped.tolist()), nonfinite=tuple(nonfinite), notes=(*causal.notes, *notes)
    )


def _bridge(row: Row, electrode: str, rate: float) -> tuple[Row, list[NonFinite]]:
    """Non-finite samples located and replaced by straight lines, so that the filter does not smear them."""
    finite = np.isfinite(row)
    if finite.all():
        return row, []
    bad = np.flatnonzero(~finite)
    row[bad] = np.interp(bad, np.flatnonzero(finite), row[finite]) if finite.any() else 0.0
    return row, [NonFinite(electrode=electrode, first_s=float(bad[0] / rate), count=len(bad))]


def _resample(row: Row, rate: float, n: int) -> Row:
    """`row` at `rate` Hz to `n` samples at 256 Hz; VHQ keeps what lies just below the source's Nyquist frequency."""
    if rate == SAMPLING_RATE:
        return row
    import soxr

    # The resampler takes what lies outside for zero. The row begins at zero; behind its end the last value is held.
    tail = np.full(max(1, round(_TAIL_S * rate)), row[-1])
    resampled: Row = soxr.resample(np.concatenate([row, tail]), rate, SAMPLING_RATE, quality="VHQ")[:n]
    return resampled


def _filter(row: Row, sos: npt.NDArray[np.float64]) -> Row:
    """Causal band-pass and notch of a row that begins at zero.

    A row minus its first sample, filtered from rest, is what the row itself gives from the steady state of its first
    sample (`sosfilt_zi`): the band-pass takes a constant to zero. So there is no transient at the start.
    """
    from scipy import signal as sp

    row += IDLE_UV
    filtered: Row = sp.sosfilt(sos, row)
    return filtered


def _sigma(row: Row, recorded: npt.NDArray[np.bool_] | None) -> float:
    """Standard deviation about zero, which is where the band-pass puts the mean.

    The remainder of a mean (transients at the ends, some 1e-4 σ) is not subtracted: it would lift stretches in which
    nothing was recorded off exact zero, each electrode by another amount.
    """
    values = row if recorded is None or not recorded.any() else row[recorded]
    sigma = float(np.sqrt(np.mean(np.square(values))))
    return sigma if sigma > 0 else 1.0


def _recorded(n: int, gaps: Iterable[Gap]) -> npt.NDArray[np.bool_] | None:
    """(n,) True where something was recorded; None when that is everywhere."""
    recorded = None
    for gap in gaps:
        if recorded is None:
            recorded = np.ones(n, dtype=np.bool_)
        recorded[round(gap.start_s * SAMPLING_RATE) : round(gap.stop_s * SAMPLING_RATE)] = False
    return recorded
