"""Our Mamba-2 against vectors that the kernels of `mamba_ssm.Mamba2` computed (tests/golden/generate.py)."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from brainbrr.models.mamba import Mamba2
from tests.golden.comparison import FOLDER, case_names, deviations, read_golden

FORWARD = 1e-6  # of the largest magnitude
GRADIENT = 5e-6
# Within a chunk of 256 steps the exponents of the decay add up to hundreds, and the gradients of what sets the decay
# keep fewer of float32's digits: ours are off the float64 result by 6e-6 at the median of random layers.
DECAY_GRADIENT_IN_LONG_CHUNKS = 2e-5


@pytest.fixture(params=case_names())
def golden(request):
    return read_golden(request.param)


def assert_agree(layer, golden, *, decay_gradient=GRADIENT, dtype=torch.float32):
    forward, gradients = deviations(layer, golden, dtype=dtype)
    limits = dict.fromkeys(gradients, GRADIENT) | dict.fromkeys(("A_log", "dt_bias"), decay_gradient)
    assert forward <= FORWARD
    assert {name: value for name, value in gradients.items() if not value <= limits[name]} == {}


def test_output_and_every_gradient_agree_with_mamba_ssm(golden):
    long = golden.arguments["chunk_size"] > 64
    layer = Mamba2(**golden.arguments, backend="torch")
    assert_agree(layer, golden, decay_gradient=DECAY_GRADIENT_IN_LONG_CHUNKS if long else GRADIENT)


def test_the_detectors_chunk_agrees_whatever_the_chunk_of_the_kernels(golden):
    assert_agree(Mamba2(**golden.arguments | {"chunk_size": 16}, backend="torch"), golden)


@pytest.mark.parametrize("chunk_size", [1, 24, 33])
def test_chunks_that_do_not_divide_the_length_agree(chunk_size):
    golden = read_golden("odd_length")
    assert_agree(Mamba2(**golden.arguments | {"chunk_size": chunk_size}, backend="torch"), golden)


def test_the_kernels_are_as_near_to_our_float64_result(golden):
    assert_agree(Mamba2(**golden.arguments, backend="torch"), golden, dtype=torch.float64)


def test_state_dict_has_the_names_order_and_shapes_of_mamba_ssm(golden):
    ours = Mamba2(**golden.arguments, backend="torch").state_dict()
    assert [(name, tuple(value.shape)) for name, value in ours.items()] == list(golden.state_dict.items())
    assert all(value.dtype == torch.float32 for value in ours.values())


def test_state_dict_survives_the_round_trip(golden):
    layer = Mamba2(**golden.arguments, backend="torch")
    layer.load_state_dict(golden.parameters, strict=True)
    returned = layer.state_dict()
    assert returned.keys() == golden.parameters.keys()
    assert all(torch.equal(returned[name], golden.parameters[name]) for name in returned)


@pytest.mark.parametrize("name", ["A_log", "D", "dt_bias", "conv1d.bias", "norm.weight", "in_proj.weight"])
def test_vectors_see_a_change_of_any_parameter(name):
    # Guards the comparison: vectors that a wrong layer passes as well would show nothing.
    golden = read_golden("three_heads")
    golden.parameters[name].mul_(1.001)
    forward, gradients = deviations(Mamba2(**golden.arguments, backend="torch"), golden)
    assert forward > 2 * FORWARD
    assert max(gradients.values()) > 2 * GRADIENT


def test_files_are_float32_and_small():
    described = json.loads((FOLDER / "mamba2.json").read_text())
    paths = sorted(FOLDER.glob("*.npz"))
    assert {path.name for path in paths} == {f"mamba2_{name}.npz" for name in described["cases"]}
    assert sum(path.stat().st_size for path in paths) < 300_000
    assert {"mamba_ssm": "2.3.2.post1"}.items() <= described["versions"].items()
    for path in paths:
        with np.load(path, allow_pickle=False) as arrays:
            assert all(arrays[name].dtype == np.float32 and np.isfinite(arrays[name]).all() for name in arrays.files)
