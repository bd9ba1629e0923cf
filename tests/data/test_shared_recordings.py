"""Every recording in the shared folder: read right, or refused by one line that says why."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest

from brainbrr.config import ELECTRODES, Preprocessing
from brainbrr.data.cache import build_cache, open_cache
from brainbrr.data.dataset import WindowDataset
from brainbrr.data.edf import Gap, Recording, read_recording
from brainbrr.data.errors import RecordingError
from brainbrr.data.formats import read_labels
from brainbrr.data.montage import to_electrodes
from brainbrr.data.preprocess import preprocess

# file -> what refuses it
REFUSED = {
    "odd/duplicate_channel_labels.edf": "no signal for Fp1",
    "odd/edfio_short_psg.edf": "no signal for Fp1",
    "odd/test_uneven_samp.edf": "no signal for Fp1",
}
# file -> (seconds, rate, notes that must be there, interpolated)
READ: dict[str, tuple[float, float, tuple[str, ...], tuple[str, ...]]] = {
    "composite/iiic_composite_dev.edf": (540, 200, (), ()),
    "odd/test_edf_stim_channel.edf": (9.59375, 128, (), ()),
    "odd_synthetic/edfplus_d_gap100s_after15.edf": (130, 256, ("1 gap(s), 100 s",), ()),
    "odd_synthetic/header_colon_date_time.edf": (10, 256, ("written without dots",), ()),
    "odd_synthetic/le_montage_400hz_extra.edf": (10, 400, (), ()),
    "odd_synthetic/missing_fz_pz.edf": (10, 256, (), ("Fz", "Pz")),
    "odd_synthetic/nrec_minus1.edf": (10, 256, ("number of data records is -1",), ()),
    "odd_synthetic/t7t8p7p8_mixed_case.edf": (10, 512, (), ()),
    "real_eeg/adult_rest_250Hz.edf": (192, 250, (), ()),
    "real_eeg/neonatal_eeg_burst_eg.edf": (211, 256, (), ()),
    "szcore/bipolar.edf": (2, 256, (), ()),
    "szcore/unipolar.edf": (2, 256, (), ()),
    **{
        f"iiic/{kind}_sample{i}.edf": (50, 200, (), ())
        for kind in (["GPD", "GRDA", "LPD", "LRDA", "Other", "SZ"])
        for i in (1, 4)
    },
}


def test_every_file_is_accounted_for(shared: Path) -> None:
    present = {path.relative_to(shared).as_posix() for path in shared.rglob("*.edf")}
    assert present == READ.keys() | REFUSED.keys()


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_refused(shared: Path, name: str) -> None:
    with pytest.raises(RecordingError, match=REFUSED[name]) as error:
        read_recording(shared / name)
    message = str(error.value)
    assert message.startswith(str(shared / name))
    assert "expected" in message
    assert "\n" not in message


@pytest.mark.parametrize("name", sorted(READ))
def test_read(shared: Path, name: str) -> None:
    seconds, rate, notes, interpolated = READ[name]
    recording = read_recording(shared / name)
    assert (recording.duration_s, recording.rate) == (pytest.approx(seconds), rate)
    assert len(recording.notes) == len(notes)
    assert all(expected in found for expected, found in zip(notes, recording.notes, strict=True))
    montaged = to_electrodes(recording)
    assert montaged.signal.shape == (len(ELECTRODES), round(seconds * rate))
    assert montaged.interpolated == interpolated
    prepared = preprocess(montaged.signal, recording.rate, Preprocessing(), gaps=recording.gaps)
    assert prepared.signal.shape == (19, round(seconds * 256))
    assert np.isfinite(prepared.signal).all()
    assert np.abs(prepared.signal).max() <= 10
    assert_same_as_library(recording, shared / name)


def assert_same_as_library(recording: Recording, path: Path) -> None:
    """The samples, gaps taken out, are those that mne reads by itself (its V as µV)."""
    import mne

    raw = mne.io.read_raw_edf(path, preload=False, verbose="ERROR")
    if raw.info["sfreq"] != recording.rate:
        return
    recorded = np.ones(recording.signal.shape[1], dtype=bool)
    for gap in recording.gaps:
        recorded[round(gap.start_s * recording.rate) : round(gap.stop_s * recording.rate)] = False
    other = raw.get_data(picks=list(recording.labels[:3])) * 1e6
    np.testing.assert_allclose(recording.signal[:3, recorded], other, rtol=1e-5, atol=1e-3)


def test_the_gap_and_its_annotation(shared: Path) -> None:
    recording = read_recording(shared / "odd_synthetic/edfplus_d_gap100s_after15.edf")
    assert recording.gaps == (Gap(start_s=15, stop_s=115),)
    (seizure,) = recording.annotations
    assert (seizure.onset_s, seizure.duration_s, seizure.text, seizure.past_end) == (125, 10, "seizure", False)


def test_the_composite_has_its_two_seizures(shared: Path, tmp_path: Path) -> None:
    labels = read_labels(shared / "composite/iiic_composite_dev.edf")
    assert labels is not None
    assert [(event.start_s, event.stop_s) for event in labels] == [(98, 148), (343, 393)]
    folder = tmp_path / "edf" / "dev"
    folder.mkdir(parents=True)
    for suffix in (".edf", ".csv_bi"):
        (folder / f"iiic_composite{suffix}").write_bytes(
            (shared / f"composite/iiic_composite_dev{suffix}").read_bytes()
        )
    report = build_cache(tmp_path, tmp_path / "cache", "dev", Preprocessing())
    assert (report.recordings, report.seizures, report.seizure_seconds) == (1, 2, 100)
    dataset = WindowDataset(open_cache(tmp_path / "cache", "dev"), window_size=60, stride=10)
    assert len(dataset) == 49
    assert np.bincount(dataset.kinds).tolist() == [27, 22]


@pytest.fixture(scope="module")
def corpora(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("corpora")
    with tarfile.open(shared / "mini_corpora_white_noise.tar.gz") as archive:
        archive.extractall(root, filter="data")
    return root


def test_the_mini_tusz_builds_into_a_cache(corpora: Path, tmp_path: Path) -> None:
    """Real headers and labels of full length over 2 s of signal: what lies past the end is noted."""
    (tmp_path / "tusz").mkdir()
    (tmp_path / "tusz" / "edf").symlink_to(corpora / "tuh")
    for split, files in (("train", 14), ("dev", 8)):
        report = build_cache(tmp_path / "tusz", tmp_path / "cache", split, Preprocessing())
        assert report.failed == ()
        assert (report.built, report.unlabelled) == (files, 0)
        cache = open_cache(tmp_path / "cache", split)
        assert {recording.n_samples for recording in cache.recordings} == {512}
        assert len(WindowDataset(cache, window_size=60, stride=10)) == files
        assert all(recording.events == () for recording in cache.recordings)
    notes = [note for recording in open_cache(tmp_path / "cache", "train").recordings for note in recording.notes]
    assert "event 1162.6 to 1245.42 s lies past the end of the signal at 2 s; left out" in notes


@pytest.mark.parametrize(
    ("folder", "read", "refused"), [("siena", 5, 0), ("seizeit", 10, 0), ("chbmit", 0, 39), ("tuh", 22, 0)]
)
def test_the_other_corpora(corpora: Path, folder: str, read: int, refused: int) -> None:
    refusals, arrived = [], 0
    for path in sorted((corpora / folder).rglob("*.edf")):
        try:
            arrived += to_electrodes(read_recording(path)).signal.shape[0] == 19
        except RecordingError as error:
            refusals.append(str(error))
    assert (arrived, len(refusals)) == (read, refused)
    assert all("a bipolar montage (FP1-F7" in refusal for refusal in refusals)
