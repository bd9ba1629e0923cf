"""Reading the golden vectors of Mamba-2, and running a layer on them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

FOLDER = Path(__file__).parent


@dataclasses.dataclass(frozen=True, kw_only=True)
class Golden:
    """One case: what the layer is built with and given, and what ``mamba_ssm.Mamba2`` made of it (float32)."""

    name: str
    arguments: dict[str, int]  # of the constructor
    state_dict: dict[str, tuple[int, ...]]  # names and shapes, in the order of mamba_ssm
    parameters: dict[str, Tensor]
    input: Tensor  # (sequences, length, d_model), as are upstream and output
    upstream: Tensor
    output: Tensor
    gradients: dict[str, Tensor]  # of every parameter, and of "input"


def case_names(folder: Path = FOLDER) -> tuple[str, ...]:
    """The cases that the sidecar of `folder` describes."""
    return tuple(json.loads((folder / "mamba2.json").read_text())["cases"])


def read_golden(name: str, folder: Path = FOLDER) -> Golden:
    """The case `name` of `folder`."""
    described = json.loads((folder / "mamba2.json").read_text())["cases"][name]
    with np.load(folder / f"mamba2_{name}.npz", allow_pickle=False) as arrays:
        tensors = {key: torch.from_numpy(arrays[key]) for key in arrays.files}

    def below(prefix: str) -> dict[str, Tensor]:
        return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}

    return Golden(
        name=name,
        arguments=described["arguments"],
        state_dict={key: tuple(shape) for key, shape in described["state_dict"].items()},
        parameters=below("parameter/"),
        input=tensors["input"],
        upstream=tensors["upstream"],
        output=tensors["output"],
        gradients=below("gradient/") | {"input": tensors["gradient_of_input"]},
    )


def relative(found: Tensor, expected: Tensor) -> float:
    """The largest difference, in parts of the largest expected magnitude; computed in float64."""
    expected = expected.double()
    return ((found.detach().cpu().double() - expected).abs().max() / expected.abs().max()).item()


def deviations(
    layer: nn.Module, golden: Golden, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> tuple[float, dict[str, float]]:
    """How far `layer`, given the parameters of `golden`, is off: its output, and each gradient (`relative`)."""
    layer.load_state_dict(golden.parameters, strict=True)
    layer.to(device, dtype)
    inputs = golden.input.to(device, dtype, copy=True).requires_grad_()
    output = layer(inputs)
    output.backward(golden.upstream.to(device, dtype))
    found = {name: parameter.grad for name, parameter in layer.named_parameters()} | {"input": inputs.grad}
    if found.keys() != golden.gradients.keys():
        raise ValueError(f"gradients of {sorted(found)}; expected those of {sorted(golden.gradients)}")
    return relative(output, golden.output), {
        name: relative(found[name], expected) for name, expected in golden.gradients.items()
    }
