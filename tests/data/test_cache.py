"""The cache: what is stored, what is built again and when, and how it says that something is wrong."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brainbrr.config import Preprocessing
from brainbrr.data.cache import CacheError, build_cache, check_patients, open_cache, scan
from brainbrr.data.edf import read_recording
from brainbrr.data.fingerprint import SCHEMA
from brainbrr.data.labels import Event
from brainbrr.data.montage import to_electrodes
from brainbrr.data.preprocess import preprocess
from brainbrr.data.stored import CachedRecording, array_bytes, load, store

OPTIONS = Preprocessing()
Corpus = Callable[..., Path]
SMALL = {
    "train": {
        "aaa_s001_t000": (20, [(5, 10)]),
        "aaa_s001_t001": (8, []),
        "bbb_s001_t000": (30, [(0, 30)]),
        "ccc_s001_t000": (12, None),
    },
    "dev": {"ddd_s001_t000": (15, [(3, 4), (4, 6)])},
}


@pytest.fixture
def data(corpus: Corpus) -> Path:
    return corpus(SMALL)


def edf(data: Path, name: str) -> Path:
    return next(data.rglob(f"{name}.edf"))


def test_what_is_stored_is_what_was_preprocessed(data: Path, tmp_path: Path) -> None:
    report = build_cache(data, tmp_path / "c", "train", OPTIONS)
    assert (report.recordings, report.built, report.reused, report.failed, report.unlabelled) == (4, 4, 0, (), 1)
    assert (report.patients, report.seizures, report.seizure_seconds) == (3, 2, 35)
    assert report.hours == pytest.approx(70 / 3600)
    assert report.has_seizures
    cache = open_cache(tmp_path / "c", "train", OPTIONS)
    assert [recording.name for recording in cache.recordings] == list(SMALL["train"])
    assert cache.patients == {"aaa", "bbb", "ccc"}
    assert [recording.events for recording in cache.recordings] == [
        (Event(start_s=5, stop_s=10),),
        (),
        (Event(start_s=0, stop_s=30),),
        None,
    ]
    first = cache.recordings[0]
    source = read_recording(edf(data, first.name))
    expected = preprocess(to_electrodes(source).signal, source.rate, OPTIONS)
    assert (first.patient, first.n_samples, first.duration_s, first.source_rate) == ("aaa", 20 * 256, 20, 256)
    assert first.clipped == expected.clipped
    stored = first.read(0, first.n_samples)
    assert stored.dtype == np.float32
    np.testing.assert_allclose(stored, expected.signal, atol=10 / 32767 / 2 * 1.001)
    np.testing.assert_array_equal(first.read(100, 612), stored[:, 100:612])
    assert isinstance(first.steps(), np.memmap)
    assert first.steps().dtype == np.int16
    for bounds in ((-1, 5), (0, 20 * 256 + 1), (9, 8)):
        with pytest.raises(CacheError, match=r"aaa_s001_t000: samples .*; expected 0 to 5120"):
            first.read(*bounds)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 500), clip=st.floats(1, 50), data=st.data())
def test_round_trip(tmp_path: Path, seed: int, n: int, clip: float, data: st.DataObject) -> None:
    signal = np.clip(np.random.default_rng(seed).standard_normal((19, n)) * clip / 2, -clip, clip).astype(np.float32)
    blank = CachedRecording(
        name="a",
        patient="a",
        n_samples=n,
        events=(Event(start_s=0.125, stop_s=0.3, label="fnsz", confidence=0.7),),
        path=tmp_path / "a.npy",
        interpolated=("Fz",),
        clipped=(0.1,) * 19,
        amplitudes_uv=(20.0,) * 19,
        nonfinite=(),
        gaps=(),
        notes=("µ",),
        clip_sigma=clip,
        source="x/a.edf",
        source_rate=249.9,
        source_hash="h",
        source_state=(1, 2, 3, 4),
        preprocessing_hash="p",
        crc32=0,
    )
    stored = store(tmp_path, signal, blank)
    assert load(tmp_path, "a") == stored
    assert stored.path.stat().st_size == array_bytes(n)
    start = data.draw(st.integers(0, n))
    stop = data.draw(st.integers(start, n))
    back = stored.read(start, stop)
    assert back.shape == (19, stop - start)
    np.testing.assert_allclose(back, signal[:, start:stop], atol=1e-4 * clip)
    assert (np.abs(back) <= clip * (1 + 1e-6)).all()
    stored.check_content()
    zeros = store(tmp_path, signal * 0, blank)
    assert not zeros.read(0, n).any()


class TestResume:
    def test_a_second_build_reuses_and_touches_nothing(self, data: Path, tmp_path: Path) -> None:
        build_cache(data, tmp_path / "c", "train", OPTIONS)
        before = {path: path.stat().st_mtime_ns for path in (tmp_path / "c").rglob("*.npy")}
        index = (tmp_path / "c" / "train.json").stat().st_mtime_ns
        report = build_cache(data, tmp_path / "c", "train", OPTIONS)
        assert (report.built, report.reused, report.seizures) == (0, 4, 2)
        assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "c").rglob("*.npy")}
        assert index == (tmp_path / "c" / "train.json").stat().st_mtime_ns

    def test_other_preprocessing_builds_anew(self, data: Path, tmp_path: Path) -> None:
        build_cache(data, tmp_path / "c", "train", OPTIONS)
        other = Preprocessing(notch_freq=50)
        with pytest.raises(
            CacheError, match=r"built with other preprocessing .* run `brainbrr build-cache .*--split train`"
        ):
            open_cache(tmp_path / "c", "train", other)
        open_cache(tmp_path / "c", "train")
        assert build_cache(data, tmp_path / "c", "train", other).built == 4
        open_cache(tmp_path / "c", "train", other)
        with pytest.raises(CacheError, match="built with other preprocessing"):
            open_cache(tmp_path / "c", "train", OPTIONS)

    @pytest.mark.parametrize("option", ["bandpass", "notch_freq", "normalize", "clip_sigma"])
    def test_every_option_counts(self, option: str) -> None:
        from brainbrr.data.fingerprint import preprocessing_hash

        values = {"bandpass": (1, 100), "notch_freq": None, "normalize": False, "clip_sigma": 5.0}
        assert preprocessing_hash(Preprocessing(**{option: values[option]})) != preprocessing_hash(OPTIONS)

    def test_a_changed_source_or_label_builds_that_one_anew(self, data: Path, tmp_path: Path) -> None:
        build_cache(data, tmp_path / "c", "train", OPTIONS)
        path = edf(data, "aaa_s001_t001")
        content = bytearray(path.read_bytes())
        content[-1000] ^= 1
        path.write_bytes(content)
        assert build_cache(data, tmp_path / "c", "train", OPTIONS).built == 1
        edf(data, "bbb_s001_t000").with_suffix(".csv_bi").unlink()
        report = build_cache(data, tmp_path / "c", "train", OPTIONS)
        assert (report.built, report.reused, report.unlabelled, report.seizures) == (1, 3, 2, 1)

    def test_a_copied_corpus_is_the_same_corpus(self, data: Path, tmp_path: Path) -> None:
        build_cache(data, tmp_path / "c", "train", OPTIONS)
        shutil.copytree(data, tmp_path / "copy", copy_function=shutil.copyfile)
        for path in (tmp_path / "copy").rglob("*.*"):
            os.utime(path, (1, 1))
        for _ in range(2):
            report = build_cache(tmp_path / "copy", tmp_path / "c", "train", OPTIONS)
            assert (report.built, report.reused) == (0, 4)
        states = [recording.source_state for recording in open_cache(tmp_path / "c", "train").recordings]
        assert all(state[1] == 10**9 for state in states)

    def test_new_and_removed_recordings(self, data: Path, tmp_path: Path) -> None:
        build_cache(data, tmp_path / "c", "train", OPTIONS)
        edf(data, "aaa_s001_t000").unlink()
        shutil.copy(edf(data, "aaa_s001_t001"), edf(data, "aaa_s001_t001").with_name("aaa_s001_t009.edf"))
        report = build_cache(data, tmp_path / "c", "train", OPTIONS)
        assert (report.built, report.reused) == (1, 3)
        names = [recording.name for recording in open_cache(tmp_path / "c", "train").recordings]
        assert names == ["aaa_s001_t001", "aaa_s001_t009", "bbb_s001_t000", "ccc_s001_t000"]

    def test_a_damaged_index_is_built_anew(self, data: Path, tmp_path: Path) -> None:
        build_cache(data, tmp_path / "c", "train", OPTIONS)
        index = tmp_path / "c" / "train.json"
        index.write_text(index.read_text()[:-40])
        with pytest.raises(CacheError, match=r"train\.json is damaged .* remove it and run"):
            open_cache(tmp_path / "c", "train")
        assert build_cache(data, tmp_path / "c", "train", OPTIONS).reused == 4
        assert len(open_cache(tmp_path / "c", "train").recordings) == 4


def test_a_recording_that_fails_is_named_and_stops_nothing(data: Path, tmp_path: Path) -> None:
    broken = edf(data, "bbb_s001_t000")
    broken.write_bytes(broken.read_bytes()[:4000])
    edf(data, "aaa_s001_t000").with_suffix(".csv_bi").write_text("nonsense\n")
    report = build_cache(data, tmp_path / "c", "train", OPTIONS)
    assert (report.built, report.recordings) == (2, 2)
    assert [(failure.name, failure.source.endswith(".edf")) for failure in report.failed] == [
        ("aaa_s001_t000", True),
        ("bbb_s001_t000", True),
    ]
    assert "before the line of columns" in report.failed[0].reason
    assert "ends inside its header" in report.failed[1].reason
    assert "failed: bbb_s001_t000: " in report.text()
    cache = open_cache(tmp_path / "c", "train")
    assert len(cache.recordings) == 2
    assert cache.failed == report.failed
    assert scan(tmp_path / "c").splits[0].failed == report.failed
    json.dumps(report.to_dict(), allow_nan=False)


def test_a_split_without_seizures_says_so(corpus: Corpus, tmp_path: Path) -> None:
    data = corpus({"train": {"aaa_s001_t000": (5, []), "bbb_s001_t000": (5, None)}})
    report = build_cache(data, tmp_path / "c", "train", OPTIONS)
    assert not report.has_seizures
    assert "no seizure in 2 recordings (1 without labels)" in report.text()
    assert not open_cache(tmp_path / "c", "train").has_seizures
    found = scan(tmp_path / "c")
    assert not found.trainable
    assert found.problems[0].startswith("train: no seizure in 2 recordings (1 labelled, 1 without labels); expected")


class TestLimit:
    def test_the_first_by_path(self, data: Path, tmp_path: Path) -> None:
        report = build_cache(data, tmp_path / "c", "train", OPTIONS, limit_files=2)
        assert report.built == 2
        cache = open_cache(tmp_path / "c", "train", OPTIONS, limit_files=2)
        assert [recording.name for recording in cache.recordings] == ["aaa_s001_t000", "aaa_s001_t001"]
        assert len(open_cache(tmp_path / "c", "train", limit_files=1).recordings) == 1
        with pytest.raises(
            CacheError, match=r"2 of the first 4 recordings .* were left out by a limit .* without --limit"
        ):
            open_cache(tmp_path / "c", "train")
        assert scan(tmp_path / "c").splits[0].pending == 2
        full = build_cache(data, tmp_path / "c", "train", OPTIONS)
        assert (full.built, full.reused) == (2, 2)

    def test_a_lower_limit_keeps_what_is_there(self, data: Path, tmp_path: Path) -> None:
        build_cache(data, tmp_path / "c", "train", OPTIONS)
        assert build_cache(data, tmp_path / "c", "train", OPTIONS, limit_files=1).reused == 1
        assert len(open_cache(tmp_path / "c", "train").recordings) == 4


def test_largest_first_with_progress(data: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int, str]] = []
    build_cache(data, tmp_path / "c", "train", OPTIONS, progress=lambda *call: calls.append(call))
    assert calls == [
        (1, 4, "bbb_s001_t000"),
        (2, 4, "aaa_s001_t000"),
        (3, 4, "ccc_s001_t000"),
        (4, 4, "aaa_s001_t001"),
    ]


def test_two_processes_give_the_same_bytes(data: Path, tmp_path: Path) -> None:
    one = build_cache(data, tmp_path / "one", "train", OPTIONS)
    two = build_cache(data, tmp_path / "two", "train", OPTIONS, jobs=2)
    assert (one.built, two.built) == (4, 4)
    for path in (tmp_path / "one" / "train").glob("*"):
        assert path.read_bytes() == (tmp_path / "two" / "train" / path.name).read_bytes()
    assert (tmp_path / "one" / "train.json").read_bytes() == (tmp_path / "two" / "train.json").read_bytes()


class TestDamage:
    def test_truncated(self, data: Path, tmp_path: Path) -> None:
        build_cache(data, tmp_path / "c", "train", OPTIONS)
        path = tmp_path / "c" / "train" / "bbb_s001_t000.npy"
        path.write_bytes(path.read_bytes()[:-10])
        size = array_bytes(30 * 256)
        with pytest.raises(CacheError, match=rf"bbb_s001_t000\.npy has {size - 10} bytes; expected {size}: remove it"):
            open_cache(tmp_path / "c", "train")
        assert "bbb_s001_t000" in scan(tmp_path / "c").problems[0]
        assert build_cache(data, tmp_path / "c", "train", OPTIONS).built == 1
        open_cache(tmp_path / "c", "train")

    def test_missing(self, data: Path, tmp_path: Path) -> None:
        build_cache(data, tmp_path / "c", "train", OPTIONS)
        (tmp_path / "c" / "train" / "bbb_s001_t000.npy").unlink()
        with pytest.raises(CacheError, match=r"bbb_s001_t000\.npy is missing; remove it and run"):
            open_cache(tmp_path / "c", "train")

    def test_another_array_of_the_same_size(self, data: Path, tmp_path: Path) -> None:
        build_cache(data, tmp_path / "c", "train", OPTIONS)
        path = tmp_path / "c" / "train" / "bbb_s001_t000.npy"
        content = bytearray(path.read_bytes())
        content[:6] = b"garbag"
        path.write_bytes(content)
        recording = open_cache(tmp_path / "c", "train").recordings[2]
        with pytest.raises(CacheError, match=r"bbb_s001_t000\.npy is damaged"):
            recording.read(0, 10)

    def test_a_flipped_bit_is_found_when_asked(self, data: Path, tmp_path: Path) -> None:
        build_cache(data, tmp_path / "c", "train", OPTIONS)
        path = tmp_path / "c" / "train" / "bbb_s001_t000.npy"
        content = bytearray(path.read_bytes())
        content[5000] ^= 1
        path.write_bytes(content)
        assert scan(tmp_path / "c").problems == ()
        (problem,) = scan(tmp_path / "c", verify=None).problems
        assert "bbb_s001_t000.npy: checksum" in problem

    def test_a_broken_description_is_built_anew(self, data: Path, tmp_path: Path) -> None:
        build_cache(data, tmp_path / "c", "train", OPTIONS)
        (tmp_path / "c" / "train" / "bbb_s001_t000.json").write_text("{")
        with pytest.raises(CacheError, match=r"bbb_s001_t000\.json is damaged"):
            open_cache(tmp_path / "c", "train", rebuild_index=True)
        (tmp_path / "c" / "train.json").unlink()
        report = build_cache(data, tmp_path / "c", "train", OPTIONS)
        assert (report.built, report.reused) == (1, 3)

    def test_another_schema(self, data: Path, tmp_path: Path) -> None:
        build_cache(data, tmp_path / "c", "train", OPTIONS)
        index = tmp_path / "c" / "train.json"
        index.write_text(index.read_text().replace(f'"schema": {SCHEMA}', '"schema": 0'))
        with pytest.raises(CacheError, match=rf"has schema 0; expected {SCHEMA}: run"):
            open_cache(tmp_path / "c", "train")
        build_cache(data, tmp_path / "c", "train", OPTIONS)
        open_cache(tmp_path / "c", "train")


def test_no_cache_and_an_unfinished_one(tmp_path: Path) -> None:
    with pytest.raises(
        CacheError, match=r"no cache for split 'train'; expected train\.json: run `brainbrr build-cache"
    ):
        open_cache(tmp_path, "train")
    with pytest.raises(CacheError, match=r"holds no cache; expected train\.json"):
        scan(tmp_path)
    (tmp_path / "train").mkdir()
    with pytest.raises(CacheError, match="a build that was not finished for split 'train'"):
        open_cache(tmp_path, "train")
    with pytest.raises(CacheError, match="holds no recording"):
        open_cache(tmp_path, "train", rebuild_index=True)
    assert "not finished" in scan(tmp_path).problems[0]


def test_the_index_can_be_listed_anew(data: Path, tmp_path: Path) -> None:
    build_cache(data, tmp_path / "c", "train", OPTIONS)
    before = open_cache(tmp_path / "c", "train")
    (tmp_path / "c" / "train.json").unlink()
    assert open_cache(tmp_path / "c", "train", OPTIONS, rebuild_index=True) == before
    assert open_cache(tmp_path / "c", "train") == before
    build_cache(data, tmp_path / "c", "train", Preprocessing(notch_freq=50), limit_files=1)
    with pytest.raises(CacheError, match="recordings of 2 different preprocessings"):
        open_cache(tmp_path / "c", "train", rebuild_index=True)


class TestCorpus:
    @pytest.mark.parametrize("made", [False, True])
    def test_nothing_there(self, tmp_path: Path, made: bool) -> None:
        if made:
            (tmp_path / "d" / "edf" / "train").mkdir(parents=True)
        expected = r"holds no \.edf file; expected recordings below" if made else r"d: no such folder; expected one of"
        with pytest.raises(CacheError, match=expected):
            build_cache(tmp_path / "d", tmp_path / "c", "train", OPTIONS)

    def test_a_patient_in_two_splits(self, corpus: Corpus, tmp_path: Path) -> None:
        names = {f"p{i:02}_s001_t000": (2, []) for i in range(12)}
        data = corpus({"train": names, "eval": names | {"zzz_s001_t000": (2, [])}})
        with pytest.raises(
            CacheError, match=r"12 patient\(s\) in two splits: p00 \(train and eval\), .* and 2 more; exp"
        ):
            build_cache(data, tmp_path / "c", "train", OPTIONS)

    def test_a_patient_in_two_splits_of_a_cache(self, data: Path, tmp_path: Path) -> None:
        for split in ("train", "dev"):
            build_cache(data, tmp_path / "c", split, OPTIONS)
        check_patients(tmp_path / "c")
        moved = tmp_path / "other" / "edf" / "eval"
        moved.mkdir(parents=True)
        shutil.copy(edf(data, "aaa_s001_t000"), moved)
        build_cache(tmp_path / "other", tmp_path / "c", "eval", OPTIONS)
        with pytest.raises(
            CacheError, match=r"1 patient\(s\) in two splits: aaa \(train and eval\); expected each in one"
        ):
            check_patients(tmp_path / "c")
        assert not scan(tmp_path / "c").trainable

    def test_two_recordings_of_one_name(self, data: Path, tmp_path: Path) -> None:
        path = edf(data, "aaa_s001_t000")
        (path.parents[1] / "02_tcp_le").mkdir()
        shutil.copy(path, path.parents[1] / "02_tcp_le")
        with pytest.raises(CacheError, match="two recordings named 'aaa_s001_t000': "):
            build_cache(data, tmp_path / "c", "train", OPTIONS)

    def test_any_depth_and_case(self, data: Path, tmp_path: Path) -> None:
        flat = tmp_path / "flat" / "edf" / "train"
        flat.mkdir(parents=True)
        shutil.copy(edf(data, "aaa_s001_t000"), flat / "xyz.EDF")
        assert build_cache(tmp_path / "flat", tmp_path / "c", "train", OPTIONS).patients == 1


def test_scan(data: Path, tmp_path: Path) -> None:
    for split in ("train", "dev"):
        build_cache(data, tmp_path / "c", split, OPTIONS)
    report = scan(tmp_path / "c", window_size=10, stride=5, verify=None)
    assert report.trainable
    train, dev = report.splits
    assert (train.split, train.labelled, train.unlabelled, train.with_seizures, train.seizures) == ("train", 3, 1, 2, 2)
    assert (train.windows, dev.windows) == (
        {"background": 2, "partial": 2, "full": 5},
        {"background": 0, "partial": 2, "full": 0},
    )
    assert train.types == {"seiz": 2}
    assert [(line.name, line.seizures) for line in train.recordings] == [
        ("aaa_s001_t000", 1),
        ("aaa_s001_t001", 0),
        ("bbb_s001_t000", 1),
        ("ccc_s001_t000", None),
    ]
    json.dumps(report.to_dict(), allow_nan=False)
    assert "labels: 3 labelled (2 with seizures), 1 without" in report.text()
    shutil.rmtree(tmp_path / "c" / "train")
    (tmp_path / "c" / "train.json").unlink()
    assert not scan(tmp_path / "c").trainable
    assert "no training split" in scan(tmp_path / "c").text()


def test_a_build_under_way_elsewhere(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from brainbrr.data import cache_index

    monkeypatch.setattr(cache_index, "_LOCK_WAIT_S", 0.0)
    with (
        cache_index.locked(tmp_path / "c", "train"),
        pytest.raises(CacheError, match="another process is building split 'train'; wait for it"),
    ):
        build_cache(data, tmp_path / "c", "train", OPTIONS)
    assert build_cache(data, tmp_path / "c", "train", OPTIONS).built == 4
