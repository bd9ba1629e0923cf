"""Golden vectors of the real ``mamba_ssm.Mamba2``: its own Triton kernels, interpreted on a CPU (or run on a GPU).

``make golden``, which is ``tests/golden/generate.sh``, builds the environment that it needs and runs it. It writes one
``mamba2_CASE.npz`` for each case and ``mamba2.json`` with the arguments, the names and shapes of the state dict, the
versions and the recipe, in a few minutes. ``--case``, ``--seed``, ``--out`` and ``--device cuda`` serve the tests
that compare with the kernels live.

Arrays of a file, all float32, with ``NAME`` as in the state dict of ``mamba_ssm.Mamba2``:

- ``parameter/NAME``; ``input`` and ``upstream``, the gradient of the loss by the output, (sequences, length, d_model);
- ``output`` (sequences, length, d_model), ``gradient_of_input``, ``gradient/NAME``.

Inputs and parameters are rounded to a few bits, so that they are exact in every precision and pack into a small file.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib
import importlib.util
import json
import math
import os
import platform
import sys
import types
import warnings
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch

RECIPE = (
    "tests/golden/generate.sh (environment: tests/golden/make_environment.sh); "
    "mamba_ssm.modules.mamba2.Mamba2(use_mem_eff_path=False): torch's Conv1d, then mamba_chunk_scan_combined and the "
    "gated RMSNorm, both Triton kernels, forward and backward. TRITON_INTERPRET=1 on a CPU; MAMBA_DETERMINISTIC=1; "
    "float32 without TF32."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """One layer and the size of its input; ``expand`` is 2 and the kernel of the convolution 4 throughout."""

    d_model: int
    d_state: int
    headdim: int
    chunk_size: int
    sequences: int
    length: int

    def arguments(self) -> dict[str, int]:
        """What Mamba2 is built with."""
        return {
            "d_model": self.d_model,
            "d_state": self.d_state,
            "d_conv": 4,
            "expand": 2,
            "headdim": self.headdim,
            "chunk_size": self.chunk_size,
        }


CASES = {
    # The detector's electrode stream and its pair stream.
    "node": Case(d_model=64, d_state=16, headdim=8, chunk_size=16, sequences=2, length=40),
    "edge": Case(d_model=16, d_state=8, headdim=4, chunk_size=32, sequences=2, length=76),
    # The last chunk is not full.
    "odd_length": Case(d_model=8, d_state=8, headdim=4, chunk_size=16, sequences=2, length=70),
    # 3 heads and 12 states: nothing is a power of two, so that every tile of the kernels is masked.
    "three_heads": Case(d_model=12, d_state=12, headdim=8, chunk_size=16, sequences=2, length=25),
    # The default chunk of 256 and a little of the next one.
    "default_chunk": Case(d_model=8, d_state=8, headdim=4, chunk_size=256, sequences=1, length=300),
}


def prepare(device: str) -> None:
    """Set the switches that Triton and mamba_ssm read when they are imported, and TF32 off."""
    os.environ["MAMBA_DETERMINISTIC"] = "1"  # one configuration of each kernel, and no atomic additions
    warnings.filterwarnings("ignore", message="Deterministic mode: set TRITON_CACHE_AUTOTUNING")
    os.environ["TRITON_F32_DEFAULT"] = "ieee"  # otherwise tl.dot takes TF32 on a GPU: three digits
    if device == "cpu":
        os.environ["TRITON_INTERPRET"] = "1"
    import torch

    torch.set_num_threads(1)
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    if device == "cpu":
        # The kernels are launched "on the tensor's CUDA device" and share out work by its number of multiprocessors.
        torch.cuda.device = lambda _index: contextlib.nullcontext()
        torch.cuda.get_device_properties = lambda _device=None: types.SimpleNamespace(multi_processor_count=4)


def mamba2_class() -> type[torch.nn.Module]:
    """Import Mamba2 without running the package's ``__init__``, which insists on compiled CUDA extensions."""
    name = "mamba_ssm.modules.mamba2"
    if name in sys.modules:
        return sys.modules[name].Mamba2
    sys.modules.pop("mamba_ssm", None)
    package = importlib.util.find_spec("mamba_ssm")
    if package is None or package.submodule_search_locations is None:
        raise SystemExit("mamba_ssm is not installed here: build the environment with tests/golden/make_environment.sh")
    bare = types.ModuleType("mamba_ssm")
    bare.__path__ = list(package.submodule_search_locations)
    sys.modules["mamba_ssm"] = bare
    if importlib.util.find_spec("huggingface_hub") is None:
        # Mamba2 inherits up- and download of weights from it, which has no part in what is computed.
        hub = types.ModuleType("huggingface_hub")
        hub.PyTorchModelHubMixin = type("PyTorchModelHubMixin", (), {})
        sys.modules["huggingface_hub"] = hub
    return importlib.import_module(name).Mamba2


def round_to_bits(values: torch.Tensor, bits: int) -> torch.Tensor:
    """Round to multiples of a power of two, ``bits`` binary places below the largest magnitude."""
    step = 2.0 ** (math.floor(math.log2(values.abs().max().item())) - bits)
    return (values / step).round() * step


def draw_parameters(layer: torch.nn.Module, generator: torch.Generator) -> None:
    """Keep the layer's own initialisation, move D and the norm off their constant 1, round everything."""
    import torch

    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            values = parameter.detach()
            if name in ("D", "norm.weight"):
                values = values + 0.25 * torch.randn(values.shape, generator=generator)
            # Matrices fill the file: a coarse grid is enough for them.
            parameter.copy_(round_to_bits(values, bits=3 if values.ndim == 2 else 6))


def run(mamba2: type[torch.nn.Module], case: Case, seed: int, device: str) -> dict[str, np.ndarray]:
    """Forward and backward of one case; the arrays of its file."""
    import torch

    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed + 1)
    layer = mamba2(**case.arguments(), use_mem_eff_path=False)
    draw_parameters(layer, generator)
    shape = (case.sequences, case.length, case.d_model)
    inputs = round_to_bits(torch.randn(shape, generator=generator), bits=4).to(device).requires_grad_()
    upstream = round_to_bits(torch.randn(shape, generator=generator), bits=4).to(device)
    layer.to(device)
    output = layer(inputs)
    output.backward(upstream)

    tensors = {"input": inputs, "upstream": upstream, "output": output, "gradient_of_input": inputs.grad}
    for name, value in layer.state_dict().items():
        tensors[f"parameter/{name}"] = value
    for name, parameter in layer.named_parameters():
        tensors[f"gradient/{name}"] = parameter.grad
    return {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}


def describe(case: Case, arrays: dict[str, np.ndarray]) -> dict[str, object]:
    """What the sidecar says of one case."""
    prefix = "parameter/"
    return {
        "arguments": case.arguments(),
        "sequences": case.sequences,
        "length": case.length,
        "state_dict": {k.removeprefix(prefix): list(v.shape) for k, v in arrays.items() if k.startswith(prefix)},
    }


def versions() -> dict[str, str]:
    """Versions of what computed the vectors."""
    packages = ("mamba_ssm", "torch", "triton", "numpy", "einops")
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in packages}


def write(path: Path, content: bytes) -> None:
    """Write under a temporary name, then rename, so that a broken run leaves no half file."""
    temporary = path.with_name(path.name + ".part")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder for the files [this one]")
    parser.add_argument("--case", choices=CASES, action="append", help="only this case; may be repeated")
    parser.add_argument("--seed", type=int, default=7, help="of parameters, input and upstream gradient [7]")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="cpu: Triton's interpreter")
    options = parser.parse_args()

    prepare(options.device)
    import io
    import time

    import numpy as np

    options.out.mkdir(parents=True, exist_ok=True)
    mamba2 = mamba2_class()
    described = {}
    for name in options.case or CASES:
        began = time.perf_counter()
        arrays = run(mamba2, CASES[name], options.seed, options.device)
        packed = io.BytesIO()
        np.savez_compressed(packed, **arrays)
        write(options.out / f"mamba2_{name}.npz", packed.getvalue())
        described[name] = describe(CASES[name], arrays)
        print(f"{name}: {len(packed.getvalue()) / 1000:.0f} kB, {time.perf_counter() - began:.0f} s", flush=True)
    sidecar = {
        "recipe": RECIPE,
        "device": options.device,
        "seed": options.seed,
        "versions": versions(),
        "cases": described,
    }
    write(options.out / "mamba2.json", (json.dumps(sidecar, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
