from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from brainbrr_debug.spectral import (
    THRESHOLD,
    amplification,
    condition_limit,
    condition_number,
    eigengap,
    error_limit,
    exact_eigengap,
    frobenius,
    multiplicities,
    orthogonality,
    relative_gaps,
    residual,
    sample_of,
    scattered_eigengap,
    wide,
)


def is_degenerate(values: torch.Tensor) -> torch.Tensor:
    return ~(eigengap(values) > THRESHOLD)


def slow_gap(values: list[float]) -> float:
    """Brute force over all pairs, not only neighbours."""
    scale = max((abs(v) for v in values), default=0.0)
    pairs = [abs(a - b) for a, b in itertools.combinations(values, 2)]
    return min(pairs, default=math.inf) / max(scale, 1e-300) if pairs else math.inf


@settings(max_examples=60)
@given(st.lists(st.integers(-40, 40), min_size=1, max_size=8))
def test_the_gap_of_neighbours_is_the_gap_of_all_pairs(numbers: list[int]) -> None:
    values = sorted(float(n) for n in numbers)
    assert float(eigengap(torch.tensor(values, dtype=torch.float64))) == pytest.approx(slow_gap(values))


@settings(max_examples=20)
@given(st.integers(0, 2**31), st.floats(1e-3, 1e3))
def test_the_relative_gap_does_not_change_with_scale(seed: int, factor: float) -> None:
    a = torch.randn(3, 6, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    a = a + a.mT
    torch.testing.assert_close(exact_eigengap(a), exact_eigengap(factor * a), rtol=1e-6, atol=1e-12)


def planted(seed: int, values: list[float], *, turned: bool) -> torch.Tensor:
    """A matrix with exactly these values: Hermitian with eigenvalues, or else (`turned`) with singular values."""
    rng = np.random.default_rng(seed)
    left, right = (np.linalg.qr(rng.standard_normal((len(values), len(values))))[0] for _ in range(2))
    return torch.from_numpy(left @ np.diag(values) @ (right if turned else left.T))


spectra = st.lists(st.integers(1, 60), min_size=2, max_size=7).map(lambda numbers: [n / 8 for n in numbers])


@settings(max_examples=40)
@given(st.integers(0, 2**31), spectra, st.booleans())
def test_planted_gaps_are_found(seed: int, values: list[float], turned: bool) -> None:
    found = exact_eigengap(planted(seed, values, turned=turned), "singular" if turned else "hermitian")
    assert float(found) == pytest.approx(slow_gap(values), abs=1e-11)


@settings(max_examples=40)
@given(st.integers(0, 2**31), spectra)
def test_planted_multiplicities_are_counted(seed: int, values: list[float]) -> None:
    found = torch.linalg.eigvalsh(planted(seed, values, turned=False))
    expected = tuple(len(list(group)) for _, group in itertools.groupby(sorted(values)))
    assert multiplicities(found) == expected


@settings(max_examples=40)
@given(st.integers(0, 2**31), st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=1, max_size=7))
def test_the_gap_of_complex_eigenvalues_is_that_of_all_pairs(seed: int, pairs: list[tuple[int, int]]) -> None:
    values = [complex(*pair) for pair in pairs]
    shuffled = np.random.default_rng(seed).permutation(np.array(values))
    assert float(scattered_eigengap(torch.from_numpy(shuffled))) == pytest.approx(slow_gap(values))


@settings(max_examples=40)
@given(st.integers(0, 2**31), spectra)
def test_a_planted_condition_number_is_found(seed: int, values: list[float]) -> None:
    a = planted(seed, values, turned=True)
    assert float(condition_number(torch.linalg.svdvals(a))) == pytest.approx(np.linalg.cond(a.numpy()), rel=1e-9)
    assert float(condition_number(torch.tensor(values))) == pytest.approx(max(values) / min(values))


@settings(max_examples=30)
@given(st.integers(0, 2**31), st.integers(1, 6), st.integers(1, 6), st.floats(0, 1))
def test_residual_and_orthogonality_are_those_of_numpy(seed: int, m: int, n: int, error: float) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((2, max(m, n), n))
    b = a + error * b
    expected = np.linalg.norm(b - a) / np.linalg.norm(a)
    assert float(residual(torch.from_numpy(b), torch.from_numpy(a))) == pytest.approx(expected, abs=1e-15)
    q = scipy.linalg.orth(a)
    spoiled = q + error * rng.standard_normal(q.shape)
    loss = np.linalg.norm(spoiled.T @ spoiled - np.eye(q.shape[1]))
    assert float(orthogonality(torch.from_numpy(spoiled))) == pytest.approx(loss, abs=1e-14)


def test_the_norm_of_large_and_of_no_numbers() -> None:
    assert float(frobenius(torch.full((2, 2), 1e300, dtype=torch.float64))) == pytest.approx(2e300)
    assert float(frobenius(torch.zeros(2, 2))) == 0.0
    assert frobenius(torch.zeros(3, 0, 2)).tolist() == [0.0, 0.0, 0.0]
    assert float(residual(torch.zeros(2, 2), torch.zeros(2, 2))) == 0.0


def test_singular_matrices_have_an_infinite_condition_number() -> None:
    assert condition_number(torch.tensor([[2.0, 0.0], [0.0, 0.0], [4.0, 2.0]])).tolist() == [math.inf, math.inf, 2.0]
    assert condition_number(torch.ones(2, 0)).tolist() == [1.0, 1.0]


def test_the_limits_follow_the_precision_and_the_order() -> None:
    assert condition_limit(torch.float32, 8) == pytest.approx(2**20) and condition_limit(torch.float64, 8) > 1e14
    assert error_limit(torch.float32, 10) == pytest.approx(1000 * 2**-23)
    sound = torch.linalg.qr(torch.randn(40, 40, generator=torch.Generator().manual_seed(0)))[0]
    assert float(orthogonality(wide(sound))) < error_limit(torch.float32, 40) / 20


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
    assert scattered_eigengap(torch.ones(2, 1, dtype=torch.complex64)).tolist() == [math.inf, math.inf]
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
    assert float(exact_eigengap(torch.diag(torch.tensor([3.0, -3.0])), "singular")) == 0.0
    assert relative_gaps(torch.tensor([4.0, 2.0, 1.0])).tolist() == [0.5, 0.25]


def test_samples_are_found_in_every_usual_arrangement() -> None:
    assert sample_of(7, (4, 5), 4) == 1  # (B, T)
    assert sample_of(7, (5, 4), 4) == 3  # (T, B)
    assert sample_of(7, (20,), 4) == 1  # (B·T,)
    assert sample_of(3, (4,), 4) == 3
    assert sample_of(7, (21,), 4) is None
    assert sample_of(0, (), 1) == 0 and sample_of(0, (), None) is None
