"""A build that is killed, at any write, leaves nothing half-made and goes on where it was."""

from __future__ import annotations

import multiprocessing
import os
import signal
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from brainbrr.config import Preprocessing
from brainbrr.data import cache_build
from brainbrr.data.cache import CacheError, build_cache, open_cache
from brainbrr.data.cache_report import Made
from brainbrr.data.corpus import Source


def build_until(data: Path, cache: Path, fatal: int) -> None:
    """Dies by SIGKILL in place of the rename number `fatal`: the new file is complete but has no name yet."""
    rename, calls = os.replace, 0

    def replace(*names: str) -> None:
        nonlocal calls
        calls += 1
        if calls == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        rename(*names)

    os.replace = replace  # type: ignore[assignment]
    build_cache(data, cache, "train", Preprocessing())


def kill(data: Path, cache: Path, fatal: int) -> None:
    with warnings.catch_warnings():
        # Later Pythons warn of forks beside threads; the child does nothing but the build.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = multiprocessing.get_context("fork").Process(target=build_until, args=(data, cache, fatal))
        child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL


# Three recordings are an array and a description each, then the index: seven renames.
@pytest.mark.parametrize(("fatal", "finished"), [(1, 0), (2, 0), (3, 1), (6, 2), (7, 3)])
def test_killed_at_a_write(corpus: Callable[..., Path], tmp_path: Path, fatal: int, finished: int) -> None:
    recordings = {f"p{i}_s001_t000": (4 + i, [(1, 2)]) for i in range(3)}
    data = corpus({"train": recordings})
    kill(data, tmp_path / "c", fatal)
    with pytest.raises(CacheError, match="a build that was not finished"):
        open_cache(tmp_path / "c", "train")
    assert list((tmp_path / "c").rglob(".*.tmp"))
    report = build_cache(data, tmp_path / "c", "train", Preprocessing())
    assert (report.reused, report.built) == (finished, 3 - finished)
    assert_same_as_undisturbed(data, tmp_path)
    left = [path.name for path in (tmp_path / "c" / "train").rglob(".*.tmp")]
    assert left == []


def test_killed_while_building_anew_never_mixes_old_and_new(corpus: Callable[..., Path], tmp_path: Path) -> None:
    data = corpus({"train": {f"p{i}_s001_t000": (4 + i, [(1, 2)]) for i in range(3)}})
    other = Preprocessing(notch_freq=None)
    build_cache(data, tmp_path / "c", "train", other)
    for fatal in (2, 2):  # after an array, before its description
        kill(data, tmp_path / "c", fatal)
        with pytest.raises(CacheError, match="a build that was not finished"):
            open_cache(tmp_path / "c", "train", other)
    # The array whose description is gone does not exist for a listing either.
    listed = open_cache(tmp_path / "c", "train", other, rebuild_index=True)
    assert len(listed.recordings) == 2
    for recording in listed.recordings:
        recording.check_content()
    assert build_cache(data, tmp_path / "c", "train", Preprocessing()).built == 3
    assert_same_as_undisturbed(data, tmp_path)


def assert_same_as_undisturbed(data: Path, tmp_path: Path) -> None:
    build_cache(data, tmp_path / "clean", "train", Preprocessing())
    for path in sorted((tmp_path / "clean").rglob("*.*")):
        if path.suffix in (".npy", ".json"):
            assert path.read_bytes() == (tmp_path / "c" / path.relative_to(tmp_path / "clean")).read_bytes()


def die(source: Source, folder: Path, preprocessing: Preprocessing) -> Made:
    """Stands for a worker that the kernel kills for its memory."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


def test_a_worker_that_dies_is_reported(
    corpus: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = corpus({"train": {f"p{i}_s001_t000": (2, []) for i in range(3)}})
    fork = multiprocessing.get_context("fork")
    with monkeypatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        patch.setattr(cache_build, "make_recording", die)
        patch.setattr(multiprocessing, "get_context", lambda method: fork)
        report = build_cache(data, tmp_path / "c", "train", Preprocessing(), jobs=2)
    assert report.recordings == 0
    assert [failure.name for failure in report.failed] == ["p0_s001_t000", "p1_s001_t000", "p2_s001_t000"]
    assert all("a worker process died" in failure.reason for failure in report.failed)
    with pytest.raises(CacheError, match=r"no recording of split 'train' is in the cache \(p0_s001_t000: a worker"):
        open_cache(tmp_path / "c", "train")
    assert build_cache(data, tmp_path / "c", "train", Preprocessing()).built == 3
