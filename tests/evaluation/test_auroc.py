from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainbrr.evaluation.auroc import BINS, ScoreHistogram, bin_of, empty_histogram, histogram

samples = st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), min_size=1, max_size=60)


def brute_auroc(scores: np.ndarray, target: np.ndarray) -> float | None:
    wins = [1.0 if a > b else 0.5 if a == b else 0.0 for a in scores[target].tolist() for b in scores[~target].tolist()]
    return float(np.mean(wins)) if wins else None


def arrays(pairs: list[tuple[float, bool]]) -> tuple[np.ndarray, np.ndarray]:
    prob, target = zip(*pairs, strict=True)
    return np.array(prob, dtype=np.float32), np.array(target, dtype=bool)


@given(samples)
def test_it_is_the_share_of_pairs_in_order_exact_to_the_bin(pairs: list[tuple[float, bool]]) -> None:
    prob, target = arrays(pairs)
    found = histogram(prob, target)
    binned, exact = brute_auroc(bin_of(prob), target), brute_auroc(prob, target)
    if exact is None or binned is None:
        assert found.auroc is None and found.auroc_error is None
    else:
        assert found.auroc == pytest.approx(binned, abs=1e-12)
        assert found.auroc_error is not None
        assert abs(found.auroc - exact) <= found.auroc_error + 1e-12


@given(samples, samples)
def test_histograms_of_recordings_add_up(one: list[tuple[float, bool]], two: list[tuple[float, bool]]) -> None:
    both = histogram(*arrays(one + two))
    total = empty_histogram() + histogram(*arrays(one)) + histogram(*arrays(two))
    assert np.array_equal(both.positives, total.positives) and np.array_equal(both.negatives, total.negatives)


@given(st.lists(st.floats(0, 1, width=32), max_size=60))
def test_a_higher_probability_is_never_in_a_lower_bin(values: list[float]) -> None:
    bins = bin_of(np.sort(np.array(values, dtype=np.float32)))
    assert (np.diff(bins) >= 0).all()
    assert ((bins >= 0) & (bins < BINS)).all()


def test_ends_and_middle() -> None:
    assert bin_of(np.array([0, 0.5, 1], dtype=np.float32)).tolist() == [0, BINS // 2, BINS - 1]


def test_sure_scores_are_told_apart() -> None:
    prob = np.array([0.9990, 0.9995], dtype=np.float32)
    assert histogram(prob, np.array([False, True])).auroc == 1.0


def test_perfect_reversed_and_blind() -> None:
    target = np.arange(10_000) % 4 == 0
    rising = np.where(target, 0.9, 0.2).astype(np.float32)
    assert histogram(rising, target).auroc == 1.0
    assert histogram(rising, ~target).auroc == 0.0
    assert histogram(np.full(10_000, 0.3, dtype=np.float32), target).auroc == 0.5


def test_a_long_recording_is_counted_in_chunks() -> None:
    rng = np.random.default_rng(0)
    n = (1 << 20) + 12_345
    prob, target = rng.random(n, dtype=np.float32), rng.random(n) < 0.1
    found = histogram(prob, target)
    assert found.positives.sum() == target.sum() and found.negatives.sum() == n - target.sum()


def test_counts_beyond_32_bits_do_not_overflow() -> None:
    counts = np.zeros(BINS, dtype=np.int64)
    counts[100] = 10**10
    higher = np.roll(counts, 1)
    assert ScoreHistogram(positives=higher, negatives=counts).auroc == 1.0
    assert ScoreHistogram(positives=counts, negatives=counts).auroc == 0.5
