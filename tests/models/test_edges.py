"""Similarity, edge weights and the sparse symmetric graph."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from brainbrr import config
from brainbrr.models.adjacency import Adjacency, isolated, pair_index, pair_lookup, sparsify
from brainbrr.models.edges import EdgeStream, similarity


def features(seed: int = 0, *, scale: float = 1.0, steps: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, steps, 19, 8, generator=generator) * scale


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**16),
    scale=st.sampled_from([1e-6, 1e-2, 1.0, 1e6]),
    kind=st.sampled_from(["cosine", "correlation"]),
)
def test_similarity_is_bounded_and_finite_at_any_scale(seed: int, scale: float, kind: Any) -> None:
    found = similarity(features(seed, scale=scale), kind)
    assert found.shape == (2, 171, 4)
    assert found.abs().max() <= 1 + 1e-6


def test_similarity_is_cosine_and_correlation() -> None:
    x = features()
    first, second = pair_index(19)
    expected = torch.nn.functional.cosine_similarity(x[:, :, first], x[:, :, second], dim=-1).transpose(1, 2)
    torch.testing.assert_close(similarity(x, "cosine"), expected, rtol=0, atol=1e-4)
    coefficients = torch.corrcoef(x[1, 2])[first, second]
    torch.testing.assert_close(similarity(x, "correlation")[1, :, 2], coefficients, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", ["cosine", "correlation"])
def test_a_zero_vector_is_finite_forward_and_backward(kind: Any) -> None:
    x = features()
    x[0, 1, 3] = 0
    x[1] = 0
    x.requires_grad_()
    found = similarity(x, kind)
    assert (found[1] == 0).all()
    (found * torch.randn_like(found)).sum().backward()
    assert x.grad is not None
    assert x.grad.abs().max() < 1e3


def test_pairs_are_numbered_row_by_row() -> None:
    first, second = pair_index(19)
    assert [(int(a), int(b)) for a, b in zip(first[:2], second[:2], strict=True)] == [(0, 1), (0, 2)]
    lookup = pair_lookup(19)
    assert torch.equal(lookup, lookup.T)
    assert torch.equal(lookup[first, second], torch.arange(171))


@settings(max_examples=40)
@given(seed=st.integers(0, 2**16), top_k=st.integers(1, 18), threshold=st.sampled_from([0.0, 1e-4, 0.5, 0.9]))
def test_a_graph_is_symmetric_and_keeps_the_largest_above_the_threshold(
    seed: int, top_k: int, threshold: float
) -> None:
    weights = torch.rand(2, 171, 3, generator=torch.Generator().manual_seed(seed))
    build = Adjacency(top_k=top_k, threshold=threshold)
    adjacency = build(weights)
    assert adjacency.shape == (2, 3, 19, 19)
    assert torch.equal(adjacency, adjacency.transpose(-1, -2))
    assert (adjacency >= 0).all()
    assert (adjacency.sum(-1) > 0).all()
    diagonal = adjacency.diagonal(dim1=-2, dim2=-1)
    off = adjacency - torch.diag_embed(diagonal)
    assert build.isolated.read() == int(diagonal.sum())
    assert ((off.sum(-1) == 0) == (diagonal == 1)).all()
    kept = off > 0
    dense = weights.transpose(1, 2)[..., pair_lookup(19)]
    assert (dense[kept] > threshold).all()
    # An edge is in the graph exactly when it is among the top k of one of its ends.
    rank = dense.masked_fill(torch.eye(19, dtype=torch.bool), -1).argsort(-1, descending=True).argsort(-1)
    chosen = (rank < top_k) & (dense > threshold) & ~torch.eye(19, dtype=torch.bool)
    assert torch.equal(kept, chosen | chosen.transpose(-1, -2))
    mutual = chosen & chosen.transpose(-1, -2)
    torch.testing.assert_close(off[mutual], dense[mutual])
    torch.testing.assert_close(off[kept & ~mutual], dense[kept & ~mutual] / 2)


def test_an_isolated_electrode_gets_a_counted_self_loop() -> None:
    build = Adjacency(top_k=3, threshold=0.5)
    weights = torch.full((1, 171, 2), 0.1)
    adjacency = build(weights)
    assert torch.equal(adjacency, torch.eye(19).expand(1, 2, 19, 19))
    assert build.isolated.read() == 38


def test_a_nan_weight_is_no_edge() -> None:
    dense = torch.rand(19, 19)
    dense[2, 5] = dense[5, 2] = torch.nan
    graph = sparsify(dense, top_k=18, threshold=0.0)
    assert graph.isfinite().all()
    assert graph[2, 5] == 0
    assert not isolated(graph).any()


def stream(**changes: Any) -> EdgeStream:
    graph = config.Graph(edge_mamba_d_model=8, edge_mamba_d_state=4, **changes)
    return EdgeStream(graph, config.Mamba(dropout=0), norm=True, bias=True, checkpoint=False)


def test_weights_are_positive_and_each_step_sees_all_steps() -> None:
    edges = stream()
    x = features(steps=9)
    changed = x.clone()
    changed[:, 4] = features(1)[:, 0]
    weights = edges(x)
    assert weights.shape == (2, 171, 9)
    assert (weights > 0).all()
    assert ((edges(changed) - weights).abs().amax((0, 1)) > 0).all()


def test_without_layers_the_weight_is_a_function_of_the_similarity_at_that_step() -> None:
    edges = stream(edge_mamba_layers=0)
    assert sum(parameter.numel() for parameter in edges.parameters()) == 2
    x = features()
    expected = torch.nn.functional.softplus(4 * similarity(x))
    torch.testing.assert_close(edges(x), expected)


def test_pairs_share_the_stream() -> None:
    edges = stream()
    x = features()
    turned = x.roll(1, dims=2)
    lookup = pair_lookup(19)
    one, other = edges(x)[:, lookup], edges(turned)[:, lookup]
    apart = ~torch.eye(19, dtype=torch.bool)
    moved = one.roll((1, 1), dims=(1, 2))
    torch.testing.assert_close(other[:, apart], moved[:, apart], rtol=1e-4, atol=1e-5)
