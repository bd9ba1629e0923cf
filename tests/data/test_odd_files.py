"""Files as they come from other hospitals: read right, or refused or flagged in one line that says what to do.

Written by edfio where it will, byte by byte where it will not, from one signal whose µV are known.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from brainbrr.cli import cli
from brainbrr.config import ELECTRODES, Preprocessing
from brainbrr.data.edf import read_recording
from brainbrr.data.errors import RecordingError
from brainbrr.data.formats import read_labels
from brainbrr.data.montage import Montaged, to_electrodes
from brainbrr.data.preprocess import preprocess

STEP_UV = 0.1  # of the digital signals that `eeg` gives


def of(path: Path) -> Montaged:
    return to_electrodes(read_recording(path))


def microvolts(signals: dict[str, np.ndarray], pattern: str = "EEG {}-REF") -> np.ndarray:
    return np.stack([signals[pattern.format(name.upper())] for name in ELECTRODES]) * STEP_UV


def refusal(path: Path) -> str:
    with pytest.raises(RecordingError) as error:
        of(path)
    message = str(error.value)
    assert message.startswith(f"{path}: ") and "expected" in message and "\n" not in message
    return message


def test_a_thousand_hertz_with_shuffled_channels(write_edf: Any, eeg: Any) -> None:
    signals = eeg(12, rate=1000)
    labels = list(signals)
    np.random.default_rng(3).shuffle(labels)
    others = {"EKG1": np.zeros(12_000, dtype=np.int16), "PHOTIC-REF": np.ones(12_000, dtype=np.int16)}
    mixed = {**dict(list(others.items())[:1]), **{label: signals[label] for label in labels}, **others}
    path = write_edf(mixed, samples=1000)
    np.testing.assert_allclose(of(path).signal, microvolts(signals), atol=0.01)
    prepared = preprocess(of(path).signal, 1000.0, Preprocessing())
    assert prepared.signal.shape == (19, 12 * 256) and np.isfinite(prepared.signal).all()


def test_a_thousand_hertz_keep_their_place_in_time(write_edf: Any, eeg: Any) -> None:
    signals = eeg(12, rate=1000)
    signals["EEG CZ-REF"][6000:6020] += 20_000
    prepared = preprocess(of(write_edf(signals, samples=1000)).signal, 1000.0, Preprocessing())
    assert np.abs(prepared.signal[ELECTRODES.index("Cz")]).argmax() / 256 == pytest.approx(6.01, abs=0.03)


@pytest.mark.parametrize(("unit", "factor"), [("mV", 1e-3), ("V", 1e-6), ("nV", 1e3), ("µV", 1.0), ("uV", 1.0)])
def test_units_are_honoured(unit: str, factor: float, write_edf: Any, eeg: Any) -> None:
    signals = eeg(5)
    low, high = (f"{end * factor:.8f}"[:8] for end in (-3276.8, 3276.7))  # eight characters: what a header has
    path = write_edf(signals, unit=unit, physical=(low, high))
    step = (float(high) - float(low)) / factor / 65535
    expected = float(low) / factor + step * (microvolts(signals) / STEP_UV + 32768)
    np.testing.assert_allclose(of(path).signal, expected, rtol=1e-5, atol=0.01)


def test_millivolts_that_edfio_wrote(tmp_path: Path, eeg: Any) -> None:
    import edfio

    signals = eeg(5)
    path = tmp_path / "mv.edf"
    edfio.Edf(
        [
            edfio.EdfSignal(row * STEP_UV / 1000, 256, label=label, physical_dimension="mV", physical_range=(-3.3, 3.3))
            for label, row in signals.items()
        ]
    ).write(path)
    np.testing.assert_allclose(of(path).signal, microvolts(signals), atol=0.11)


@pytest.mark.parametrize(
    "calibration",
    [{"digital": (32767, -32768), "physical": (-3276.7, 3276.8)}, {"physical": (3276.8, -3276.7)}],
    ids=["digital", "physical"],
)
def test_polarity_is_that_of_the_calibration(calibration: dict[str, Any], write_edf: Any, eeg: Any) -> None:
    """A range that runs downwards turns the signal over, and that is what its writer meant."""
    signals = eeg(5)
    np.testing.assert_allclose(of(write_edf(signals, **calibration)).signal, -microvolts(signals), atol=0.01)


def test_one_electrode_turned_over_by_its_calibration_alone(tmp_path: Path, eeg: Any) -> None:
    """edfio writes such a file; only that electrode's samples are negated on disk."""
    import edfio

    signals = eeg(5)
    path = tmp_path / "one.edf"
    whole = [
        edfio.EdfSignal(
            row * STEP_UV,
            256,
            label=label,
            physical_dimension="uV",
            physical_range=(-3276.8, 3276.7),
            digital_range=(-32768, 32767),
        )
        for label, row in signals.items()
    ]
    edfio.Edf(whole).write(path)
    raw = bytearray(path.read_bytes())
    n, place = len(signals), list(signals).index("EEG C3-REF")
    for column, value in ((256 + n * 104 + place * 8, b"3276.7  "), (256 + n * 112 + place * 8, b"-3276.8 ")):
        raw[column : column + 8] = value
    path.write_bytes(bytes(raw))
    expected = microvolts(signals)
    expected[ELECTRODES.index("C3")] *= -1
    np.testing.assert_allclose(of(path).signal, expected, atol=0.11)


@pytest.mark.parametrize("seconds", [10, 7.5])
def test_records_of_half_a_second(seconds: float, write_edf: Any, eeg: Any) -> None:
    signals = eeg(seconds)
    path = write_edf(signals, samples=128, record_s=0.5)
    recording = read_recording(path)
    assert (recording.duration_s, recording.rate, recording.notes) == (seconds, 256, ())
    np.testing.assert_allclose(of(path).signal, microvolts(signals), atol=0.01)


def test_a_recording_of_half_a_second(write_edf: Any, eeg: Any) -> None:
    path = write_edf(eeg(0.5), samples=128, record_s=0.5)
    prepared = preprocess(of(path).signal, 256.0, Preprocessing())
    assert prepared.signal.shape == (19, 128) and np.isfinite(prepared.signal).all()
    result = CliRunner().invoke(cli, ["inspect", str(path)], standalone_mode=False)
    assert result.return_value == 0 and "0.5 s at 256 Hz" in result.stdout


def test_half_second_records_with_a_gap(write_edf: Any, eeg: Any) -> None:
    onsets = [0.5 * k + (30 if k >= 10 else 0) for k in range(20)]
    path = write_edf(eeg(10), samples=128, record_s=0.5, reserved="EDF+D", onsets=onsets)
    recording = read_recording(path)
    assert recording.duration_s == 40 and (recording.gaps[0].start_s, recording.gaps[0].stop_s) == (5, 35)


@pytest.mark.parametrize("unit", ["uV", "µV"])
def test_a_file_that_went_through_utf8_is_refused_by_that_name(unit: str, write_edf: Any, eeg: Any) -> None:
    """With a µ in its header every field behind the first is shifted, too."""
    path = write_edf(eeg(5), unit=unit)
    path.write_bytes(path.read_bytes().decode("latin-1").encode("utf-8"))
    message = refusal(path)
    assert "converted to UTF-8 text on its way here" in message and "copy the original as binary" in message


def test_a_file_whose_high_bytes_were_replaced_is_refused(write_edf: Any, eeg: Any) -> None:
    """As an editor leaves it that does not know a byte."""
    path = write_edf(eeg(5))
    path.write_bytes(b"".join(b"\xef\xbf\xbd" if byte >= 0x80 else bytes([byte]) for byte in path.read_bytes()))
    assert "UTF-8" in refusal(path)


def test_labels_with_umlauts_in_either_encoding_do_not_stop_the_reading(write_edf: Any, eeg: Any) -> None:
    signals = eeg(5)
    extra = np.zeros(5 * 256, dtype=np.int16)
    for label in ("Stimulus für P3", "Stimulus für P3".encode().decode("latin-1")):
        np.testing.assert_allclose(of(write_edf({label: extra, **signals})).signal, microvolts(signals), atol=0.01)


def test_mangled_electrode_labels_are_read_where_the_electrode_is_still_said(write_edf: Any, eeg: Any) -> None:
    """No-break spaces, typographic dashes and byte-order marks, each as one character and as UTF-8's several."""
    signals = eeg(5)
    for old, new in ((" ", "\u00a0"), ("-", "\u2013"), ("-", "\u2212"), ("EEG", "\ufeffEEG"), (" ", "\ufffd")):
        as_utf8 = {label.replace(old, new).encode().decode("latin-1"): row for label, row in signals.items()}
        np.testing.assert_allclose(of(write_edf(as_utf8)).signal, microvolts(signals), atol=0.01)
    latin = {label.replace(" ", "\u00a0"): row for label, row in signals.items()}
    np.testing.assert_allclose(of(write_edf(latin)).signal, microvolts(signals), atol=0.01)


def test_bipolar_only(write_edf: Any, eeg: Any) -> None:
    pairs = ["FP1-F7", "F7-T3", "T3-T5", "T5-O1", "FP1-F3", "F3-C3", "C3-P3", "P3-O1", "FZ-CZ", "CZ-PZ"]
    rows = list(eeg(5).values())
    message = refusal(write_edf(dict(zip(pairs, rows, strict=False))))
    assert "bipolar montage (FP1-F7, F7-T3" in message and "export the recording referentially" in message


def test_bipolar_as_a_command_sees_it(write_edf: Any, eeg: Any) -> None:
    path = write_edf({"FP1-F7": eeg(5)["EEG FP1-REF"]})
    result = CliRunner().invoke(cli, ["inspect", str(path)], standalone_mode=False)
    assert isinstance(result.exception, RecordingError) and str(path) in str(result.exception)


def test_annotations_past_the_end_are_kept_and_flagged(write_edf: Any, eeg: Any) -> None:
    notes = {0: "+3\x152\x14seizure\x14\x00+18000\x1510\x14seizure\x14\x00"}
    path = write_edf(eeg(10), reserved="EDF+C", onsets=[float(k) for k in range(10)], notes=notes)
    recording = read_recording(path)
    assert [(note.onset_s, note.past_end) for note in recording.annotations] == [(3, False), (18000, True)]
    (said,) = recording.notes
    assert said == "1 annotation(s) lie past the end of the signal at 10 s, the last at 18000 s; kept"
    result = CliRunner().invoke(cli, ["inspect", str(path)], standalone_mode=False)
    assert f"note     {said}" in result.stdout
    assert [(event.start_s, event.stop_s) for event in read_labels(path) or ()] == [(3, 5), (18000, 18010)]


@pytest.mark.parametrize(("sign", "how"), [(-1, "inverted"), (1, "identical")])
def test_c3_that_is_c4(sign: int, how: str, write_edf: Any, eeg: Any) -> None:
    signals = eeg(20)
    signals["EEG C3-REF"] = (sign * signals["EEG C4-REF"]).astype(np.int16)
    path = write_edf(signals)
    assert of(path).signal.shape == (19, 20 * 256)
    result = CliRunner().invoke(cli, ["inspect", str(path)], standalone_mode=False)
    assert result.return_value == 1
    first, *lines = result.stdout.splitlines()
    assert first.startswith(path.name)
    (line,) = [line for line in lines if line.startswith("duplicated")]
    assert "C3, C4" in line and f"({how})" in line


def test_c3_that_is_minus_c4_up_to_the_amplifiers_offset(write_edf: Any, eeg: Any) -> None:
    signals = eeg(20)
    signals["EEG C3-REF"] = (-signals["EEG C4-REF"] + 137).astype(np.int16)
    result = CliRunner().invoke(cli, ["inspect", str(write_edf(signals))], standalone_mode=False)
    assert "duplicated" in result.stdout and "(inverted)" in result.stdout


def test_c3_that_is_minus_c4_up_to_the_rounding_of_a_coarse_converter(write_edf: Any, eeg: Any) -> None:
    """Twelve bits over ±200 µV: zero lies between two steps, so that x and -x round apart."""
    coarse = {label: (row.astype(np.int64) * 2047 // 2000).clip(-2048, 2047) for label, row in eeg(20).items()}
    coarse["EEG C3-REF"] = -1 - coarse["EEG C4-REF"] + (np.arange(20 * 256) % 2)
    signals = {label: row.clip(-2048, 2047).astype(np.int16) for label, row in coarse.items()}
    path = write_edf(signals, physical=(-200, 200), digital=(-2048, 2047))
    result = CliRunner().invoke(cli, ["inspect", str(path)], standalone_mode=False)
    lines = [line for line in result.stdout.splitlines() if line.startswith("duplicated")]
    assert len(lines) == 1 and "C3, C4" in lines[0] and "(inverted)" in lines[0]
