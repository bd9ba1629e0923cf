"""From the signals of a recording to the 19 electrodes in the order of `config.ELECTRODES`."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import numpy.typing as npt

from brainbrr.config import ELECTRODES
from brainbrr.data.bipolar import chains, potentials_from
from brainbrr.data.edf import Recording
from brainbrr.data.electrodes import describe_lack, electrode_of, reference_of
from brainbrr.data.errors import RecordingError

INTERPOLABLE = ("Fz", "Pz")  # the two that a noticeable share of clinical recordings lacks, inside the others


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Montaged:
    """`signal`: (19, N) float32 µV in the order of `config.ELECTRODES`; `interpolated`: computed electrodes."""

    signal: npt.NDArray[np.float32]
    interpolated: tuple[str, ...]
    notes: tuple[str, ...]


def to_electrodes(recording: Recording, *, estimate: bool = False) -> Montaged:
    """Pick the 19 electrodes by name, whatever their order; compute Fz and Pz by spherical splines where missing.

    With `estimate`, the electrodes of a bipolar montage are estimated (see `bipolar`), and a note says so. Raises
    RecordingError for any other missing electrode and for two different signals of one electrode.
    """
    rows: dict[str, list[int]] = {}
    for row, label in enumerate(recording.labels):
        electrode = electrode_of(label)
        if electrode is not None:
            rows.setdefault(electrode, []).append(row)
    missing = tuple(name for name in ELECTRODES if name not in rows)
    if estimate and not rows and (weights := potentials_from(recording.labels)) is not None:
        return _estimated(recording, weights)
    if set(missing) - set(INTERPOLABLE):
        raise RecordingError(f"{recording.path}: {describe_lack(missing, recording.found)}")
    notes = [note for name, several in rows.items() if (note := _settle(recording, name, several))]
    references = sorted({reference_of(recording.labels[several[0]]) or "none" for several in rows.values()})
    if len(references) > 1:
        notes.append(f"electrodes against different references: {', '.join(references)}")
    signal = np.empty((len(ELECTRODES), recording.signal.shape[1]), dtype=np.float32)
    present = [i for i, name in enumerate(ELECTRODES) if name in rows]
    for i in present:
        signal[i] = recording.signal[rows[ELECTRODES[i]][0]]
    if missing:
        _interpolate(signal, present, missing)
        notes.append(f"{' and '.join(missing)} interpolated by spherical splines")
    return Montaged(signal=signal, interpolated=missing, notes=tuple(notes))


def _estimated(recording: Recording, weights: npt.NDArray[np.float64]) -> Montaged:
    groups = "; ".join(", ".join(chain) for chain in chains(recording.labels))
    note = f"bipolar montage: electrodes estimated, each chain against its own mean ({groups}); expect fewer detections"
    signal = (weights @ recording.signal).astype(np.float32)
    return Montaged(signal=signal, interpolated=(), notes=(note,))


def _settle(recording: Recording, electrode: str, rows: list[int]) -> str | None:
    """A note when one electrode has several identical signals, None when it has one."""
    if len(rows) == 1:
        return None
    labels = ", ".join(repr(recording.labels[row]) for row in rows)
    if any(not np.array_equal(recording.signal[rows[0]], recording.signal[row]) for row in rows[1:]):
        raise RecordingError(
            f"{recording.path}: {len(rows)} different signals for {electrode} ({labels}); expected one: "
            "rename or remove the others"
        )
    return f"{len(rows)} identical signals for {electrode} ({labels}); the first is used"


def _interpolate(signal: npt.NDArray[np.float32], present: list[int], missing: tuple[str, ...]) -> None:
    weights = spline_weights(missing)
    block = 1 << 18  # samples at a time, so that float64 copies of a day's recording stay small
    for start in range(0, signal.shape[1], block):
        piece = signal[present, start : start + block].astype(np.float64)
        for row, name in enumerate(missing):
            # Summed in one order, not by a product of matrices: its order depends on how many samples come at once.
            signal[ELECTRODES.index(name), start : start + block] = sum(
                weight * values for weight, values in zip(weights[row], piece, strict=True)
            )


@functools.cache
def spline_weights(missing: tuple[str, ...]) -> npt.NDArray[np.float64]:
    """(len(missing), 19 − len(missing)): each missing electrode as a weighted sum of those present.

    Spherical splines (Perrin 1989) on the standard 10-20 positions, by mne. The interpolation is linear, so that mne
    is asked once, about the unit vectors, and the recording itself never passes through it.
    """
    import mne

    n_present = len(ELECTRODES) - len(missing)
    info = mne.create_info(list(ELECTRODES), sfreq=256.0, ch_types="eeg", verbose="ERROR")
    units = np.zeros((len(ELECTRODES), n_present))
    units[[i for i, name in enumerate(ELECTRODES) if name not in missing], np.arange(n_present)] = 1.0
    raw = mne.io.RawArray(units, info, verbose="ERROR")
    # The template knows the old and the new names of T3, T4, T5 and T6. It is the same in every mne; its name is not.
    known = mne.channels.get_builtin_montages()
    template = "colin27_1020" if "colin27_1020" in known else "standard_1020"
    raw.set_montage(mne.channels.make_standard_montage(template), verbose="ERROR")
    raw.info["bads"] = list(missing)
    raw.interpolate_bads(reset_bads=True, mode="accurate", method={"eeg": "spline"}, verbose="ERROR")
    weights: npt.NDArray[np.float64] = raw.get_data(picks=list(missing))
    return weights
