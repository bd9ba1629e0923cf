"""What an epoch shows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainbrr.data.sampling import epoch_order

kinds_of = st.lists(st.sampled_from([0, 0, 0, 1, 2]), min_size=1, max_size=300).map(
    lambda kinds: np.array([*kinds, 1], dtype=np.int8)
)
RATIOS = {"full_ratio": 0.3, "background_ratio": 2.5}


@given(kinds=kinds_of, seed=st.integers(-(2**40), 2**40), epoch=st.integers(0, 1000))
def test_balanced_ratios_are_exact(kinds: np.ndarray, seed: int, epoch: int) -> None:
    order = epoch_order(kinds, seed=seed, epoch=epoch, balanced=True, **RATIOS)
    available = np.bincount(kinds, minlength=3)
    partial = available[1]
    assert np.bincount(kinds[order], minlength=3).tolist() == [
        min(round(2.5 * partial), available[0]),
        partial,
        min(round(0.3 * partial), available[2]),
    ]
    assert len(set(order.tolist())) == len(order)
    assert set(np.flatnonzero(kinds == 1)) <= set(order.tolist())
    np.testing.assert_array_equal(order, epoch_order(kinds, seed=seed, epoch=epoch, balanced=True, **RATIOS))


@given(kinds=kinds_of, seed=st.integers(0, 2**31), epoch=st.integers(0, 50))
def test_unbalanced_is_a_permutation(kinds: np.ndarray, seed: int, epoch: int) -> None:
    order = epoch_order(kinds, seed=seed, epoch=epoch, balanced=False, **RATIOS)
    assert sorted(order.tolist()) == list(range(kinds.size))


def test_background_and_full_are_drawn_anew_each_epoch() -> None:
    kinds = np.repeat([0, 1, 2], [1000, 20, 100])
    epochs = [set(epoch_order(kinds, seed=1, epoch=e, balanced=True, **RATIOS).tolist()) for e in range(3)]
    for kind in (0, 2):
        drawn = [{i for i in chosen if kinds[i] == kind} for chosen in epochs]
        assert drawn[0] != drawn[1] != drawn[2]
    orders = [epoch_order(kinds, seed=s, epoch=0, balanced=True, **RATIOS).tolist() for s in (1, 2, -1)]
    assert orders[0] != orders[1] != orders[2]
    # Over many epochs everything is seen: nothing is left out for good.
    seen = set().union(*(epoch_order(kinds, seed=1, epoch=e, balanced=True, **RATIOS) for e in range(300)))
    assert len(seen) == kinds.size


def test_the_order_does_not_change_between_versions() -> None:
    kinds = np.repeat([0, 1, 2], [12, 3, 4])
    assert epoch_order(kinds, seed=42, epoch=0, balanced=True, **RATIOS).tolist() == [
        3, 0, 14, 7, 2, 10, 6, 8, 15, 12, 13, 5,
    ]  # fmt: skip


def test_nothing_to_balance_on_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"found 0 among 5 \(2 full, 3 background\): .*use_balanced_sampling=false"):
        epoch_order(np.array([0, 0, 0, 2, 2]), seed=0, epoch=0, balanced=True, **RATIOS)
    with pytest.raises(ValueError, match="no windows"):
        epoch_order(np.array([], dtype=np.int8), seed=0, epoch=0, balanced=False, **RATIOS)
