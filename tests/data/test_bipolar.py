from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainbrr.config import ELECTRODES
from brainbrr.data.bipolar import chains, potentials_from
from brainbrr.data.edf import read_recording
from brainbrr.data.errors import RecordingError
from brainbrr.data.montage import to_electrodes

# CHB-MIT's montage: the double banana, with a chain around the back of the head twice and the midline by itself.
CHBMIT = (
    "FP1-F7", "F7-T7", "T7-P7", "P7-O1", "FP1-F3", "F3-C3", "C3-P3", "P3-O1", "FP2-F4", "F4-C4", "C4-P4", "P4-O2",
    "FP2-F8", "F8-T8", "T8-P8-0", "P8-O2", "FZ-CZ", "CZ-PZ", "P7-T7", "T7-FT9", "FT9-FT10", "FT10-T8", "T8-P8-1",
)  # fmt: skip
MIDLINE = ("Fz", "Cz", "Pz")


def test_the_chains_of_a_montage() -> None:
    lateral, midline = sorted(chains(CHBMIT), key=len, reverse=True)
    assert set(midline) == set(MIDLINE)
    assert set(lateral) == (set(ELECTRODES) - set(MIDLINE)) | {"FT9", "FT10"}
    assert {len(chain) for chain in chains(CHBMIT[:16])} == {8}  # the two sides do not touch without the back chain


@given(st.lists(st.floats(-1e3, 1e3), min_size=21, max_size=21))
def test_potentials_are_right_but_for_a_constant_a_chain(values: list[float]) -> None:
    sites = [*ELECTRODES, "FT9", "FT10"]
    truth = dict(zip(sites, values, strict=True))
    alias = {"T7": "T3", "T8": "T4", "P7": "T5", "P8": "T6"} | {name.upper(): name for name in ELECTRODES}

    def potential(site: str) -> float:
        return truth[alias.get(site, site)]

    derived = np.array([potential(pair.split("-")[0]) - potential(pair.split("-")[1]) for pair in CHBMIT])
    weights = potentials_from(CHBMIT)
    assert weights is not None
    found = dict(zip(ELECTRODES, weights @ derived, strict=True))
    for chain in chains(CHBMIT):
        present = [site for site in chain if site in found]
        mean = np.mean([truth[site] for site in chain])
        assert [found[site] for site in present] == pytest.approx([truth[s] - mean for s in present], abs=1e-8)


def test_an_electrode_in_no_derivation() -> None:
    assert potentials_from([label for label in CHBMIT if "PZ" not in label]) is None


def test_only_who_asks_for_an_estimate_gets_one(write_edf: Callable[..., Path]) -> None:
    generator = np.random.default_rng(0)
    true = {site: generator.integers(-900, 900, 512) for site in {s for p in CHBMIT for s in p.split("-")[:2]}}
    pairs = {label: true[label.split("-")[0]] - true[label.split("-")[1]] for label in CHBMIT}
    path = write_edf({label: x.astype(np.int16) for label, x in pairs.items()} | {"ECG": np.zeros(512, np.int16)})
    with pytest.raises(RecordingError, match="a bipolar montage"):
        read_recording(path)
    recording = read_recording(path, derivations=True)
    assert recording.labels == tuple(CHBMIT)
    with pytest.raises(RecordingError, match="a bipolar montage"):
        to_electrodes(recording)
    estimated = to_electrodes(recording, estimate=True)
    assert estimated.signal.shape == (19, 512)
    assert estimated.notes[0].startswith("bipolar montage: electrodes estimated, each chain against its own mean (")
    fp1, f3 = (estimated.signal[ELECTRODES.index(name)] for name in ("Fp1", "F3"))
    assert np.allclose(fp1 - f3, recording.signal[4], atol=0.1)  # a step of the converter, and no more
