"""SSGConv: the formula, both backends, the layers around it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from brainbrr import config
from brainbrr.models.adjacency import Adjacency
from brainbrr.models.gnn import DenseConvolution, Graph, GraphLayer, PygConvolution, with_self_loops
from tests.models import graphs


def learned_graphs(seed: int = 0) -> Tensor:
    weights = torch.rand(2, 171, 3, generator=torch.Generator().manual_seed(seed))
    weights[0, :, 1] = 0  # a graph of isolated electrodes: self-loops of 1 already there
    return Adjacency(top_k=3, threshold=1e-4)(weights)


def test_the_formula_written_out() -> None:
    layer = DenseConvolution(5, 4, alpha=0.2, hops=3)
    adjacency, x = graphs.random().float(), torch.randn(19, 5)
    looped = adjacency + torch.eye(19)
    root = looped.sum(-1).rsqrt()
    spread = root[:, None] * looped * root
    mixed = 0.2 * x + 0.8 / 3 * (spread @ x + spread @ spread @ x + spread @ spread @ spread @ x)
    found = layer(x[None, None], adjacency[None, None])[0, 0]
    torch.testing.assert_close(found, layer.lin(mixed), rtol=1e-5, atol=1e-5)


def test_self_loops_are_added_only_where_there_are_none() -> None:
    adjacency = torch.tensor([[0.0, 0.5], [0.5, 0.25]])
    assert torch.equal(with_self_loops(adjacency), torch.tensor([[1.0, 0.5], [0.5, 0.25]]))


def test_dense_equals_torch_geometric_forward_and_backward() -> None:
    dense = DenseConvolution(6, 5, alpha=0.05, hops=2)
    reference = PygConvolution(6, 5, alpha=0.05, hops=2)
    reference.load_state_dict(dense.state_dict())
    x = torch.randn(2, 3, 19, 6, requires_grad=True)
    adjacency = learned_graphs().requires_grad_()
    upstream = torch.randn(2, 3, 19, 5)
    results = []
    for layer in (dense, reference):
        out = layer(x, adjacency)
        wanted = (x, adjacency, *layer.parameters())
        results.append([out, *torch.autograd.grad(out, wanted, upstream)])
    # The sparse form knows no gradient of an edge that is not there; of an edge that is, only the sum of its two
    # entries means anything, because each form reads the degree from another side.
    there = adjacency > 0
    for gradients in results:
        gradients[2] = (gradients[2] + gradients[2].transpose(-1, -2))[there]
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)


def test_the_reference_survives_a_copy_and_a_change_of_dtype() -> None:
    import copy

    layer = copy.deepcopy(PygConvolution(3, 3, alpha=0.05, hops=2)).double()
    with torch.no_grad():
        layer.lin.weight.zero_()
    out = layer(torch.randn(1, 2, 19, 3, dtype=torch.float64), learned_graphs()[:1, :2].double())
    torch.testing.assert_close(out, layer.lin.bias.expand_as(out))


@pytest.mark.parametrize("residual", [True, False])
def test_the_residual_carries_the_first_features(residual: bool) -> None:
    graph = config.Graph(use_residual=residual, dropout=0)
    layer = GraphLayer(graph, 8, 5, norm=True)
    assert isinstance(layer.norm, torch.nn.LayerNorm)
    torch.nn.init.zeros_(layer.norm.weight)
    x = torch.randn(1, 2, 19, 8)
    expected = x[..., :5] if residual else torch.zeros(1, 2, 19, 5)
    torch.testing.assert_close(layer(x, learned_graphs()[:1, :2]), expected)


def build(**changes: Any) -> Graph:
    options = config.Graph(edge_mamba_d_model=8, edge_mamba_d_state=4, dropout=0, **changes)
    return Graph(options, config.Mamba(dropout=0), 8, norm=True, bias=True, checkpoint=False).eval()


def test_the_encoding_enters_the_first_layer_only() -> None:
    graph = build(n_layers=3, k_eigenvectors=5)
    widths = [layer.convolution.lin.in_features for layer in graph.convs]  # type: ignore[union-attr]
    assert widths == [13, 8, 8]


def test_the_graph_comes_from_the_features_in_front_of_the_node_stream() -> None:
    graph = build(edge_top_k=2)
    nodes, electrodes = torch.randn(2, 1, 4, 19, 8).unbind(0)
    seen: list[Tensor] = []
    graph.adjacency.register_forward_hook(lambda module, inputs, output: seen.append(output))
    out = graph(nodes, electrodes)
    assert out.shape == (1, 4, 19, 8)
    graph(torch.randn_like(nodes), electrodes)
    assert torch.equal(seen[0], seen[1])
    graph(nodes, torch.randn_like(electrodes))
    assert not torch.equal(seen[0], seen[2])


def test_backends_give_the_same_graph_stage() -> None:
    dense, reference = build(), build(backend="pyg")
    reference.load_state_dict(dense.state_dict())
    nodes, electrodes = torch.randn(2, 2, 4, 19, 8).unbind(0)
    torch.testing.assert_close(dense(nodes, electrodes), reference(nodes, electrodes), rtol=1e-5, atol=1e-5)


def test_counters_are_named_by_their_module() -> None:
    assert build().counters() == {"adjacency.isolated": 0, "pe.dropped_pairs": 0}
    assert build(pe="resolvent").counters() == {"adjacency.isolated": 0}
