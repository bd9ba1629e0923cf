"""Windows as tensors: values, targets, padding, batches."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from brainbrr.config import Preprocessing
from brainbrr.data.cache import Cache, build_cache, open_cache
from brainbrr.data.dataset import WindowDataset, load_batches

Corpus = Callable[..., Path]


@pytest.fixture
def cache(corpus: Corpus, tmp_path: Path) -> Cache:
    data = corpus(
        {
            "train": {
                "aaa_s001_t000": (25, [(4, 7), (12, 25)]),
                "bbb_s001_t000": (3, []),
                "ccc_s001_t000": (40, None),
                "ddd_s001_t000": (10, []),
            }
        }
    )
    build_cache(data, tmp_path / "c", "train", Preprocessing())
    return open_cache(tmp_path / "c", "train")


@pytest.fixture
def dataset(cache: Cache) -> WindowDataset:
    return WindowDataset(cache, window_size=10, stride=5)


def test_windows_of_labelled_recordings_in_order(dataset: WindowDataset) -> None:
    assert len(dataset) == 4 + 1 + 1
    assert dataset.unlabelled == ("ccc_s001_t000",)
    assert dataset.empty == 0
    assert dataset.kinds.tolist() == [1, 1, 1, 2, 0, 0]
    assert [tuple(dataset.identify(i).values()) for i in range(6)] == [
        ("aaa_s001_t000", 0, 10),
        ("aaa_s001_t000", 5, 15),
        ("aaa_s001_t000", 10, 20),
        ("aaa_s001_t000", 15, 25),
        ("bbb_s001_t000", 0, 3),
        ("ddd_s001_t000", 0, 10),
    ]
    assert list(dataset.identify(0)) == ["recording", "start_s", "stop_s"]


def test_values_and_targets(dataset: WindowDataset, cache: Cache) -> None:
    signal, target = dataset[1]
    assert (signal.shape, signal.dtype, target.shape, target.dtype) == ((19, 2560), np.float32, (2560,), np.float32)
    np.testing.assert_array_equal(signal, cache.recordings[0].read(5 * 256, 15 * 256))
    expected = np.zeros(2560)
    expected[: 2 * 256] = expected[7 * 256 :] = 1
    np.testing.assert_array_equal(target, expected)


def test_short_recordings_are_padded_and_masked(dataset: WindowDataset, cache: Cache) -> None:
    signal, target = dataset[4]
    np.testing.assert_array_equal(signal[:, :768], cache.recordings[1].read(0, 768))
    assert not signal[:, 768:].any()
    assert (target[:768] == 0).all()
    assert (target[768:] == -1).all()


def test_the_last_part_is_padded_and_masked(cache: Cache) -> None:
    dataset = WindowDataset(cache, window_size=10, stride=8)
    assert [dataset.identify(i)["start_s"] for i in range(3)] == [0, 8, 16]
    signal, target = dataset[2]
    assert (target[9 * 256 :] == -1).all()
    assert (target[: 9 * 256] == 1).all()
    assert not signal[:, 9 * 256 :].any()
    assert dataset.kinds[2] == 2


@pytest.mark.parametrize("index", [-1, 6])
def test_an_index_outside_is_an_error(dataset: WindowDataset, index: int) -> None:
    with pytest.raises(IndexError, match=f"window {index}; expected 0 to 5"):
        dataset[index]


def test_a_window_of_nothing_is_an_error(cache: Cache) -> None:
    with pytest.raises(ValueError, match="expected at least 1 sample each"):
        WindowDataset(cache, window_size=10, stride=0)


def test_gaps_are_masked_and_windows_inside_one_left_out(
    write_edf: Callable[..., Path], eeg: Callable[..., dict], tmp_path: Path
) -> None:
    onsets = [*range(5), *range(35, 40)]
    name = "data/edf/train/aaa_s001_t000.edf"
    path = write_edf(eeg(10), name, reserved="EDF+D", onsets=onsets)
    path.with_suffix(".csv_bi").write_text(
        "channel,start_time,stop_time,label,confidence\nTERM,4.0,37.0,seiz,1.0\nTERM,0,4,bckg,1\n"
    )
    build_cache(tmp_path / "data", tmp_path / "c", "train", Preprocessing())
    dataset = WindowDataset(open_cache(tmp_path / "c", "train"), window_size=10, stride=10)
    assert [dataset.identify(i)["start_s"] for i in range(len(dataset))] == [0, 30]
    assert dataset.empty == 2
    assert dataset.kinds.tolist() == [1, 1]
    first, last = dataset[0][1], dataset[1][1]
    np.testing.assert_array_equal(first, np.repeat([0, 1, -1], [4 * 256, 256, 5 * 256]))
    np.testing.assert_array_equal(last, np.repeat([-1, 1, 0], [5 * 256, 2 * 256, 3 * 256]))


class TestBatches:
    ORDER = (5, 0, 3, 1, 4)

    def test_a_plain_loop(self, dataset: WindowDataset) -> None:
        batches = list(load_batches(dataset, np.array(self.ORDER), 2))
        assert [batch.windows for batch in batches] == [(5, 0), (3, 1), (4,)]
        for batch in batches:
            assert batch.signal.shape == (len(batch.windows), 19, 2560)
            assert batch.target.shape == (len(batch.windows), 2560)
            assert batch.signal.dtype == batch.target.dtype == torch.float32
            for row, window in enumerate(batch.windows):
                signal, target = dataset[window]
                np.testing.assert_array_equal(batch.signal[row].numpy(), signal)
                np.testing.assert_array_equal(batch.target[row].numpy(), target)

    def test_the_short_last_batch_can_be_dropped(self, dataset: WindowDataset) -> None:
        assert [b.windows for b in load_batches(dataset, self.ORDER, 2, drop_last=True)] == [(5, 0), (3, 1)]
        assert [b.windows for b in load_batches(dataset, self.ORDER, 5, drop_last=True)] == [self.ORDER]
        assert list(load_batches(dataset, (), 2)) == []

    def test_a_batch_of_nothing_is_an_error(self, dataset: WindowDataset) -> None:
        with pytest.raises(ValueError, match="batch_size is 0; expected at least 1"):
            next(load_batches(dataset, self.ORDER, 0))

    def test_pinning_without_a_gpu_does_nothing(self, dataset: WindowDataset) -> None:
        batch = next(load_batches(dataset, self.ORDER, 2, pin_memory=True))
        assert batch.signal.is_pinned() == torch.cuda.is_available()

    @pytest.mark.parametrize("persistent", [False, True])
    def test_workers_give_the_same(self, dataset: WindowDataset, persistent: bool) -> None:
        for order in (self.ORDER, (2, 2, 1)):
            plain = list(load_batches(dataset, order, 2))
            there = list(load_batches(dataset, order, 2, num_workers=1, persistent_workers=persistent))
            assert [batch.windows for batch in there] == [batch.windows for batch in plain]
            for a, b in zip(plain, there, strict=True):
                assert torch.equal(a.signal, b.signal)
                assert torch.equal(a.target, b.target)

    def test_persistent_workers_persist(self, dataset: WindowDataset) -> None:
        options = {"num_workers": 1, "persistent_workers": True}
        list(load_batches(dataset, self.ORDER, 2, **options))
        assert dataset._loader is not None
        loader = dataset._loader[1]
        workers = [worker.pid for worker in loader._iterator._workers]  # type: ignore[union-attr]
        list(load_batches(dataset, self.ORDER, 2, **options))
        assert dataset._loader[1] is loader
        assert [worker.pid for worker in loader._iterator._workers] == workers  # type: ignore[union-attr]
        list(load_batches(dataset, self.ORDER, 2, num_workers=1))
        assert dataset._loader is None

    def test_it_can_be_sent_to_a_worker(self, dataset: WindowDataset) -> None:
        other = pickle.loads(pickle.dumps(dataset))  # noqa: S301
        np.testing.assert_array_equal(other[3][0], dataset[3][0])
