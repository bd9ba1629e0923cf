"""Names of electrodes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainbrr.config import ELECTRODES
from brainbrr.data.electrodes import electrode_of, is_bipolar


@pytest.mark.parametrize(
    ("label", "electrode"),
    [
        ("EEG FP1-REF", "Fp1"),
        ("EEG FP1-LE", "Fp1"),
        ("EEG FP1-AR", "Fp1"),
        ("EEG Fp1-Ref", "Fp1"),
        ("Fp1-Avg", "Fp1"),
        ("fp1", "Fp1"),
        ("EEG  fp1 - A2", "Fp1"),
        ("Fp1.", "Fp1"),
        ("T7", "T3"),
        ("EEG T8-REF", "T4"),
        ("P7-Avg", "T5"),
        ("EEG p8", "T6"),
        ("T3", "T3"),
        ("FP1-F7", None),
        ("EEG Fpz-Cz", None),
        ("EEG EKG1-REF", None),
        ("EEG 26-REF", None),
        ("REF_EEG REF_EEG", None),
        ("PHOTIC-REF", None),
        ("EEG A1-REF", None),
        ("EEG T1-LE", None),
        ("CZ2", None),
        ("", None),
    ],
)
def test_labels(label: str, electrode: str | None) -> None:
    assert electrode_of(label) == electrode


@given(
    name=st.sampled_from(ELECTRODES),
    prefix=st.sampled_from(["", "EEG ", "eeg  "]),
    suffix=st.sampled_from(["", "-REF", "-Ref", "-le", "-AR", "-Avg", " - avg"]),
    case=st.sampled_from([str.upper, str.lower, str]),
)
def test_every_way_to_write_an_electrode(name: str, prefix: str, suffix: str, case: type[str]) -> None:
    assert electrode_of(prefix + case(name) + suffix) == name


@pytest.mark.parametrize(
    ("label", "bipolar"),
    [("FP1-F7", True), ("T7-FT9", True), ("EEG Fz-Cz", True), ("EEG FP1-REF", False), ("C3-A2", False), ("C3", False)],
)
def test_bipolar(label: str, bipolar: bool) -> None:
    assert is_bipolar(label) is bipolar
