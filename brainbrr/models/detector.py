"""The detector: 19 electrodes of EEG to one logit of "seizure" per sample.

Letters: B batch, C = 19 electrodes, L samples, T = L/stride_down steps, W width of the TCN, F features an electrode.

    v3   tcn → to_electrodes → nodes → graph → from_electrodes → head
    v2   tcn → temporal → head
    tcn  tcn → head
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from brainbrr import config
from brainbrr.config import ELECTRODES, SAMPLING_RATE
from brainbrr.models.backend import Backends, choose
from brainbrr.models.bimamba import BiMamba2Stack, LayerOptions
from brainbrr.models.clamp import Clamp
from brainbrr.models.description import Description, describe
from brainbrr.models.gnn import Graph
from brainbrr.models.stages import ElectrodeStream, FromElectrodes, Head, TemporalStream, ToElectrodes
from brainbrr.models.tcn import TCN

WINDOW = 60 * SAMPLING_RATE  # samples of the window that a description speaks of where none is named
WIDTHS = {"v3": (64, 8), "v2": (512, 64)}  # d_model and headdim where the configuration leaves them open


class Detector(nn.Module):
    """Signal (B,C,L) in σ → logits (B,L). Build it with `build_detector`.

    Any L of at least one sample: the end is padded with zeros to a whole step and cut off again.
    """

    def __init__(self, model: config.Model, *, samples_per_window: int = WINDOW) -> None:
        super().__init__()
        self.config = model
        self.samples_per_window = samples_per_window
        self.tcn = TCN(model.tcn, norm=model.norm, bias=model.bias)
        width = self.tcn.width
        if model.architecture == "v3":
            features = model.mamba.d_model or WIDTHS["v3"][0]
            self.to_electrodes = ToElectrodes(width, features, norm=model.norm, bias=model.bias)
            self.nodes: nn.Module = nn.Identity()
            if model.mamba.enabled:
                self.nodes = ElectrodeStream(_stack(model))
            if model.graph.enabled:
                self.graph = Graph(
                    model.graph,
                    model.mamba,
                    features,
                    norm=model.norm,
                    bias=model.bias,
                    checkpoint=model.checkpoint_activations,
                )
            self.from_electrodes = FromElectrodes(features, width, norm=model.back_norm)
        elif model.architecture == "v2" and model.mamba.enabled:
            d_model = model.mamba.d_model or WIDTHS["v2"][0]
            self.temporal = TemporalStream(width, d_model, _stack(model), bias=model.bias)
            width = d_model
        self.head = Head(width, model.tcn.stride_down, norm=model.norm)
        self.clamps = nn.ModuleDict()
        if model.clamp is not None:
            self.clamps.update({name: Clamp(*model.clamp) for name in self.stages()})

    def stages(self) -> tuple[str, ...]:
        """The names of the stages, in the order in which a signal passes them."""
        names = ("tcn", "to_electrodes", "nodes", "graph", "from_electrodes", "temporal", "head")
        return tuple(name for name in names if hasattr(self, name))

    def forward(self, signal: Tensor) -> Tensor:
        """`signal` (B,C,L) → logits (B,L). Raises ValueError for another shape."""
        if signal.dim() != 3 or signal.shape[1] != len(ELECTRODES) or signal.shape[2] == 0:
            raise ValueError(
                f"signal has shape {tuple(signal.shape)}; expected (batch, {len(ELECTRODES)} electrodes, samples)"
            )
        samples = signal.shape[-1]
        x = electrodes = F.pad(signal, (0, -samples % self.config.tcn.stride_down))
        for name in self.stages():
            stage = getattr(self, name)
            x = stage(x, electrodes) if name == "graph" else stage(x)
            if name in self.clamps:
                x = self.clamps[name](x)
            if name == "to_electrodes":
                electrodes = x
        return x[:, :samples]

    @property
    def description(self) -> Description:
        """Stages with their output shapes and parameters, for one window of `samples_per_window`."""
        samples, stride = self.samples_per_window, self.config.tcn.stride_down
        steps, width = -(-samples // stride), self.tcn.width
        shapes: dict[str, tuple[int, ...]] = {
            "tcn": (width, steps),
            "from_electrodes": (width, steps),
            "head": (samples,),
        }
        if hasattr(self, "to_electrodes"):
            features = (steps, len(ELECTRODES), self.to_electrodes.features)
            shapes |= {"to_electrodes": features, "nodes": features, "graph": features}
        if hasattr(self, "temporal"):
            shapes["temporal"] = (self.temporal.d_model, steps)
        return describe(self, {name: shapes[name] for name in self.stages()}, samples)

    @property
    def backends(self) -> Backends:
        """What runs on the device where the parameters are. Raises BackendError where it cannot run."""
        device = next(self.parameters()).device
        model = self.config
        v3 = model.architecture == "v3"
        scans = any(isinstance(module, BiMamba2Stack) for module in self.modules())
        graph = v3 and model.graph.enabled
        choice = choose(model.mamba.backend, device) if scans else None
        return Backends(
            device=str(device),
            mamba=choice.name if choice else "none",
            graph=model.graph.backend if graph else "none",
            notes=(choice.note,) if choice and choice.note else (),
        )

    def counters(self) -> dict[str, int]:
        """Everything that was dropped, replaced or altered since the start, by qualified name."""
        counts: dict[str, int] = {}
        for name, module in self.named_modules():
            if module is not self and isinstance(module, Graph | Clamp):
                counts |= {f"{name}.{key}": value for key, value in module.counters().items()}
        return counts


def build_detector(model: config.Model, *, samples_per_window: int | None = None) -> Detector:
    """The detector that `model` describes, freshly initialised from the global random state.

    `samples_per_window` is what descriptions speak of; the detector takes any length.
    Raises ValueError when widths do not fit together, naming the key.
    """
    return Detector(model, samples_per_window=WINDOW if samples_per_window is None else samples_per_window)


def _stack(model: config.Model) -> BiMamba2Stack:
    mamba = model.mamba
    d_model, headdim = WIDTHS[model.architecture]
    options = LayerOptions(
        d_model=mamba.d_model or d_model,
        d_state=mamba.d_state,
        d_conv=mamba.conv_kernel,
        headdim=mamba.headdim or headdim,
        chunk_size=mamba.chunk_size,
        backend=mamba.backend,
        dropout=mamba.dropout,
        norm=model.norm,
        bias=model.bias,
    )
    return BiMamba2Stack(options, mamba.n_layers, checkpoint_activations=model.checkpoint_activations)
