"""Reading: units, calibration, rates, and the axis of true time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from brainbrr.config import ELECTRODES
from brainbrr.data.edf import Gap, read_recording
from brainbrr.data.errors import RecordingError

Write = Callable[..., Path]
Eeg = Callable[..., dict]


def test_samples_arrive_in_microvolts_as_float32(write_edf: Write, eeg: Eeg) -> None:
    signals = eeg(3)
    recording = read_recording(write_edf(signals))
    assert recording.signal.dtype == np.float32
    assert recording.labels == tuple(signals)
    assert recording.rate == 256
    assert recording.notes == ()
    expected = np.stack(list(signals.values())) * 0.1
    np.testing.assert_allclose(recording.signal, expected, atol=1e-3)


@pytest.mark.parametrize(
    ("unit", "factor"), [("uV", 1), ("µV", 1), ("UV", 1), ("mV", 1e3), ("V", 1e6), ("nV", 1e-3), ("Âµ V", None)]
)
def test_units_are_honoured(write_edf: Write, eeg: Eeg, unit: str, factor: float | None) -> None:
    path = write_edf(eeg(1), unit=unit)
    if factor is None:
        with pytest.raises(RecordingError, match="physical dimension"):
            read_recording(path)
        return
    plain = read_recording(write_edf(eeg(1), name="plain.edf")).signal
    np.testing.assert_allclose(read_recording(path).signal, plain * factor, rtol=1e-6, atol=1e-9)


def test_a_unit_of_another_signal_does_not_matter(write_edf: Write, eeg: Eeg) -> None:
    signals = eeg(1) | {"PULSE": np.arange(256, dtype=np.int16)}
    unit = dict.fromkeys(signals, "uV") | {"PULSE": "bpm"}
    recording = read_recording(write_edf(signals, unit=unit))
    assert recording.signal.shape == (19, 256)
    assert recording.found[-1] == "PULSE"


def test_an_inverted_range_inverts(write_edf: Write, eeg: Eeg) -> None:
    plain = read_recording(write_edf(eeg(1))).signal
    inverted = read_recording(write_edf(eeg(1), name="b.edf", physical=(3276.7, -3276.8))).signal
    np.testing.assert_allclose(inverted, -plain, atol=0.11)  # one step, where the range is not symmetric
    doubly = read_recording(write_edf(eeg(1), "c.edf", physical=(3276.7, -3276.8), digital=(32767, -32768))).signal
    np.testing.assert_allclose(doubly, plain, atol=1e-3)


@pytest.mark.parametrize(("record_s", "samples", "rate"), [(0.5, 128, 256), (9.59375, 1228, 128), (10, 2000, 200)])
def test_any_length_of_record(write_edf: Write, eeg: Eeg, record_s: float, samples: int, rate: float) -> None:
    signals = {label: values[: 3 * samples] for label, values in eeg(30).items()}
    recording = read_recording(write_edf(signals, samples=samples, record_s=record_s))
    assert recording.rate == rate
    assert recording.duration_s == pytest.approx(3 * record_s)
    np.testing.assert_allclose(recording.signal[3], signals["EEG P3-REF"] * 0.1, atol=1e-3)


def test_other_signals_may_have_other_rates(write_edf: Write, eeg: Eeg) -> None:
    signals = eeg(3) | {"IBI": np.arange(3, dtype=np.int16)}
    recording = read_recording(write_edf(signals, samples=dict.fromkeys(signals, 256) | {"IBI": 1}))
    assert recording.rate == 256
    assert recording.labels == tuple(eeg(3))
    np.testing.assert_allclose(recording.signal[18], signals["EEG O2-REF"] * 0.1, atol=1e-3)


def test_electrodes_at_two_rates_are_refused_by_name(write_edf: Write, eeg: Eeg) -> None:
    signals = eeg(3)
    signals["EEG CZ-REF"] = signals["EEG CZ-REF"][::2]
    with pytest.raises(
        RecordingError, match=r"at 2 rates \(128 Hz: EEG CZ-REF; 256 Hz: EEG FP1-REF.*expected one rate"
    ):
        read_recording(write_edf(signals, samples=dict.fromkeys(signals, 256) | {"EEG CZ-REF": 128}))


def test_no_electrode_at_all(write_edf: Write) -> None:
    flow = {"FLOW": np.zeros(256, dtype=np.int16), "EEG F1-REF": np.zeros(256, dtype=np.int16)}
    with pytest.raises(RecordingError, match=r"no signal for Fp1, .* among FLOW, EEG F1-REF; expected the 19"):
        read_recording(write_edf(flow))


def test_a_bipolar_montage_is_called_that(write_edf: Write) -> None:
    pairs = {label: np.zeros(256, dtype=np.int16) for label in ("FP1-F7", "F7-T7", "T8-FT10", "EEG FZ-CZ", "ECG")}
    with pytest.raises(RecordingError, match=r"a bipolar montage \(FP1-F7, .*expected the 19 .* common reference"):
        read_recording(write_edf(pairs))


class TestTime:
    """EDF+: onsets of records decide where samples lie."""

    def test_a_gap_keeps_true_time(self, write_edf: Write, eeg: Eeg) -> None:
        signals = eeg(6)
        onsets = [0.0, 1.0, 2.0, 12.0, 13.0, 20.5]
        path = write_edf(
            signals, reserved="EDF+D", onsets=onsets, notes={3: "+12.5\x152\x14seizure\x14\0", 5: "+99\x14late\x14\0"}
        )
        recording = read_recording(path)
        assert recording.gaps == (Gap(start_s=3, stop_s=12), Gap(start_s=14, stop_s=20.5))
        assert recording.duration_s == 21.5
        source = signals["EEG C4-REF"] * 0.1
        row = recording.signal[recording.labels.index("EEG C4-REF")]
        for record, onset in enumerate(onsets):
            at = round(onset * 256)
            np.testing.assert_allclose(row[at : at + 256], source[record * 256 : (record + 1) * 256], atol=1e-3)
        assert np.ptp(row[3 * 256 : 12 * 256]) == 0
        assert row[4 * 256] == pytest.approx(np.median(source), abs=1e-3)
        seizure, late = recording.annotations
        assert (seizure.onset_s, seizure.duration_s, seizure.text, seizure.past_end) == (12.5, 2, "seizure", False)
        assert (late.onset_s, late.duration_s, late.past_end) == (99, None, True)
        assert recording.notes == (
            "2 gap(s), 15.5 s in all; time is kept, a gap holds no signal",
            "1 annotation(s) lie past the end of the signal at 21.5 s, the last at 99 s; kept",
        )

    def test_time_begins_with_the_first_sample(self, write_edf: Write, eeg: Eeg) -> None:
        onsets = [0.25, 1.25, 2.25]
        path = write_edf(eeg(3), reserved="EDF+C", onsets=onsets, notes={1: "+1.75\x14eyes closed\x14\0"})
        recording = read_recording(path)
        assert recording.gaps == ()
        assert [note.onset_s for note in recording.annotations] == [1.5]
        assert recording.start is not None
        assert recording.start.isoformat() == "2020-02-01T03:04:05.250000"

    def test_jitter_below_a_sample_is_no_gap_and_drift_does_not_add_up(self, write_edf: Write, eeg: Eeg) -> None:
        jitter = read_recording(write_edf(eeg(3), reserved="EDF+C", onsets=[0, 1.003, 1.998]))
        assert (jitter.gaps, jitter.duration_s) == ((), 3)
        drift = read_recording(write_edf(eeg(40), "b.edf", reserved="EDF+D", onsets=[1.002 * i for i in range(40)]))
        assert drift.duration_s == pytest.approx(40 + 39 * 0.002, abs=1.5 / 256)
        assert sum(gap.stop_s - gap.start_s for gap in drift.gaps) == pytest.approx(39 * 0.002, abs=1.5 / 256)

    def test_a_discontinuous_file_that_does_not_say_when_is_refused(self, write_edf: Write, eeg: Eeg) -> None:
        path = write_edf(eeg(3), reserved="EDF+D", onsets=[0, None, 7])
        with pytest.raises(RecordingError, match=r"1 of 3 data records do not say when they began; expected"):
            read_recording(path)
        with pytest.raises(RecordingError, match=r"3 of 3 data records do not say"):
            read_recording(write_edf(eeg(3), "b.edf", reserved="EDF+D"))

    def test_records_that_overlap_are_refused(self, write_edf: Write, eeg: Eeg) -> None:
        path = write_edf(eeg(3), reserved="EDF+D", onsets=[0, 10, 5])
        with pytest.raises(RecordingError, match=r"data record 2 begins at 5 s, the one before at 10 s .*expected"):
            read_recording(path)

    @pytest.mark.parametrize(
        ("onsets", "note"), [([0, None, 2], "1 data records do not say"), ([0, 0, 0], "data record 1 begins at 0 s")]
    )
    def test_a_continuous_file_with_broken_times_is_read_and_says_so(
        self, write_edf: Write, eeg: Eeg, onsets: list[float], note: str
    ) -> None:
        recording = read_recording(write_edf(eeg(3), reserved="EDF+C", onsets=onsets))
        assert recording.duration_s == 3
        assert note in recording.notes[0]
        assert "taken as continuous" in recording.notes[0]

    def test_a_gap_of_days_is_refused(self, write_edf: Write, eeg: Eeg) -> None:
        path = write_edf(eeg(2), reserved="EDF+D", onsets=[0, 300000])
        with pytest.raises(RecordingError, match=r"1 gap\(s\), 83\.3 h in all; expected at most 24 h: split"):
            read_recording(path)

    def test_unparsable_annotations_are_counted(self, write_edf: Write, eeg: Eeg) -> None:
        path = write_edf(eeg(2), reserved="EDF+C", onsets=[0, 1], notes={0: "soon\x14eyes\x14\0+0.5\x14µ\x14\0"})
        recording = read_recording(path)
        assert [note.text for note in recording.annotations] == ["µ"]
        assert recording.notes == ("1 annotation(s) could not be parsed and were left out",)


def test_electrodes_of_the_contract_in_any_dress(write_edf: Write, eeg: Eeg) -> None:
    names = [name.lower() for name in reversed(ELECTRODES)]
    recording = read_recording(write_edf(eeg(1, pattern="{} - Avg", names=names)))
    assert len(recording.labels) == 19
