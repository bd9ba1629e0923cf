from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainbrr.config import Preprocessing
from brainbrr.data.cache import build_cache
from brainbrr.data.corpus import open_corpus
from brainbrr.data.errors import CacheError
from brainbrr.data.layouts import LAYOUTS, SHARES, assigned_split, recognise


@pytest.fixture(scope="module")
def corpora(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trees with the real names, headers and labels of four corpora; their signals are noise."""
    place = tmp_path_factory.mktemp("corpora")
    with tarfile.open(shared / "mini_corpora_white_noise.tar.gz") as archive:
        archive.extractall(place, filter="data")
    return place


@pytest.mark.parametrize(
    ("folder", "layout", "patients"),
    [
        ("tuh", "tusz", {"aaaaaaac", "aaaaaaag", "aaaaakpu", "aaaaahln"}),
        ("chbmit", "chbmit", {"chb05"}),
        ("siena", "siena", {"PN00"}),
        ("seizeit", "seizeit1", {"P_ID64"}),
    ],
)
def test_real_trees_are_recognised(corpora: Path, folder: str, layout: str, patients: set[str]) -> None:
    corpus = open_corpus(corpora / folder)
    assert corpus.layout.name == layout
    found = {place.patient for place in corpus.places.values()}
    assert found <= patients
    assert len(corpus.places) == len(list((corpora / folder).rglob("*.edf")))
    assert open_corpus(corpora / folder, layout) == corpus  # type: ignore[arg-type]


@pytest.mark.parametrize("folder", ["siena", "seizeit"])
def test_a_corpus_without_splits_is_cached_with_its_labels(corpora: Path, tmp_path: Path, folder: str) -> None:
    corpus = open_corpus(corpora / folder)
    (split,) = corpus.splits  # one patient
    report = build_cache(corpora / folder, tmp_path, split, Preprocessing(), limit_files=2)
    assert (report.built, report.patients, report.failed) == (2, 1, ())
    assert report.unlabelled == 0


def test_bids(tmp_path: Path, corpora: Path) -> None:
    source = next((corpora / "chbmit").rglob("*.edf"))
    for path in (
        "sub-01/ses-02/eeg/sub-01_ses-02_task-szMonitoring_run-00_eeg.edf",
        "sub-02/eeg/sub-02_task-x_eeg.edf",
        "derivatives/sub-01/eeg/other.edf",
    ):
        (tmp_path / path).parent.mkdir(parents=True)
        shutil.copy(source, tmp_path / path)
    corpus = open_corpus(tmp_path)
    assert corpus.layout.name == "bids"
    assert {place.patient for place in corpus.places.values()} == {"sub-01", "sub-02"}


def test_what_fits_no_layout_is_named(tmp_path: Path, corpora: Path) -> None:
    for path in ("chb01/chb01_01.edf", "chb01/chb01_02.edf", "notes/first.edf"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).touch()
    message = (
        r"1 of 3 recordings do not lie as the layout 'chbmit' has them, notes/first\.edf first; expected paths such"
    )
    with pytest.raises(CacheError, match=message):
        open_corpus(tmp_path)
    with pytest.raises(CacheError, match=r"3 of 3 recordings do not lie as the layout 'siena'"):
        open_corpus(tmp_path, "siena")


def test_one_person_under_two_names_is_one_patient() -> None:
    chbmit = LAYOUTS["chbmit"]
    first, again = chbmit.place("chb01/chb01_03.edf"), chbmit.place("x/chb21/chb21_19.edf")
    assert first is not None and again is not None
    assert (first.patient, first.split) == (again.patient, again.split) == ("chb01", assigned_split("chb01"))
    lettered = chbmit.place("chb17/chb17a_03.edf")
    assert lettered is not None and lettered.patient == "chb17"


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_every_example_is_of_its_own_layout(layout: object) -> None:
    assert recognise([layout.example], "auto", where="here") is layout  # type: ignore[attr-defined]


@given(st.text(min_size=1))
def test_a_patient_keeps_its_split(patient: str) -> None:
    assert assigned_split(patient) == assigned_split(patient) in SHARES


def test_splits_have_about_their_shares() -> None:
    splits = [assigned_split(f"PN{number:04}") for number in range(5000)]
    for split, share in SHARES.items():
        assert abs(splits.count(split) / len(splits) - share) < 0.03
