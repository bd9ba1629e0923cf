"""The files of a synthetic corpus: genuine EDF and CSV_BI, the same bytes for the same arguments, all or nothing."""

from __future__ import annotations

import hashlib
import itertools
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import edfio
import numpy as np
import pytest

from brainbrr.config import ELECTRODES
from brainbrr.data.edf import read_recording
from brainbrr.data.formats import read_labels
from brainbrr.data.montage import to_electrodes
from brainbrr.data.synthetic import KINDS, CorpusReport, SynthesisError, plan_corpus, write_corpus

SMALL: dict[str, Any] = {"patients": 1, "minutes": 1.0, "seizures": 1, "lookalikes": 1, "seed": 5}
FULL: dict[str, Any] = {
    "patients": 3, "minutes": 6.0, "seizures": 1, "lookalikes": 1, "artefacts": KINDS, "seed": 3
}  # fmt: skip


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> CorpusReport:
    return write_corpus(tmp_path_factory.mktemp("synthetic") / "corpus", **FULL)


def digests(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def signals(path: Path) -> dict[str, edfio.EdfSignal]:
    return {signal.label: signal for signal in edfio.read_edf(path).signals}


def digital(root: Path, recording: str) -> np.ndarray:
    """(19, N) int16 in the order of ELECTRODES."""
    (path,) = root.rglob(f"{recording}.edf")
    found = signals(path)
    return np.stack([found[f"EEG {name.upper()}-REF"].digital for name in ELECTRODES])


def test_same_arguments_same_bytes_and_another_seed_other_bytes(tmp_path: Path) -> None:
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        write_corpus(tmp_path / name, **{**SMALL, "seed": seed})
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    edf = [{d for p, d in digests(tmp_path / name).items() if p.endswith(".edf")} for name in ("a", "c")]
    assert len(edf[0]) == 2 and not edf[0] & edf[1]


def test_layout_is_that_of_tusz_and_splits_share_no_patient(corpus: CorpusReport) -> None:
    paths = sorted(corpus.path.rglob("*.edf"))
    assert len(paths) == corpus.recordings == 6
    patients: dict[str, set[str]] = {"train": set(), "dev": set()}
    for path in paths:
        edf, split, patient, session, montage, file = path.relative_to(corpus.path).parts
        assert (edf, session, montage) == ("edf", "s001_2020", "01_tcp_ar")
        assert file == f"{patient}_s001_t000.edf" and len(patient) == 8 and patient.islower()
        assert path.with_suffix(".csv_bi").is_file()
        patients[split].add(patient)
    assert len(patients["train"]) == len(patients["dev"]) == 3
    assert not patients["train"] & patients["dev"]


def test_other_seeds_never_reuse_a_patients_name() -> None:
    names = [p.patient for seed in range(30) for p in plan_corpus(**{**SMALL, "patients": 3, "seed": seed})]
    assert len(set(names)) == len(names)


def test_edf_has_the_labels_units_and_rate_that_it_should(corpus: CorpusReport) -> None:
    edf = edfio.read_edf(next(iter(sorted(corpus.path.rglob("*.edf")))))
    labels = [signal.label for signal in edf.signals]
    assert sorted(labels) == sorted([f"EEG {name.upper()}-REF" for name in ELECTRODES] + ["EEG EKG1-REF"])
    assert labels[:3] == ["EEG FP1-REF", "EEG FP2-REF", "EEG F3-REF"]
    assert edf.data_record_duration == 1 and edf.duration == 360
    for signal in edf.signals:
        assert signal.sampling_frequency == 256 and signal.physical_dimension == "uV"
        step = (signal.physical_max - signal.physical_min) / (signal.digital_max - signal.digital_min)
        assert step == pytest.approx(0.2)


def test_mne_reads_the_same_microvolts(corpus: CorpusReport) -> None:
    import mne

    path = max(corpus.path.rglob("*.edf"))
    raw = mne.io.read_raw_edf(path, preload=True, verbose="error")
    expected = signals(path)
    assert raw.info["sfreq"] == 256 and len(raw.ch_names) == 20
    for name in ("EEG CZ-REF", "EEG O2-REF"):
        np.testing.assert_allclose(raw.get_data(picks=[name])[0] * 1e6, expected[name].data, atol=1e-6)
        assert 8 < expected[name].data.std() < 300


def test_labels_name_the_planned_seizures_and_cover_the_recording(corpus: CorpusReport) -> None:
    for plan in plan_corpus(**FULL):
        lines = (corpus.path / f"{plan.path}.csv_bi").read_text().splitlines()
        assert lines[0] == "# version = csv_v1.0.0"
        assert lines[1] == f"# bname = {plan.name}"
        assert lines[2] == "# duration = 360.0000 secs"
        assert lines[3].startswith("# montage_file = ")
        assert lines[5] == "channel,start_time,stop_time,label,confidence"
        rows = [line.split(",") for line in lines[6:]]
        assert all(row[0] == "TERM" and row[4] == "1.0000" for row in rows)
        found = [(float(row[1]), float(row[2])) for row in rows if row[3] == "seiz"]
        assert found == [(s.start_s, s.stop_s) for s in plan.seizures]
        edges = [(float(row[1]), float(row[2])) for row in rows]
        assert edges[0][0] == 0 and edges[-1][1] == 360
        assert all(before[1] == after[0] for before, after in itertools.pairwise(edges))


def test_truth_lists_every_artefact_in_a_training_recording(corpus: CorpusReport) -> None:
    truth = json.loads((corpus.path / "artefacts.json").read_text())
    assert truth == [{**asdict(item), "electrodes": list(item.electrodes)} for item in corpus.artefacts]
    assert sorted(item["kind"] for item in truth) == sorted(KINDS)
    training = {path.stem for path in (corpus.path / "edf" / "train").rglob("*.edf")}
    assert {item["recording"] for item in truth} == training  # six artefacts over three recordings: each has some
    for item in truth:
        assert set(item) == {"recording", "kind", "start_s", "stop_s", "electrodes"}
        assert set(item["electrodes"]) <= set(ELECTRODES)


def test_no_artefacts_is_an_empty_list(tmp_path: Path) -> None:
    write_corpus(tmp_path, **SMALL)
    assert json.loads((tmp_path / "artefacts.json").read_text()) == []


def test_flat_is_exactly_constant_everywhere_and_only_then(corpus: CorpusReport) -> None:
    (flat,) = (item for item in corpus.artefacts if item.kind == "flat")
    samples = digital(corpus.path, flat.recording)
    start, stop = round(flat.start_s * 256), round(flat.stop_s * 256)
    assert (samples[:, start:stop] == samples[:, start : start + 1]).all()
    assert 40 <= flat.stop_s - flat.start_s <= 55
    assert flat.electrodes == ELECTRODES
    moves = np.abs(np.diff(samples, axis=1)).max(axis=0)
    still = np.flatnonzero(moves == 0)
    assert still.min() >= start and still.max() < stop  # nowhere else do all electrodes stand still


def test_each_artefact_is_what_its_name_says(corpus: CorpusReport) -> None:
    for item in corpus.artefacts:
        samples = digital(corpus.path, item.recording)
        rows = [ELECTRODES.index(name) for name in item.electrodes]
        start, stop = round(item.start_s * 256), round(item.stop_s * 256)
        stretch = samples[rows, start:stop] * 0.2
        if item.kind == "bridged":
            assert len(rows) == 2 and (stretch[0] == stretch[1]).all() and stretch[0].std() > 5
            assert (samples[rows[0], :start] != samples[rows[1], :start]).any()
        elif item.kind == "saturation":
            assert len(rows) == 1 and np.abs(samples[rows, start:stop]).min() == 32767
        elif item.kind == "pop":
            assert np.abs(stretch[0, :5]).mean() > 60 * samples[rows[0], :start].std() * 0.2
        elif item.kind == "calibration":
            np.testing.assert_allclose(np.abs(stretch), 50, atol=4)
            assert (np.sign(stretch[:, :128]) == 1).all() and (np.sign(stretch[:, 128:256]) == -1).all()
        elif item.kind == "mains":
            spectrum = np.abs(np.fft.rfft(stretch[:, : 256 * 20], axis=1)) ** 2
            assert (spectrum[:, 20 * 60] > 20 * spectrum[:, 20 * 55 : 20 * 59].mean(axis=1)).all()


def test_an_artefact_changes_nothing_outside_its_seconds(tmp_path: Path) -> None:
    arguments = {**SMALL, "minutes": 4.0, "splits": ("train",)}
    clean, flawed = tmp_path / "clean", tmp_path / "flawed"
    write_corpus(clean, **arguments)
    (flat,) = write_corpus(flawed, **arguments, artefacts=("flat",)).artefacts
    differs = (digital(clean, flat.recording) != digital(flawed, flat.recording)).any(axis=0)
    changed = np.flatnonzero(differs) / 256
    assert changed.min() >= flat.start_s and changed.max() < flat.stop_s


def test_more_patients_leave_the_earlier_ones_as_they_were() -> None:
    few = plan_corpus(**SMALL)
    many = plan_corpus(**{**SMALL, "patients": 4})
    assert set(few) < set(many)


def test_report_counts_what_was_written(corpus: CorpusReport) -> None:
    assert (corpus.seizures, corpus.lookalikes, corpus.shortened) == (6, 6, 0)
    assert corpus.hours == pytest.approx(0.6)
    assert json.loads(json.dumps(corpus.to_dict()))["path"] == str(corpus.path)
    text = corpus.text().splitlines()
    assert text[0] == "6 recordings, 0.60 h, 6 seizures, 6 look-alikes"
    assert text[-1] == f"Wrote {corpus.path}" and any(line.startswith("flat in ") for line in text)


def test_progress_is_told_of_every_recording(tmp_path: Path) -> None:
    told: list[tuple[int, int, str]] = []
    write_corpus(tmp_path / "c", **SMALL, progress=lambda *call: told.append(call))
    assert [(done, total) for done, total, _ in told] == [(1, 2), (2, 2)]
    assert all(name.endswith("_s001_t000") for _, _, name in told)


def test_a_folder_that_holds_something_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(SynthesisError, match=r"is not empty \(holds 'notes.txt' and 0 more\).*--force"):
        write_corpus(tmp_path, **SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_force_replaces_a_corpus_and_leaves_other_files_alone(tmp_path: Path) -> None:
    write_corpus(tmp_path, **{**SMALL, "patients": 2})
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(SynthesisError, match="is not empty"):
        write_corpus(tmp_path, **SMALL)
    report = write_corpus(tmp_path, **SMALL, force=True)
    assert len(list(tmp_path.rglob("*.edf"))) == report.recordings == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["artefacts.json", "edf", "notes.txt"]


def test_force_never_replaces_recordings_of_others(tmp_path: Path) -> None:
    recording = tmp_path / "edf" / "train" / "real.edf"
    recording.parent.mkdir(parents=True)
    recording.write_bytes(b"0")
    with pytest.raises(SynthesisError, match=r"was not written here.*never overwritten"):
        write_corpus(tmp_path, **SMALL, force=True)
    assert recording.read_bytes() == b"0"


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "corpus").write_text("")
    with pytest.raises(SynthesisError, match="is a file; expected a folder"):
        write_corpus(tmp_path / "corpus", **SMALL)


def test_an_interrupted_run_leaves_nothing_behind(tmp_path: Path) -> None:
    def interrupt(done: int, total: int, name: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_corpus(tmp_path / "corpus", **SMALL, progress=interrupt)
    assert list((tmp_path / "corpus").iterdir()) == []
    (tmp_path / "corpus" / ".partial-killed").mkdir()  # a run that could not tidy up does not stand in the way
    assert write_corpus(tmp_path / "corpus", **SMALL).recordings == 2


def test_a_corpus_that_appeared_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    def other(done: int, total: int, name: str) -> None:
        if done == total:
            (tmp_path / "corpus" / "edf" / "train").mkdir(parents=True)

    with pytest.raises(SynthesisError, match="was filled by another process"):
        write_corpus(tmp_path / "corpus", **SMALL, progress=other)
    assert [path.name for path in (tmp_path / "corpus").iterdir()] == ["edf"]


@pytest.mark.parametrize(("minutes", "seconds"), [(1 / 60, 1), (0.1, 6), (0.55, 33)])
def test_short_recordings_are_valid_files(tmp_path: Path, minutes: float, seconds: int) -> None:
    arguments = {**SMALL, "minutes": minutes, "seizures": 0, "lookalikes": 0, "artefacts": ("flat",)}
    report = write_corpus(tmp_path, **arguments)
    for path in tmp_path.rglob("*.edf"):
        edf = edfio.read_edf(path)
        assert edf.duration == seconds and all(signal.data.size == seconds * 256 for signal in edf.signals)
        assert path.with_suffix(".csv_bi").read_text().endswith(f"TERM,0.0000,{seconds:.4f},bckg,1.0000\n")
    assert all(item.stop_s <= seconds for item in report.artefacts)


def test_our_own_readers_find_the_electrodes_and_the_seizures(corpus: CorpusReport) -> None:
    for plan in plan_corpus(**FULL)[:2]:
        path = corpus.path / f"{plan.path}.edf"
        montaged = to_electrodes(read_recording(path))
        np.testing.assert_allclose(montaged.signal, digital(corpus.path, plan.name) * 0.2, atol=1e-3)
        assert not montaged.interpolated
        events = read_labels(path)
        assert events is not None
        assert [(e.start_s, e.stop_s) for e in events] == [(s.start_s, s.stop_s) for s in plan.seizures]
