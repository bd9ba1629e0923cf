from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from brainbrr_debug.spectral import (
    amplification,
    eigengap,
    exact_eigengap,
    is_degenerate,
    multiplicities,
    relative_gaps,
    sample_of,
)


def slow_gap(values: list[float]) -> float:
    """Brute force over all pairs, not only neighbours."""
    scale = max((abs(v) for v in values), default=0.0)
    pairs = [abs(a - b) for a, b in itertools.combinations(values, 2)]
    return min(pairs, default=math.inf) / max(scale, 1e-300) if pairs else math.inf


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-40, 40), min_size=1, max_size=8))
def test_the_gap_of_neighbours_is_the_gap_of_all_pairs(numbers: list[int]) -> None:
    values = sorted(float(n) for n in numbers)
    assert float(eigengap(torch.tensor(values, dtype=torch.float64))) == pytest.approx(slow_gap(values))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.floats(1e-3, 1e3))
def test_the_relative_gap_does_not_change_with_scale(seed: int, factor: float) -> None:
    a = torch.randn(3, 6, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    a = a + a.mT
    torch.testing.assert_close(exact_eigengap(a), exact_eigengap(factor * a), rtol=1e-6, atol=1e-12)


def test_structured_graphs_are_degenerate_and_a_random_one_is_not() -> None:
    n = 19
    star = torch.zeros(n, n)
    star[0, 1:] = star[1:, 0] = 1
    random = torch.rand(n, n)
    stack = torch.stack([torch.eye(n), torch.zeros(n, n), star, torch.ones(n, n), random + random.mT])
    assert is_degenerate(torch.linalg.eigvalsh(stack)).tolist() == [True, True, True, True, False]
    assert (exact_eigengap(stack) <= 1e-12).tolist() == [True, True, True, True, False]


def test_adding_a_multiple_of_the_identity_opens_no_gap() -> None:
    values = torch.tensor([0.0, 1.0, 1.0])
    assert bool(is_degenerate(values)) and bool(is_degenerate(values + 0.1))


def test_what_has_no_neighbours_has_an_infinite_gap() -> None:
    assert eigengap(torch.ones(2, 1)).tolist() == [math.inf, math.inf]
    assert eigengap(torch.ones(3, 0)).tolist() == [math.inf] * 3
    assert float(amplification(torch.ones(1))) == 0.0


def test_values_that_are_not_numbers_count_as_degenerate() -> None:
    assert bool(is_degenerate(torch.tensor([0.0, math.nan, 1.0])))


def test_amplification_is_one_over_the_gap() -> None:
    assert float(amplification(torch.tensor([0.0, 0.5, 0.75]))) == 4.0
    assert float(amplification(torch.tensor([1.0, 1.0]))) == math.inf


def test_multiplicities_group_equal_values() -> None:
    assert multiplicities(torch.tensor([0.0, 1.0, 1.0, 1.0, 2.0])) == (1, 3, 1)
    assert multiplicities(torch.tensor([])) == ()
    with pytest.raises(ValueError, match=r"values have shape \(2, 2\); expected one spectrum"):
        multiplicities(torch.ones(2, 2))


def test_singular_values_are_measured_without_a_symmetric_matrix() -> None:
    assert float(exact_eigengap(torch.diag(torch.tensor([3.0, -3.0])), hermitian=False)) == 0.0
    assert relative_gaps(torch.tensor([4.0, 2.0, 1.0])).tolist() == [0.5, 0.25]


def test_samples_are_found_in_every_usual_arrangement() -> None:
    assert sample_of(7, (4, 5), 4) == 1  # (B, T)
    assert sample_of(7, (5, 4), 4) == 3  # (T, B)
    assert sample_of(7, (20,), 4) == 1  # (B·T,)
    assert sample_of(3, (4,), 4) == 3
    assert sample_of(7, (21,), 4) is None
    assert sample_of(0, (), 1) == 0 and sample_of(0, (), None) is None
