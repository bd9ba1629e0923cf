from __future__ import annotations

from typing import Any

import pytest
import torch

from brainbrr.config import Config
from brainbrr.configure import build_config
from brainbrr.models.inventory import activation_bytes, inventory, size
from brainbrr.training.setup import build_setup, new_detector

BATCH = 3


def small(**model: Any) -> Config:
    """A detector with every stage; windows of 8 s, 16 steps."""
    graph = {"n_layers": 1, "edge_mamba_layers": 1, "edge_mamba_d_model": 4, "edge_mamba_d_state": 4}
    sections: dict[str, Any] = {
        "tcn": {"num_layers": 2, "channels": [8], "stride_down": 128},
        "mamba": {"backend": "torch", "n_layers": 1, "d_model": 8, "d_state": 4, "headdim": 4, "chunk_size": 4},
        "graph": graph,
    }
    return build_config({"data": {"window_size": 8}, "evaluation": {"stride": 8}, "model": {**sections, **model}})


def kept_for_backward(config: Config) -> int:
    """Bytes of all tensors that autograd saves in a forward pass of BATCH windows, parameters and input aside."""
    detector = new_detector(config)
    signal = torch.randn(BATCH, 19, 2048)
    known = {tensor.untyped_storage().data_ptr() for tensor in (signal, *detector.parameters(), *detector.buffers())}
    saved: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            saved[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        logits = detector(signal)
    del logits
    return sum(storage.nbytes() for storage in saved.values())


@pytest.mark.parametrize(
    "model",
    [
        {},
        {"architecture": "tcn"},
        {"architecture": "v2", "mamba": {"backend": "torch", "n_layers": 1, "d_model": 8, "headdim": 4}},
        {"norm": False, "bias": False},
        {"graph": {"pe": "resolvent", "n_layers": 2, "edge_mamba_layers": 0}},
    ],
    ids=["v3", "tcn", "v2", "bare", "resolvent"],
)
def test_what_short_windows_show_holds_for_a_batch_of_long_ones(model: dict[str, Any]) -> None:
    config = small(**model)
    estimate = sum(activation_bytes(new_detector(config), 2048, BATCH).values())
    saved = kept_for_backward(config)
    assert 0.99 * saved <= estimate <= 1.1 * saved + BATCH * 4 * 2048  # and the logits, which the loss keeps


def test_recomputed_activations_are_not_counted_but_their_layers_inputs_are() -> None:
    plain, recomputed = (
        activation_bytes(new_detector(small(checkpoint_activations=on)), 2048, BATCH) for on in (False, True)
    )
    inputs = BATCH * 19 * 16 * 8 * 4  # (B, C, T, F) float32 in front of the one layer of the node stream
    assert inputs <= recomputed["nodes"] < plain["nodes"] / 5
    assert recomputed["graph"] < plain["graph"] / 2
    assert recomputed["tcn"] == plain["tcn"]


@pytest.mark.parametrize(("batch", "seconds"), [(6, 8), (3, 16)])
def test_memory_grows_with_batch_and_window(batch: int, seconds: int) -> None:
    detector = new_detector(small())
    one = sum(activation_bytes(detector, 2048, 3).values())
    two = sum(activation_bytes(detector, seconds * 256, batch).values())
    assert two == pytest.approx(2 * one, rel=0.02)


def test_half_precision_keeps_less() -> None:
    detector = new_detector(small())
    full, half = (activation_bytes(detector, 2048, 1, dtype)["tcn"] for dtype in (None, torch.bfloat16))
    assert half < 0.8 * full


def test_measuring_draws_from_nobody_s_random_state_and_leaves_the_detector_alone() -> None:
    detector = new_detector(small())
    before, counters, state = torch.get_rng_state(), detector.counters(), detector.state_dict()
    weights = {name: tensor.clone() for name, tensor in state.items()}
    activation_bytes(detector, 2048, 1)
    assert torch.equal(torch.get_rng_state(), before)
    assert detector.counters() == counters
    assert all(torch.equal(weights[name], tensor) for name, tensor in detector.state_dict().items())


def test_parameters_gradients_and_optimizer_state_are_what_a_step_allocates() -> None:
    setup = build_setup(small())
    found = inventory(setup.model, batch_size=BATCH)
    logits = setup.model(torch.randn(1, 19, 2048))
    setup.loss_fn(logits, torch.zeros_like(logits)).backward()
    setup.optimizer.step()
    gradients = [p.grad for p in setup.model.parameters() if p.grad is not None]
    assert found.parameter_bytes == sum(p.numel() * 4 for p in setup.model.parameters())
    assert found.gradient_bytes == sum(gradient.numel() * 4 for gradient in gradients)
    state = [tensor for values in setup.optimizer.state.values() for tensor in values.values()]
    assert found.optimizer_bytes == sum(tensor.numel() * 4 for tensor in state)
    assert found.step_bytes == sum(
        (found.parameter_bytes, found.gradient_bytes, found.optimizer_bytes, found.activation_bytes)
    )


def test_a_backend_that_cannot_run_here_is_a_note() -> None:
    mamba = {"backend": "mamba_ssm", "n_layers": 1, "d_model": 8, "d_state": 4, "headdim": 4, "chunk_size": 4}
    found = inventory(new_detector(small(mamba=mamba)), batch_size=1, notes=["first"])
    assert found.backends.mamba == "mamba_ssm"
    assert found.notes[0] == "first" and found.notes[1].startswith("cannot run here: mamba.backend is mamba_ssm on cpu")
    assert found.notes[2] == "activations are those of the torch scan; fused kernels keep less"
    assert found.activation_bytes > 0


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (5 * 1024**2, "5.0 MiB"), (3 * 1024**3, "3.0 GiB")],
)
def test_sizes_are_readable(count: int, shown: str) -> None:
    assert size(count) == shown
