"""The incident's mechanism in the model itself: a flat stretch makes a degenerate graph in the historical network."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from brainbrr import config
from brainbrr.models.detector import Detector, build_detector
from brainbrr.models.laplacian import laplacian

SAMPLES = 2560
UPSTREAM = ("tcn", "to_electrodes", "graph.edges")
DOWNSTREAM = ("nodes", "graph.convs", "from_electrodes", "head")


def historical(*, edge_layers: int = 1, norm: bool = False, bias: bool = False, **graph: Any) -> Detector:
    torch.manual_seed(0)
    model = config.Model(
        norm=norm,
        bias=bias,
        tcn=config.TCN(num_layers=3, channels=(8,), stride_down=128, dropout=0),
        mamba=config.Mamba(n_layers=1, d_model=8, d_state=4, headdim=4, chunk_size=4, dropout=0),
        graph=config.Graph(
            edge_mamba_layers=edge_layers, edge_mamba_d_model=8, edge_mamba_d_state=4, dropout=0, **graph
        ),
    )
    return build_detector(model)


def windows(flat: slice | None) -> Tensor:
    signal = torch.randn(4, 19, SAMPLES, generator=torch.Generator().manual_seed(1))
    if flat is not None:
        signal[2, :, flat] = 0
    return signal


def not_finite(detector: Detector, signal: Tensor) -> dict[str, tuple[int, int]]:
    """Of every component, how many parameters have a gradient that is not finite, and how many it has."""
    logits = detector(signal)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, torch.zeros_like(logits))
    assert logits.isfinite().all()
    assert loss.isfinite()
    loss.backward()
    counts: dict[str, tuple[int, int]] = {}
    for component in (*UPSTREAM, *DOWNSTREAM):
        gradients = [p.grad for p in detector.get_submodule(component).parameters()]
        bad = [gradient is None or not gradient.isfinite().all() for gradient in gradients]
        counts[component] = (sum(bad), len(bad))
    return counts


FLAT = {"all of it": slice(None), "a part of it": slice(1000, 2000)}


@pytest.mark.parametrize("edge_layers", [0, 1, 2])
@pytest.mark.parametrize("flat", list(FLAT))
def test_raw_gradient_is_nan_exactly_upstream_of_the_encoding(flat: str, edge_layers: int) -> None:
    counts = not_finite(historical(pe_gradient="raw", edge_layers=edge_layers), windows(FLAT[flat]))
    for component in UPSTREAM:
        bad, parameters = counts[component]
        assert bad == parameters > 0, component
    for component in DOWNSTREAM:
        assert counts[component][0] == 0, component


def test_the_flat_steps_have_equal_weights_and_a_repeated_eigenvalue() -> None:
    detector = historical(pe_gradient="raw")
    seen: dict[str, Tensor] = {}
    for name in ("graph.edges", "graph.adjacency"):
        detector.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: seen.__setitem__(name, output.detach())
        )
    detector(windows(slice(1000, 2000)))
    spread = seen["graph.edges"].amax(1) - seen["graph.edges"].amin(1)  # (B,T)
    flat_steps = spread[2] == 0
    assert 3 <= int(flat_steps.sum()) <= 7
    assert (spread[[0, 1, 3]] > 0).all()
    values = torch.linalg.eigvalsh(laplacian(seen["graph.adjacency"].double()))
    gap = values.diff(dim=-1).amin(-1) / values.amax(-1)
    assert (gap[2][flat_steps] < 1e-6).all()
    assert (gap[[0, 1, 3]] > 1e-6).all()


def test_without_the_flat_window_the_same_step_is_healthy() -> None:
    counts = not_finite(historical(pe_gradient="raw"), windows(None))
    assert not any(bad for bad, _ in counts.values())


SAFE: dict[str, dict[str, Any]] = {
    "safe": {"pe_gradient": "safe"},
    "detached": {"pe_gradient": "detached"},
    "resolvent": {"pe": "resolvent", "pe_gradient": "raw"},
    "static": {"use_dynamic_pe": False, "pe_gradient": "raw"},
}


@pytest.mark.parametrize("flat", list(FLAT))
@pytest.mark.parametrize("repair", list(SAFE))
def test_each_repair_alone_heals_the_step(repair: str, flat: str) -> None:
    detector = historical(**SAFE[repair])
    counts = not_finite(detector, windows(FLAT[flat]))
    assert not any(bad for bad, _ in counts.values())
    assert (detector.counters().get("graph.pe.dropped_pairs", 0) > 0) == (repair == "safe")


def test_the_stable_network_passes_the_window_even_with_the_raw_gradient() -> None:
    # With norms and biases a flat window has features that differ between electrodes: no tie arises.
    counts = not_finite(historical(norm=True, bias=True, pe_gradient="raw"), windows(slice(None)))
    assert not any(bad for bad, _ in counts.values())


def test_a_poisoned_update_kills_every_logit_of_the_next_batch() -> None:
    detector = historical(pe_gradient="raw")
    optimizer = torch.optim.AdamW(detector.parameters())
    not_finite(detector, windows(slice(None)))
    torch.nn.utils.clip_grad_norm_(detector.parameters(), 0.1)
    optimizer.step()
    assert not any(parameter.isfinite().any() for parameter in detector.parameters())
    assert detector(windows(None)).isnan().all()


def test_two_neighbours_repeat_the_eigenvalue_one_without_any_artefact() -> None:
    # Electrodes that hang on the same hubs are interchangeable: eigenvalue 1, repeated, whatever the weights.
    from brainbrr.models.adjacency import Adjacency

    weights = torch.rand(1, 171, 6000, generator=torch.Generator().manual_seed(0))
    repeated = {}
    for top_k in (2, 3):
        adjacency = Adjacency(top_k=top_k, threshold=1e-4)(weights).double()
        values = torch.linalg.eigvalsh(laplacian(adjacency))
        close = (values.diff(dim=-1) < 1e-9) & ((values[..., 1:] - 1).abs() < 1e-9)
        repeated[top_k] = close.any(-1).double().mean().item()
    assert 0.005 < repeated[2] < 0.08
    assert repeated[3] < 0.002


PLACEBOS: dict[str, dict[str, Any]] = {
    "eigenvalue clamp": {"pe_repair": "clamp_eigenvalues"},
    "nan_to_num on the eigenvectors": {"pe_repair": "nan_to_num"},
    "jitter": {"pe_repair": "jitter"},
    "no edge stream": {"edge_layers": 0},
}


@pytest.mark.parametrize("repair", list(PLACEBOS))
def test_no_repair_that_was_tried_at_the_time_reaches_the_gradient(repair: str) -> None:
    counts = not_finite(historical(pe_gradient="raw", **PLACEBOS[repair]), windows(slice(None)))
    assert all(counts[component][0] for component in UPSTREAM)
