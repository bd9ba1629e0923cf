"""Parity with mamba_ssm on CUDA, forward and every gradient: `pytest -m gpu`.

Written without a GPU at hand and NOT YET RUN on one: the kernels, the scripts it calls and the comparison have only run
through Triton's interpreter on a CPU (test_mamba_ssm_interpreter.py), and the tolerances below are estimates. Needs
CUDA and mamba-ssm (the extra gpu), and skips elsewhere. causal-conv1d is not needed.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys

import pytest
import torch

from brainbrr.models.backend import choose
from brainbrr.models.mamba import Mamba2
from tests.golden.comparison import FOLDER, case_names, deviations, read_golden

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.skipif(importlib.util.find_spec("mamba_ssm") is None, reason="mamba-ssm is not installed: extra gpu"),
]

ROOT = FOLDER.parent.parent
# Full float32 with sums in another order and the GPU's own exponential: ten times what the CPU needs.
FORWARD = 1e-5
GRADIENT = 5e-5
# What a user gets by default: Triton multiplies float32 matrices as TF32, which keeps 10 bits of the fraction.
FORWARD_TF32 = 5e-3
GRADIENT_TF32 = 2e-2


def script(name: str, *arguments: object) -> str:
    """Run tests.golden.NAME on the GPU in a process of its own: Triton reads the precision when it is imported."""
    command = [sys.executable, "-m", f"tests.golden.{name}", "--device", "cuda", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture
def full_float32(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)


@pytest.fixture(scope="module")
def computed(tmp_path_factory):
    """The vectors of every case as mamba_ssm computes them on this GPU, in full float32."""
    folder = tmp_path_factory.mktemp("cuda")
    script("generate", "--out", folder)
    return folder


def assert_within(found: tuple[float, dict[str, float]], forward: float, gradient: float) -> None:
    assert found[0] <= forward
    assert {name: value for name, value in found[1].items() if not value <= gradient} == {}


@pytest.mark.usefixtures("full_float32")
@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("name", case_names())
def test_portable_scan_agrees_with_mamba_ssm_on_cuda(computed, name, device):
    golden = read_golden(name, computed)
    assert_within(deviations(Mamba2(**golden.arguments, backend="torch"), golden, device), FORWARD, GRADIENT)


@pytest.mark.usefixtures("full_float32")
@pytest.mark.parametrize("name", case_names())
def test_portable_scan_on_cuda_agrees_with_the_interpreted_kernels(name):
    golden = read_golden(name)
    assert_within(deviations(Mamba2(**golden.arguments, backend="torch"), golden, "cuda"), FORWARD, GRADIENT)


def test_fused_backend_agrees_with_the_interpreted_kernels_in_full_float32():
    found = json.loads(script("fused"))
    assert set(found) == set(case_names())
    for case in found.values():
        assert_within((case["forward"], case["gradients"]), FORWARD, GRADIENT)


@pytest.mark.parametrize("name", case_names())
def test_auto_takes_the_fused_kernels_on_cuda_and_agrees_within_tf32(name):
    assert choose("auto", torch.device("cuda")).name == "mamba_ssm"
    golden = read_golden(name)
    assert_within(deviations(Mamba2(**golden.arguments, backend="auto"), golden, "cuda"), FORWARD_TF32, GRADIENT_TF32)
