"""The positional encodings: one convention, the interval, smoothness of the resolvent."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from brainbrr import config
from brainbrr.config import ELECTRODES
from brainbrr.models import encoding
from brainbrr.models.encoding import (
    Encoding,
    LaplacianEncoding,
    ResolventEncoding,
    StaticEncoding,
    build_encoding,
    montage_adjacency,
    montage_eigenvectors,
)
from brainbrr.models.laplacian import JITTER, laplacian, repaired
from tests.models import graphs


def build(**changes: Any) -> Encoding:
    return build_encoding(config.Graph(**changes))


def batch(steps: int = 5) -> Tensor:
    return torch.stack([graphs.random(seed) for seed in range(2 * steps)]).unflatten(0, (2, steps)).float()


VARIANTS: dict[str, dict[str, Any]] = {
    "safe": {},
    "detached": {"pe_gradient": "detached"},
    "raw": {"pe_gradient": "raw"},
    "resolvent": {"pe": "resolvent"},
    "static": {"use_dynamic_pe": False},
}


@pytest.mark.parametrize("variant", list(VARIANTS))
@pytest.mark.parametrize("k", [1, 16, 18])
def test_every_encoding_has_the_same_shape_and_scale(variant: str, k: int) -> None:
    found = build(**VARIANTS[variant], k_eigenvectors=k)(batch())
    assert found.shape == (2, 5, 19, k)
    assert found.dtype == torch.float32
    assert 0.1 < found.square().mean().sqrt() < 1.5


def test_each_option_builds_what_it_names() -> None:
    assert isinstance(build(), LaplacianEncoding)
    assert isinstance(build(pe="resolvent"), ResolventEncoding)
    assert isinstance(build(use_dynamic_pe=False), StaticEncoding)
    assert not any(True for variant in VARIANTS.values() for _ in build(**variant).state_dict())


def test_static_is_dynamic_on_the_fixed_graph() -> None:
    fixed = montage_adjacency().float().expand(2, 3, -1, -1)
    torch.testing.assert_close(build()(fixed), build(use_dynamic_pe=False)(fixed), rtol=1e-3, atol=1e-3)


def test_the_fixed_graph_is_connected_symmetric_and_free_of_repeated_eigenvalues() -> None:
    adjacency = montage_adjacency()
    assert torch.equal(adjacency, adjacency.T)
    values = torch.linalg.eigvalsh(laplacian(adjacency))
    assert values[1] > 0.1
    assert values.diff().min() > 0.006 * values.max()
    mirror = [ELECTRODES.index(_across(name)) for name in ELECTRODES]
    assert torch.equal(adjacency[mirror][:, mirror], adjacency)
    vectors = montage_eigenvectors(18)
    torch.testing.assert_close(vectors.T @ vectors, torch.eye(18), rtol=0, atol=1e-5)


def _across(name: str) -> str:
    """The electrode on the other side of the head: odd numbers lie left, even ones right, z in the middle."""
    if name.endswith("z"):
        return name
    number = int(name[-1])
    return f"{name[:-1]}{number + 1 if number % 2 else number - 1}"


@pytest.mark.parametrize("variant", ["safe", "resolvent"])
def test_an_interval_computes_only_the_steps_it_keeps_and_holds_them(
    variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[int] = []
    held = build(**VARIANTS[variant], semi_dynamic_interval=3)
    original = type(held).encode
    monkeypatch.setattr(type(held), "encode", lambda self, a: computed.append(a.shape[1]) or original(self, a))
    graphs_in = batch(steps=8)
    found = held(graphs_in)
    assert computed == [3]
    every = build(**VARIANTS[variant])(graphs_in)
    torch.testing.assert_close(found, every[:, [0, 0, 0, 3, 3, 3, 6, 6]], rtol=1e-4, atol=1e-4)


def test_an_unused_degenerate_step_does_no_harm_with_an_interval() -> None:
    adjacency = batch(steps=4)
    adjacency[:, 1::2] = graphs.complete().float()
    adjacency.requires_grad_()
    build(pe_gradient="raw", semi_dynamic_interval=2)(adjacency).square().sum().backward()
    assert adjacency.grad is not None
    assert adjacency.grad.isfinite().all()


def nodes_behind(found: Tensor) -> list[str]:
    """The names of the autograd nodes that `found` came from."""
    seen: dict[int, Any] = {}
    nodes = [found.grad_fn]
    while nodes:
        node = nodes.pop()
        if node is not None and id(node) not in seen:
            seen[id(node)] = node
            nodes += [following for following, _ in node.next_functions]
    return [node.name() for node in seen.values()]


@pytest.mark.parametrize(
    ("repair", "node", "more"), [("clamp_eigenvalues", "LinalgEighBackward0", 1), ("jitter", "AddBackward0", 1)]
)
def test_a_historical_repair_alters_what_is_decomposed(repair: str, node: str, more: int) -> None:
    adjacency = batch().requires_grad_()
    plain, other = build(pe_gradient="raw")(adjacency), build(pe_gradient="raw", pe_repair=repair)(adjacency)
    assert nodes_behind(other).count(node) == nodes_behind(plain).count(node) + more
    torch.testing.assert_close(other, plain, rtol=1e-2, atol=1e-2)


def test_nan_to_num_stands_behind_the_vectors() -> None:
    adjacency = batch().requires_grad_()
    assert "NanToNumBackward0" in nodes_behind(build(pe_gradient="raw", pe_repair="nan_to_num")(adjacency))


def test_jitter_moves_every_eigenvalue_and_no_gap() -> None:
    matrix = laplacian(batch().double())
    before, after = (torch.linalg.eigvalsh(x) for x in (matrix, repaired(matrix, "jitter")))
    torch.testing.assert_close(after - before, torch.full_like(before, JITTER), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", list(graphs.named()))
def test_gradcheck_of_the_resolvent_on_every_graph(name: str) -> None:
    resolvent = ResolventEncoding(4, 1).double()
    adjacency = graphs.named()[name][None, None].requires_grad_()
    assert torch.autograd.gradcheck(lambda a: resolvent((a + a.transpose(-1, -2)) / 2), (adjacency,), fast_mode=True)


def test_the_resolvent_filters_what_it_says() -> None:
    looped = torch.where(torch.eye(19) > 0, 1.0, graphs.random().float())
    values, vectors = torch.linalg.eigh(laplacian(looped))
    gains = 1 / (1 + encoding.SMOOTHING * values)
    expected = vectors @ torch.diag(gains) @ vectors.T @ montage_eigenvectors(5) * 19**0.5
    found = build(pe="resolvent", k_eigenvectors=5)(graphs.random().float()[None, None])[0, 0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_gradients_reach_the_graph_only_where_the_option_says() -> None:
    for variant, reaches in [
        ("safe", True),
        ("raw", True),
        ("resolvent", True),
        ("detached", False),
        ("static", False),
    ]:
        adjacency = batch().requires_grad_()
        assert build(**VARIANTS[variant])(adjacency).requires_grad is reaches


def test_dropped_pairs_are_counted() -> None:
    safe = build()
    adjacency = torch.stack([graphs.complete(), graphs.random()]).float()[None].requires_grad_()
    safe(adjacency).square().sum().backward()
    # The complete graph repeats one eigenvalue 18 times; of those 15 belong to kept columns: 15·14/2 + 15·3 pairs.
    assert safe.counters() == {"dropped_pairs": 150}
    assert build(pe="resolvent").counters() == {}


def test_autocast_leaves_the_decomposition_in_float32() -> None:
    for variant in VARIANTS.values():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert build(**variant)(batch().bfloat16()).dtype == torch.float32
