"""Eigenvectors of the Laplacian: convention, and the gradient at and away from repeated eigenvalues."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from brainbrr.models.laplacian import (
    RELATIVE_GAP,
    SafeEigenvectors,
    laplacian,
    normalised_adjacency,
    orient,
    raw_eigenvectors,
    safe_eigenvectors,
)
from brainbrr.models.tally import Tally
from tests.models import graphs


def filtered(matrix: Tensor, k: int, eigenvectors: object = safe_eigenvectors) -> Tensor:
    """Σ of weighted projectors v vᵀ: it knows nothing of the vectors' signs, and weights break the symmetry."""
    vectors = eigenvectors((matrix + matrix.transpose(-1, -2)) / 2, k)  # type: ignore[operator]
    weights = torch.linspace(1, 3, k, dtype=matrix.dtype)
    return (vectors * weights) @ vectors.transpose(-1, -2)


@pytest.mark.parametrize("name", list(graphs.named()))
def test_the_laplacian_of_any_graph_is_finite_with_eigenvalues_in_0_to_2(name: str) -> None:
    values = torch.linalg.eigvalsh(laplacian(graphs.named()[name]))
    assert values.min() >= -1e-9 and values.max() <= 2 + 1e-9


def test_normalised_adjacency_of_an_empty_row_is_zero_with_a_finite_gradient() -> None:
    adjacency = graphs.random()
    adjacency[4] = adjacency[:, 4] = 0
    adjacency.requires_grad_()
    scaled = normalised_adjacency(adjacency)
    assert (scaled[4] == 0).all()
    scaled.square().sum().backward()
    assert adjacency.grad is not None
    assert adjacency.grad.isfinite().all()


@settings(max_examples=15)
@given(seed=st.integers(0, 2**16), k=st.integers(1, 18))
def test_safe_is_exact_where_gaps_are_above_a_twentieth(seed: int, k: int) -> None:
    values = torch.linspace(0, 2, graphs.ELECTRODES, dtype=torch.float64)  # gaps of 0.11, 0.056 of the largest
    matrix = graphs.from_eigenvalues(values, seed).requires_grad_()
    upstream = torch.randn(graphs.ELECTRODES, graphs.ELECTRODES, dtype=torch.float64)
    mine = torch.autograd.grad(filtered(matrix, k), matrix, upstream)[0]
    theirs = torch.autograd.grad(filtered(matrix, k, raw_eigenvectors), matrix, upstream)[0]
    torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)


def test_gradcheck_of_safe_through_a_sign_invariant_function() -> None:
    values = torch.tensor([0.0, 0.3, 0.5, 0.9, 1.3, 1.4, 2.0], dtype=torch.float64)  # gaps of 0.05 and more
    matrix = graphs.from_eigenvalues(values).requires_grad_()
    assert torch.autograd.gradcheck(lambda m: filtered(m, 4), (matrix,))


def test_safe_drops_and_counts_exactly_the_close_pairs() -> None:
    values = torch.tensor([0.0, 0.4, 0.4 + RELATIVE_GAP, 1.0, 1.5, 1.5, 2.0], dtype=torch.float64)
    matrix = graphs.from_eigenvalues(values)
    for k, expected in [(7, 2), (5, 2), (4, 1), (1, 0)]:
        dropped = Tally()
        given_matrix = matrix.expand(3, -1, -1).clone().requires_grad_()
        filtered(given_matrix, k, lambda m, k, d=dropped: safe_eigenvectors(m, k, d)).sum().backward()
        assert dropped.read() == 3 * expected, k
    exact = Tally()
    wide = values.clone()
    wide[2], wide[5] = 0.4 + 3 * RELATIVE_GAP, 1.6
    spread = graphs.from_eigenvalues(wide).requires_grad_()
    filtered(spread, 7, lambda m, k: safe_eigenvectors(m, k, exact)).sum().backward()
    assert exact.read() == 0
    exact.reset()
    assert exact.read() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", list(graphs.named()))
def test_safe_is_finite_on_every_graph(name: str, dtype: torch.dtype) -> None:
    adjacency = graphs.named()[name].to(dtype).requires_grad_()
    vectors = safe_eigenvectors(laplacian(adjacency), 16)
    (vectors * torch.randn_like(vectors)).sum().backward()
    assert adjacency.grad is not None
    assert adjacency.grad.isfinite().all()


@pytest.mark.parametrize("name", ["complete", "zero", "identity", "star"])
def test_raw_is_finite_forward_and_nan_backward_on_the_same_graphs(name: str) -> None:
    adjacency = graphs.named()[name].float().requires_grad_()
    vectors = raw_eigenvectors(laplacian(adjacency), 16)
    assert vectors.isfinite().all()
    node = vectors.grad_fn
    assert node is not None and node.next_functions[0][0] is not None
    assert node.next_functions[0][0].name() == "LinalgEighBackward0"
    (vectors * torch.randn_like(vectors)).sum().backward()
    assert adjacency.grad is not None
    assert adjacency.grad.isnan().any()


def test_raw_and_safe_give_the_same_vectors() -> None:
    matrix = laplacian(graphs.random())
    torch.testing.assert_close(safe_eigenvectors(matrix, 7), raw_eigenvectors(matrix, 7), rtol=0, atol=0)


def test_safe_is_differentiable_once() -> None:
    matrix = laplacian(graphs.random()).requires_grad_()
    vectors = SafeEigenvectors.apply(matrix, 4, None)
    gradient = torch.autograd.grad(vectors.pow(3).sum(), matrix, create_graph=True)[0]
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_orientation_ignores_the_sign_it_was_given_and_is_not_decided_by_rounding() -> None:
    vectors = raw_eigenvectors(laplacian(graphs.random()), 16)
    signs = torch.where(torch.rand(16, dtype=torch.float64) < 0.5, -1.0, 1.0)
    torch.testing.assert_close(orient(vectors * signs), orient(vectors), rtol=0, atol=0)
    # Equal and opposite entries, as the mirror symmetry of a graph makes them, off by rounding in either direction.
    pair = torch.tensor([0.1, 0.7, 0.0, -0.7])
    for error in (-1e-7, 1e-7):
        assert orient((pair + torch.tensor([0, error, 0, 0]))[:, None])[1] > 0
