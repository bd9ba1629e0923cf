"""The real kernels of mamba_ssm, run live on the CPU through Triton's interpreter, against ours.

The environment is built once, into build/golden-environment or where BRAINBRR_GOLDEN_ENVIRONMENT points: two minutes
and 2 GB. The comparison itself takes about a minute. Skipped where the packages cannot be installed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from brainbrr.models.mamba import Mamba2
from tests.golden.comparison import FOLDER, deviations, read_golden, relative

pytestmark = pytest.mark.slow

ROOT = FOLDER.parent.parent
UNAVAILABLE = 69  # of make_environment.sh: a package could not be had
CASE = "three_heads"  # quick, with a last chunk that is not full and a state that is no power of two
FORWARD = 1e-6
GRADIENT = 5e-6


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run([str(part) for part in command], env=environment, cwd=ROOT, capture_output=True, text=True)


def succeed(*command: str | Path) -> str:
    done = run(*command)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def python():
    folder = Path(os.environ.get("BRAINBRR_GOLDEN_ENVIRONMENT") or ROOT / "build" / "golden-environment")
    built = run(FOLDER / "make_environment.sh", folder, sys.executable)
    if built.returncode == UNAVAILABLE:
        pytest.skip(f"the environment of mamba_ssm cannot be installed here: {built.stderr.strip().splitlines()[-1]}")
    assert built.returncode == 0, built.stderr[-3000:]
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def live(python, tmp_path_factory):
    """Vectors of another seed than the committed ones."""
    folder = tmp_path_factory.mktemp("live")
    succeed(python, FOLDER / "generate.py", "--out", folder, "--seed", "11", "--case", CASE)
    return folder


def test_portable_scan_agrees_with_the_kernels_run_live(live):
    golden = read_golden(CASE, live)
    assert relative(golden.output, read_golden(CASE).output) > 0.1  # new numbers, not the committed ones
    layer = Mamba2(**golden.arguments, backend="torch")
    assert [(key, value.shape) for key, value in layer.state_dict().items()] == list(golden.state_dict.items())
    forward, gradients = deviations(layer, golden)
    assert forward <= FORWARD
    assert {key: value for key, value in gradients.items() if not value <= GRADIENT} == {}


def test_fused_backend_agrees_with_the_kernels_run_live(live, python):
    # Our backend mamba_ssm calls the same kernels, with the chunk it prefers; mamba_ssm loads our state dict strictly.
    printed = succeed(python, "-m", "tests.golden.fused", "--golden", live, "--case", CASE)
    found = json.loads(printed)[CASE]
    assert found["forward"] <= FORWARD
    assert {key: value for key, value in found["gradients"].items() if not value <= GRADIENT} == {}


def test_generator_makes_the_committed_vectors_again(python, tmp_path):
    succeed(python, FOLDER / "generate.py", "--out", tmp_path, "--case", CASE)
    again, committed = read_golden(CASE, tmp_path), read_golden(CASE)
    assert again.arguments == committed.arguments
    assert all(torch.equal(again.parameters[key], value) for key, value in committed.parameters.items())
    assert torch.equal(again.input, committed.input) and torch.equal(again.upstream, committed.upstream)
    # Not bit for bit: the convolution and the projections are torch's, and follow the instruction set.
    assert relative(again.output, committed.output) <= FORWARD
    for key, value in committed.gradients.items():
        assert relative(again.gradients[key], value) <= GRADIENT, key
