"""Why samples are read through edfio: what it and mne make of the shared recordings.

Should a release change any of this, the comparison in `brainbrr/data/edf.py` is out of date.
"""

from __future__ import annotations

import time
import warnings
from pathlib import Path

import edfio
import mne
import numpy as np
import pytest

from brainbrr.data.edf import read_recording


def with_edfio(path: Path) -> edfio.Edf:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return edfio.read_edf(path, header_encoding="latin-1")


def with_mne(path: Path) -> mne.io.BaseRaw:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return mne.io.read_raw_edf(path, preload=True, verbose="ERROR")


def test_rates_of_their_own(shared: Path) -> None:
    path = shared / "odd/test_uneven_samp.edf"
    assert sorted(signal.sampling_frequency for signal in with_edfio(path).signals) == [12.8, 100]
    assert with_mne(path).get_data().shape == (2, 11000)  # the slow signal is brought to 100 Hz


def test_annotations_in_time_behind_a_gap(shared: Path) -> None:
    path = shared / "odd_synthetic/edfplus_d_gap100s_after15.edf"
    assert [note.onset for note in with_edfio(path).annotations] == [125]
    assert len(with_mne(path).annotations) == 0  # beyond the 30 s that it takes the file to have
    assert with_edfio(path).duration == with_mne(path).times.size / 256 == 30  # neither keeps the time
    assert read_recording(path).duration_s == 130


@pytest.mark.parametrize("name", ["real_eeg/adult_rest_250Hz.edf", "composite/iiic_composite_dev.edf"])
def test_cpu(shared: Path, name: str) -> None:
    """CPU of digital samples to µV: edfio below mne by a margin that noise does not reach (4 to 12 times, measured)."""

    def cost(read: object) -> float:
        began = time.process_time()
        read(shared / name)  # type: ignore[operator]
        return time.process_time() - began

    def through_edfio(path: Path) -> None:
        for signal in with_edfio(path).signals:
            signal.digital.astype(np.float32)

    assert min(cost(through_edfio) for _ in range(5)) < min(cost(with_mne) for _ in range(5))
