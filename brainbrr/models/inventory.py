"""What a detector is and what a training step of it needs: `brainbrr info`.

What the forward pass keeps for the backward pass is measured, on windows so short that it costs little, and carried on
to the configured window and batch: it grows linearly with both.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from brainbrr.config import ELECTRODES
from brainbrr.models.backend import BackendError, Backends
from brainbrr.models.description import Description
from brainbrr.models.detector import Detector, build_detector

FLOAT32 = 4  # bytes
ADAMW_MOMENTS = 2


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """`description` of the stages, `backends` and notes on them, and bytes of a training step of `batch_size` windows.

    `activations` is what the forward pass of each stage keeps for the backward pass; temporary tensors come on top,
    and with `checkpoint_activations` those of one layer at a time.
    """

    description: Description
    backends: Backends
    notes: tuple[str, ...]
    batch_size: int
    precision: str
    parameter_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    activations: dict[str, int]

    @property
    def activation_bytes(self) -> int:
        """Of all stages."""
        return sum(self.activations.values())

    @property
    def step_bytes(self) -> int:
        """Everything that a training step holds at the end of its forward pass."""
        return self.parameter_bytes + self.gradient_bytes + self.optimizer_bytes + self.activation_bytes

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        description = self.description
        return {
            "samples": description.samples,
            "batch_size": self.batch_size,
            "precision": self.precision,
            "parameters": description.parameters,
            "stages": [
                {**dataclasses.asdict(stage), "activation_bytes": self.activations[stage.name]}
                for stage in description.stages
            ],
            "memory": {
                "parameter_bytes": self.parameter_bytes,
                "gradient_bytes": self.gradient_bytes,
                "optimizer_bytes": self.optimizer_bytes,
                "activation_bytes": self.activation_bytes,
                "step_bytes": self.step_bytes,
            },
            "backends": dataclasses.asdict(self.backends),
            "notes": list(self.notes),
        }

    def rows(self) -> list[list[str]]:
        """A table of the stages; the first row is the header."""
        batch = self.batch_size
        body = [
            [
                stage.name,
                " × ".join(map(str, (batch, *stage.shape))),
                f"{stage.parameters:,}",
                size(self.activations[stage.name]),
            ]
            for stage in self.description.stages
        ]
        total = ["all", "", f"{self.description.parameters:,}", size(self.activation_bytes)]
        return [["stage", "output", "parameters", "kept for backward"], *body, total]

    def summary(self) -> str:
        """The rest, one aligned line a fact."""
        return "\n".join(
            [
                f"input       {self.batch_size} × {len(ELECTRODES)} × {self.description.samples} samples",
                f"memory      {size(self.step_bytes)} a training step: parameters {size(self.parameter_bytes)}, "
                f"gradients {size(self.gradient_bytes)}, optimizer {size(self.optimizer_bytes)}, "
                f"activations {size(self.activation_bytes)}",
                f"precision   {self.precision}",
                f"backend     mamba {self.backends.mamba}, graph {self.backends.graph}, on {self.backends.device}",
                *(f"note        {note}" for note in (*self.backends.notes, *self.notes)),
            ]
        )


def size(count: int) -> str:
    """Bytes for a person: "3.4 MiB"."""
    power = 0 if count < 1024 else min(4, int(math.log(count, 1024)))
    return f"{count} B" if power == 0 else f"{count / 1024**power:.1f} {'KMGT'[power - 1]}iB"


def inventory(
    detector: Detector,
    *,
    batch_size: int,
    dtype: torch.dtype | None = None,
    device: torch.device | None = None,
    notes: Sequence[str] = (),
) -> Inventory:
    """Describe `detector` as it would train on `device` in batches of `batch_size`, under autocast to `dtype` if any.

    The measurement runs on the CPU with the portable scan; a note says so where the run would take another.
    """
    detector = detector.to(device or torch.device("cpu"))
    description = detector.description
    trained = [p for p in detector.parameters() if p.requires_grad]
    gradients = sum(p.numel() * p.element_size() for p in trained)
    backends, why = _backends(detector)
    same = backends.mamba in ("torch", "conv1d", "none")
    measured = () if same else ("activations are those of the torch scan; fused kernels keep less",)
    return Inventory(
        description=description,
        backends=backends,
        notes=(*notes, *why, *measured),
        batch_size=batch_size,
        precision="float32" if dtype is None else f"{str(dtype).removeprefix('torch.')} autocast",
        parameter_bytes=description.parameter_bytes,
        gradient_bytes=gradients,
        optimizer_bytes=ADAMW_MOMENTS * gradients + FLOAT32 * len(trained),
        activations=activation_bytes(detector, description.samples, batch_size, dtype),
    )


def _backends(detector: Detector) -> tuple[Backends, tuple[str, ...]]:
    """What would run, and why it cannot run here if so."""
    try:
        return detector.backends, ()
    except BackendError as error:
        asked = detector.config
        found = Backends(
            device=str(next(detector.parameters()).device),
            mamba=asked.mamba.backend,
            graph=asked.graph.backend,
            notes=(),
        )
        return found, (f"cannot run here: {error}",)


def activation_bytes(
    detector: Detector, samples: int, batch_size: int, dtype: torch.dtype | None = None
) -> dict[str, int]:
    """Bytes that each stage's forward pass keeps for the backward pass of `batch_size` windows of `samples`.

    Measured on a copy of the detector on the CPU, its weights drawn anew; torch's random state is left as found.
    """
    model = detector.config
    if model.mamba.backend in ("auto", "mamba_ssm"):
        model = model.model_copy(update={"mamba": model.mamba.model_copy(update={"backend": "torch"})})
    unit = _unit(detector)
    with torch.random.fork_rng(devices=[]):
        copy = build_detector(model, samples_per_window=samples).train()
        one = _kept(copy, 1, unit, dtype)
        two = _kept(copy, 2, unit, dtype)
        longer = _kept(copy, 1, 2 * unit, dtype)
    more = batch_size * (samples / unit - 1)  # units of windows beyond the first of each
    return {
        name: round(one[name] + (batch_size - 1) * (two[name] - one[name]) + more * (longer[name] - one[name]))
        for name in detector.stages()
    }


def _unit(detector: Detector) -> int:
    """Samples of the shortest window in which every loop over steps comes out even."""
    model = detector.config
    steps = math.lcm(model.mamba.chunk_size, min(model.graph.semi_dynamic_interval, 64))
    return steps * model.tcn.stride_down


def _kept(detector: Detector, batch: int, samples: int, dtype: torch.dtype | None) -> dict[str, int]:
    """Bytes by stage that the forward pass of `batch` windows of `samples` made and that are still there at its end."""
    stages = detector.stages()
    signal = torch.randn(batch, len(ELECTRODES), samples)
    made = _Allocations([signal, *detector.parameters(), *detector.buffers()], first=stages[0])
    with contextlib.ExitStack() as stack:
        for name in stages:
            handle = detector.get_submodule(name).register_forward_pre_hook(made.enter(name))
            stack.callback(handle.remove)
        stack.enter_context(made)
        stack.enter_context(torch.autocast("cpu", dtype=dtype, enabled=dtype is not None))
        logits = detector(signal)
    kept = made.alive()
    del logits  # until here it held all that the backward pass needs
    return {name: kept[name] for name in stages}


class _Allocations(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch annotates none of it
    """Every storage that operations make while the mode is active, by the stage under way; keeps none of them alive."""

    def __init__(self, known: Iterable[Tensor], *, first: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._stage = first
        self._known = {_key(tensor) for tensor in known}
        # A weak reference keeps the key from being given to another storage.
        self._made: dict[int, tuple[StorageWeakRef, str, int]] = {}

    def enter(self, stage: str) -> Callable[[nn.Module, object], None]:
        """A hook in front of the forward pass of `stage`: what is made from there on counts as the stage's."""

        def hook(module: nn.Module, inputs: object) -> None:
            self._stage = stage

        return hook

    def alive(self) -> Counter[str]:
        """Bytes that are still there, by stage."""
        counts: Counter[str] = Counter()
        for reference, stage, count in self._made.values():
            counts[stage] += 0 if reference.expired() else count  # type: ignore[no-untyped-call]
        return counts

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and _key(tensor) not in self._known:
                storage = tensor.untyped_storage()
                reference = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
                self._made.setdefault(_key(tensor), (reference, self._stage, storage.nbytes()))
        return out


def _key(tensor: Tensor) -> int:
    key: int = tensor.untyped_storage()._cdata
    return key
