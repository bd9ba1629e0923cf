"""The filter that every recording passes, and the constants of scale that go with it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from brainbrr.config import SAMPLING_RATE, Preprocessing

ORDER = 3  # Butterworth
NOTCH_Q = 30.0
NYQUIST_SHARE = 0.9  # the resampler's transition band lies above it
NOMINAL_SIGMA_UV = 20.0  # one σ where `normalize` is off: the usual amplitude of scalp EEG
IDLE_UV = 1e-9  # added before filtering: a filter that decays to nothing would slow down on denormal numbers


def design(rate: float, preprocessing: Preprocessing) -> tuple[npt.NDArray[np.float64], list[str]]:
    """Second-order sections (S, 6) of band-pass and notch at 256 Hz, and what the source's `rate` (Hz) took away."""
    from scipy import signal as sp

    low, high = preprocessing.bandpass
    notes = []
    reach = NYQUIST_SHARE * rate / 2
    # At 256 Hz and above the configured edge is within reach of the filter; below, nothing was recorded up there.
    if rate < SAMPLING_RATE and high > reach:
        notes.append(f"band-pass ends at {reach:g} Hz instead of {high:g} Hz: the source is sampled at {rate:g} Hz")
        high = reach
    if high <= low:
        raise ValueError(
            f"a source at {rate:g} Hz holds nothing above {reach:g} Hz; expected more than the band-pass's lower "
            f"edge of {low:g} Hz: leave the recording out"
        )
    sections = sp.butter(ORDER, (low, high), btype="bandpass", fs=SAMPLING_RATE, output="sos")
    if preprocessing.notch_freq is not None:
        if preprocessing.notch_freq < high:
            notch = sp.tf2sos(*sp.iirnotch(preprocessing.notch_freq, NOTCH_Q, fs=SAMPLING_RATE))
            sections = np.concatenate([sections, notch])
        else:
            notes.append(f"no notch at {preprocessing.notch_freq:g} Hz: the band-pass ends at {high:g} Hz")
    return np.ascontiguousarray(sections, dtype=np.float64), notes
