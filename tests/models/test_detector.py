"""The whole detector: architectures, lengths, parameters, scale at initialisation, counters, description."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from brainbrr import config
from brainbrr.models.clamp import Clamp
from brainbrr.models.detector import Detector, build_detector

SMALL: dict[str, Any] = {
    "tcn": {"num_layers": 3, "channels": (8,), "stride_down": 64, "dropout": 0.1},
    "mamba": {"n_layers": 1, "d_model": 8, "d_state": 4, "headdim": 4, "chunk_size": 4},
    "graph": {"edge_mamba_layers": 1, "edge_mamba_d_model": 8, "edge_mamba_d_state": 4},
}
SAMPLES = 640


def small(**changes: Any) -> config.Model:
    """A tiny model; a change of a section changes the named keys of it alone."""
    values = copy.deepcopy(SMALL)
    for key, value in changes.items():
        values[key] = values[key] | value if key in values else value
    return config.Model(**values)


def build(*, seed: int = 0, **changes: Any) -> Detector:
    torch.manual_seed(seed)
    return build_detector(small(**changes), samples_per_window=SAMPLES)


def signal(batch: int = 2, samples: int = SAMPLES, *, seed: int = 1) -> Tensor:
    return torch.randn(batch, 19, samples, generator=torch.Generator().manual_seed(seed))


ARCHITECTURES: dict[str, dict[str, Any]] = {
    "v3": {},
    "v3 without nodes": {"mamba": {"enabled": False}},
    "v3 without graph": {"graph": {"enabled": False}},
    "v3 without edge stream": {"graph": {"edge_mamba_layers": 0}},
    "v3 static": {"graph": {"use_dynamic_pe": False}},
    "v3 resolvent": {"graph": {"pe": "resolvent"}},
    "v3 detached": {"graph": {"pe_gradient": "detached"}},
    "v3 raw": {"graph": {"pe_gradient": "raw"}},
    "v3 pyg": {"graph": {"backend": "pyg"}},
    "v3 conv1d": {"mamba": {"backend": "conv1d"}},
    "v3 historical": {"norm": False, "bias": False},
    "v2": {"architecture": "v2"},
    "v2 wide": {"architecture": "v2", "mamba": {"d_model": 12}},
    "v2 without mamba": {"architecture": "v2", "mamba": {"enabled": False}},
    "tcn": {"architecture": "tcn"},
}


@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_every_architecture_uses_every_parameter_and_is_finite(name: str) -> None:
    detector = build(**ARCHITECTURES[name]).train()
    logits = detector(signal())
    assert logits.shape == (2, SAMPLES)
    (logits * torch.randn(2, SAMPLES // 64).repeat_interleave(64, 1)).sum().backward()
    for parameter_name, parameter in detector.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
        assert parameter.grad.abs().sum() > 0, parameter_name


@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_the_description_says_what_comes_out(name: str) -> None:
    detector = build(**ARCHITECTURES[name])
    shapes: dict[str, tuple[int, ...]] = {}
    for stage in detector.stages():
        detector.get_submodule(stage).register_forward_hook(
            lambda module, inputs, output, stage=stage: shapes.__setitem__(stage, tuple(output.shape[1:]))
        )
    detector(signal())
    description = detector.description
    assert {stage.name: stage.shape for stage in description.stages} == shapes
    assert description.parameters == sum(parameter.numel() for parameter in detector.parameters())
    assert description.parameters == sum(stage.parameters for stage in description.stages)
    assert description.parameter_bytes == 4 * description.parameters


def test_stages_carry_the_names_that_others_rely_on() -> None:
    v3 = build()
    assert v3.stages() == ("tcn", "to_electrodes", "nodes", "graph", "from_electrodes", "head")
    for name in ("graph.edges", "graph.pe", "graph.convs.0", "graph.convs.1"):
        v3.get_submodule(name)
    assert build(architecture="v2").stages() == ("tcn", "temporal", "head")
    assert build(architecture="tcn").stages() == ("tcn", "head")
    assert "graph" not in build(graph={"enabled": False}).stages()


@pytest.mark.parametrize("samples", [1, 63, 64, 65, 200])
@pytest.mark.parametrize("architecture", ["v3", "v2", "tcn"])
def test_any_length_gives_a_logit_per_sample(architecture: str, samples: int) -> None:
    assert build(architecture=architecture)(signal(samples=samples)).shape == (2, samples)


def test_padding_is_that_of_zeros_cut_off_again() -> None:
    detector = build().eval()
    short = signal(samples=600)
    padded = torch.nn.functional.pad(short, (0, 40))
    assert torch.equal(detector(short), detector(padded)[:, :600])


@pytest.mark.parametrize("shape", [(19, 64), (1, 18, 64), (1, 19, 0), (1, 19, 64, 1)])
def test_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected \(batch, 19 electrodes, samples\)"):
        build()(torch.zeros(shape))


def test_samples_of_a_batch_do_not_see_each_other() -> None:
    detector = build().eval()
    x = signal()
    torch.testing.assert_close(detector(x)[:1], detector(x[:1]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["v3", "v3 without edge stream", "v3 resolvent", "v3 static", "v2", "tcn"])
def test_every_stage_has_a_healthy_scale_at_initialisation(name: str) -> None:
    watched = {"graph.edges", "graph.pe", "graph.adjacency", "graph.convs.0", "graph.convs.1"}
    for seed in range(3):
        detector = build(seed=seed, **ARCHITECTURES[name]).eval()
        scales: dict[str, float] = {}
        for stage, module in detector.named_modules():
            if stage in watched or stage in detector.stages():
                module.register_forward_hook(
                    lambda module, inputs, output, stage=stage, scales=scales: scales.__setitem__(
                        stage, output.std().item()
                    )
                )
        with torch.no_grad():
            detector(signal(samples=1920))
        assert set(detector.stages()) <= set(scales)
        for stage, scale in scales.items():
            assert 0.1 <= scale <= 10, (seed, stage, scale)


@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_two_unrelated_windows_change_the_output(name: str) -> None:
    detector = build(**ARCHITECTURES[name]).eval()
    with torch.no_grad():
        one, other = detector(signal(seed=1)), detector(signal(seed=2))
    assert (one - other).norm() > 0.01 * one.norm()


def test_building_is_reproducible_from_the_seed() -> None:
    for one, other in zip(build(seed=3).parameters(), build(seed=3).parameters(), strict=True):
        assert torch.equal(one, other)


def test_state_dicts_are_weights_alone_and_load_strictly() -> None:
    detector = build()
    state = detector.state_dict()
    assert set(state) == {name for name, _ in detector.named_parameters()}
    detector(signal())
    other = build(seed=5)
    other.load_state_dict(state)
    assert torch.equal(detector.eval()(signal()), other.eval()(signal()))


def test_a_copy_counts_for_itself() -> None:
    detector = build(clamp=(-0.01, 0.01))
    detector(signal())
    twin = copy.deepcopy(detector)
    twin(signal())
    assert twin.counters()["clamps.tcn.seen"] == 2 * detector.counters()["clamps.tcn.seen"]


def test_recomputed_activations_give_the_same_gradients() -> None:
    gradients = []
    for recompute in (False, True):
        detector = build(checkpoint_activations=recompute, tcn={"dropout": 0}, mamba={"dropout": 0}).double()
        detector(signal().double()).square().mean().backward()
        gradients.append({name: parameter.grad for name, parameter in detector.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


def test_bfloat16_autocast_trains_finitely() -> None:
    detector = build().train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = detector(signal())
    assert logits.dtype == torch.bfloat16
    logits.float().square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in detector.parameters())


def test_backends_tell_what_runs_and_every_fallback() -> None:
    backends = build().backends
    assert (backends.device, backends.mamba, backends.graph) == ("cpu", "torch", "dense")
    assert backends.notes == ("mamba.backend auto: no fused kernels on cpu, the torch scan runs",)
    assert build(mamba={"backend": "torch"}).backends.notes == ()
    stand_in = build(mamba={"backend": "conv1d"}, graph={"backend": "pyg"}).backends
    assert (stand_in.mamba, stand_in.graph) == ("conv1d", "pyg")
    assert "stands in for Mamba-2" in stand_in.notes[0]
    plain = build(architecture="tcn").backends
    assert (plain.mamba, plain.graph, plain.notes) == ("none", "none", ())


def test_the_stable_detector_has_no_clamp_and_the_historical_one_counts() -> None:
    assert not list(build().clamps)
    clamped = build(clamp=(-0.05, 0.05)).eval()
    assert tuple(clamped.clamps) == clamped.stages()
    logits = clamped(signal())
    assert logits.abs().max() <= 0.05
    counts = clamped.counters()
    assert counts["clamps.head.seen"] == 2 * SAMPLES
    assert 0 < counts["clamps.tcn.altered"] < counts["clamps.tcn.seen"]
    wide = build(clamp=(-1e9, 1e9)).eval()
    assert torch.equal(wide(signal()), build().eval()(signal()))
    assert wide.counters()["clamps.graph.altered"] == 0
    with pytest.raises(ValueError, match=r"clamp is \[1, -1\]; expected low < high"):
        Clamp(1, -1)


def test_a_clamp_does_not_hide_a_nan() -> None:
    detector = build(clamp=(-1, 1)).eval()
    with torch.no_grad():
        detector.tcn.reduce.mix.weight[0, 0] = torch.nan
    assert detector(signal()).isnan().all()


def test_dead_weights_make_every_logit_nan_and_no_exception() -> None:
    # After a poisoned update the historical run went on: the eigenvectors of a graph without edges are finite.
    detector = build(graph={"pe_gradient": "raw"}, norm=False, bias=False)
    with torch.no_grad():
        for parameter in detector.parameters():
            parameter.fill_(torch.nan)
    assert detector(signal()).isnan().all()


CHANGES: dict[str, dict[str, Any]] = {
    "norm": {"norm": False},
    "bias": {"bias": False},
    "back_norm": {"back_norm": True},
    "clamp": {"clamp": (-0.1, 0.1)},
    "tcn.num_layers": {"tcn": {"num_layers": 2}},
    "tcn.channels": {"tcn": {"channels": (8, 6)}},
    "tcn.kernel_size": {"tcn": {"kernel_size": 5}},
    "tcn.stride_down": {"tcn": {"stride_down": 32}},
    "mamba.enabled": {"mamba": {"enabled": False}},
    "mamba.backend": {"mamba": {"backend": "conv1d"}},
    "mamba.n_layers": {"mamba": {"n_layers": 2}},
    "mamba.d_model": {"mamba": {"d_model": 12}},
    "mamba.d_state": {"mamba": {"d_state": 5}},
    "mamba.conv_kernel": {"mamba": {"conv_kernel": 3}},
    "mamba.headdim": {"mamba": {"headdim": 8}},
    "graph.enabled": {"graph": {"enabled": False}},
    "graph.n_layers": {"graph": {"n_layers": 1}},
    "graph.hops": {"graph": {"hops": 3}},
    "graph.alpha": {"graph": {"alpha": 0.5}},
    "graph.use_residual": {"graph": {"use_residual": False}},
    "graph.edge_features": {"graph": {"edge_features": "correlation"}},
    "graph.edge_top_k": {"graph": {"edge_top_k": 5}},
    "graph.edge_threshold": {"graph": {"edge_threshold": 0.9}},
    "graph.edge_mamba_layers": {"graph": {"edge_mamba_layers": 2}},
    "graph.edge_mamba_d_model": {"graph": {"edge_mamba_d_model": 12}},
    "graph.edge_mamba_d_state": {"graph": {"edge_mamba_d_state": 3}},
    "graph.edge_mamba_headdim": {"graph": {"edge_mamba_headdim": 8}},
    "graph.use_dynamic_pe": {"graph": {"use_dynamic_pe": False}},
    "graph.pe": {"graph": {"pe": "resolvent"}},
    "graph.pe_repair": {"graph": {"pe_repair": "clamp_eigenvalues"}},
    "graph.k_eigenvectors": {"graph": {"k_eigenvectors": 8}},
    "graph.semi_dynamic_interval": {"graph": {"semi_dynamic_interval": 3}},
}


@pytest.mark.parametrize("key", list(CHANGES))
def test_every_key_of_the_model_changes_the_output(key: str) -> None:
    with torch.no_grad():
        changed = build(**CHANGES[key]).eval()(signal())
        assert not torch.equal(changed, build().eval()(signal()))


@pytest.mark.parametrize("section", ["tcn", "mamba", "graph"])
def test_dropout_keys_change_training_alone(section: str) -> None:
    def outputs(rate: float, *, training: bool) -> Tensor:
        detector = build(**{section: {"dropout": rate}}).train(training)
        torch.manual_seed(1)
        return detector(signal())

    assert torch.equal(outputs(0.0, training=False), outputs(0.4, training=False))
    assert not torch.equal(outputs(0.0, training=True), outputs(0.4, training=True))


def test_the_chunk_size_changes_the_rounding_and_nothing_else() -> None:
    mamba = {"d_state": 8}  # P·N = 32: the chunked form
    one = build(mamba=mamba | {"chunk_size": 4}).eval()(signal())
    other = build(mamba=mamba | {"chunk_size": 7}).eval()(signal())
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    assert not torch.equal(one, other)


def test_a_headdim_that_does_not_divide_names_itself() -> None:
    with pytest.raises(ValueError, match="headdim is 5, which does not divide"):
        build(mamba={"headdim": 5})


@pytest.mark.slow
def test_the_full_model_has_its_shapes_and_scales() -> None:
    detector = build_detector(config.Model()).eval()
    shapes = {stage.name: stage.shape for stage in detector.description.stages}
    assert shapes["tcn"] == (512, 960)
    assert shapes["graph"] == (960, 19, 64)
    assert shapes["head"] == (15360,)
    assert detector.description.parameters < 10_000_000
    scales: dict[str, float] = {}
    for stage in (*detector.stages(), "graph.edges", "graph.pe", "graph.adjacency"):
        detector.get_submodule(stage).register_forward_hook(
            lambda module, inputs, output, stage=stage: scales.__setitem__(stage, output.std().item())
        )
    with torch.no_grad():
        one, other = detector(signal(1, 15360)), detector(signal(1, 15360, seed=2))
    assert all(0.1 <= scale <= 10 for scale in scales.values()), scales
    assert (one - other).norm() > 0.01 * one.norm()
