"""From signals by name to the 19 electrodes in their order."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path

import mne
import numpy as np
import pytest

from brainbrr.config import ELECTRODES
from brainbrr.data.edf import Recording
from brainbrr.data.errors import RecordingError
from brainbrr.data.montage import spline_weights, to_electrodes


def recording(labels: list[str], seed: int = 0, n: int = 300) -> Recording:
    generator = np.random.default_rng(seed)
    return Recording(
        path=Path("x.edf"),
        signal=(generator.standard_normal((len(labels), n)) * 20).astype(np.float32),
        labels=tuple(labels),
        rate=256.0,
        start=None,
        gaps=(),
        annotations=(),
        notes=(),
        found=(*labels, "EKG"),
    )


def test_order_and_data_follow_the_name() -> None:
    names = list(ELECTRODES)
    np.random.default_rng(1).shuffle(names)
    shuffled = recording([f"EEG {name.upper()}-LE" for name in names])
    montaged = to_electrodes(shuffled)
    for i, name in enumerate(ELECTRODES):
        np.testing.assert_array_equal(montaged.signal[i], shuffled.signal[names.index(name)])
    assert montaged.signal.dtype == np.float32
    assert (montaged.interpolated, montaged.notes) == ((), ())


@pytest.mark.parametrize("missing", [("Fz",), ("Pz",), ("Fz", "Pz")])
def test_midline_is_interpolated_as_mne_does_it(missing: tuple[str, ...]) -> None:
    kept = [name for name in ELECTRODES if name not in missing]
    source = recording(kept)
    montaged = to_electrodes(source)
    assert montaged.interpolated == missing
    assert montaged.notes == (f"{' and '.join(missing)} interpolated by spherical splines",)
    info = mne.create_info(list(ELECTRODES), 256.0, "eeg", verbose="ERROR")
    data = np.zeros((19, source.signal.shape[1]))
    data[[ELECTRODES.index(name) for name in kept]] = source.signal * 1e-6
    raw = mne.io.RawArray(data, info, verbose="ERROR")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the template's name changes in mne 1.14
        raw.set_montage("standard_1020", verbose="ERROR")
    raw.info["bads"] = list(missing)
    raw.interpolate_bads(verbose="ERROR")
    expected = raw.get_data(picks=list(missing)) * 1e6
    np.testing.assert_allclose(montaged.signal[[ELECTRODES.index(m) for m in missing]], expected, atol=1e-4)


def test_a_common_potential_is_interpolated_to_itself() -> None:
    for missing in (("Fz",), ("Pz",), ("Fz", "Pz")):
        np.testing.assert_allclose(spline_weights(missing).sum(axis=1), 1.0, atol=1e-6)


def test_any_other_missing_electrode_is_an_error() -> None:
    kept = [name for name in ELECTRODES if name not in ("Fz", "C3", "O2")]
    with pytest.raises(RecordingError) as error:
        to_electrodes(recording(kept))
    message = str(error.value)
    assert message.startswith("x.edf: no signal for C3, Fz, O2 among Fp1, F3, ")
    assert "EKG" in message
    assert "expected the 19 electrodes" in message
    assert "\n" not in message


def test_two_signals_of_one_electrode() -> None:
    source = recording([*ELECTRODES, "T7"])
    with pytest.raises(RecordingError, match=r"2 different signals for T3 \('T3', 'T7'\); expected one"):
        to_electrodes(source)
    source.signal[19] = source.signal[ELECTRODES.index("T3")]
    montaged = to_electrodes(source)
    assert montaged.notes == ("2 identical signals for T3 ('T3', 'T7'); the first is used",)
    np.testing.assert_array_equal(montaged.signal, source.signal[:19])


def test_mixed_references_are_noted() -> None:
    source = recording(["Fp1-A1", *[f"{name}-A2" for name in ELECTRODES[1:]]])
    assert to_electrodes(source).notes == ("electrodes against different references: A1, A2",)


def test_nothing_else_is_altered() -> None:
    source = recording(list(ELECTRODES))
    before = source.signal.copy()
    montaged = to_electrodes(dataclasses.replace(source, found=source.labels))
    montaged.signal[:] = 0
    np.testing.assert_array_equal(source.signal, before)
