"""The configuration tree: one place where every option is named, typed, bounded and described.

Unknown keys are refused with the nearest known one. Every field has a reader; `tests/test_config_keys.py` mutates each
of them and shows what changes. Lengths of time are seconds, frequencies Hz, thresholds of the signal σ.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

SAMPLING_RATE = 256  # Hz
SAMPLE = 1 / SAMPLING_RATE  # s
ELECTRODES = (
    "Fp1", "F3", "C3", "P3", "F7", "T3", "T5", "O1", "Fz", "Cz",
    "Pz", "Fp2", "F4", "C4", "P4", "F8", "T4", "T6", "O2",
)  # fmt: skip


LayoutName = Literal["auto", "tusz", "bids", "chbmit", "siena", "seizeit1"]


class ConfigError(ValueError):
    """A configuration that cannot be used: what was found, what was expected, what to do."""


class Section(BaseModel):
    """Base of every section: unknown keys and numbers that are not finite are errors, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Synthetic(Section):
    """A corpus that is written to `data.data_dir` when nothing is there yet (see `brainbrr synthesize`)."""

    patients: int = Field(6, ge=1, description="patients in each of train and dev")
    minutes: float = Field(6.0, gt=0, description="length of each recording, minutes")
    seizures: int = Field(1, ge=0, description="seizures in each recording")
    lookalikes: int = Field(1, ge=0, description="rhythmic stretches in each recording that are no seizures")
    artefacts: tuple[str, ...] = Field((), description="kinds of artefact put into one training recording")
    seed: int | None = Field(None, ge=0, lt=2**63, description="seed of the corpus; none: experiment.seed")


class Data(Section):
    """Where recordings come from and how windows are drawn from them."""

    data_dir: Path = Field(Path("corpus"), description="folder of the recordings and their labels")
    layout: LayoutName = Field("auto", description="how that folder lays them out; auto: recognised by the paths")
    cache_dir: Path = Field(Path("cache"), description="folder of the preprocessed recordings")
    synthetic: Synthetic | None = None
    window_size: float = Field(60.0, ge=SAMPLE, description="window length, s")
    stride: float = Field(10.0, ge=SAMPLE, description="distance of window starts, s")
    use_balanced_sampling: bool = True
    full_seizure_ratio: float = Field(0.3, ge=0, description="all-seizure windows per partial-seizure window")
    background_ratio: float = Field(2.5, ge=0, description="background windows per partial-seizure window")
    limit_files: int | None = Field(None, ge=1, description="use the first N recordings of each split")
    rebuild_index: bool = Field(False, description="list the windows of the cache anew instead of reading its index")
    num_workers: int = Field(0, ge=0, le=64)
    pin_memory: bool = False
    persistent_workers: bool = False
    prefetch_factor: int = Field(2, ge=1)


class Preprocessing(Section):
    """From volts in a file to σ per electrode."""

    bandpass: tuple[float, float] = Field((0.5, 120.0), description="edges of the band-pass, Hz")
    notch_freq: float | None = Field(60.0, gt=0, lt=128, description="mains frequency to remove, Hz; none: keep it")
    normalize: bool = Field(True, description="z-score every electrode over its recording")
    causal: bool = Field(False, description="scale by the past alone, not by the recording; what streaming needs")
    clip_sigma: float = Field(10.0, gt=0, description="clip at this many σ; also the range of the int16 cache")

    @model_validator(mode="after")
    def _edges(self) -> Self:
        low, high = self.bandpass
        if not 0 < low < high < SAMPLING_RATE / 2:
            raise ValueError(f"bandpass is {low} to {high} Hz; expected 0 < low < high < {SAMPLING_RATE / 2:g}")
        return self


class TCN(Section):
    """Temporal convolution network: raw samples to features at L / stride_down steps."""

    num_layers: int = Field(8, ge=1, le=12)
    channels: tuple[int, ...] = Field((64, 128, 256, 512), description="cycled until num_layers are reached")
    kernel_size: int = Field(7, ge=3, le=31)
    stride_down: int = Field(
        16, ge=1, description="samples per step of everything behind the TCN; from 32 up the first block strides, too"
    )
    dropout: float = Field(0.15, ge=0, lt=1)

    @model_validator(mode="after")
    def _odd(self) -> Self:
        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size is {self.kernel_size}; expected an odd number, so that lengths are kept")
        if not self.channels:
            raise ValueError("channels is empty; expected at least one width")
        return self


class Mamba(Section):
    """Bidirectional Mamba-2: the stream of each electrode in v3, the one 512-wide stack in v2."""

    enabled: bool = True
    backend: Literal["auto", "torch", "mamba_ssm", "conv1d"] = "auto"
    n_layers: int = Field(6, ge=1, le=24)
    d_model: int | None = Field(None, ge=1, description="none: 64 in v3, 512 in v2")
    d_state: int = Field(16, ge=1)
    conv_kernel: int = Field(4, ge=2, le=4)
    headdim: int | None = Field(None, ge=1, description="none: 8 in v3, 64 in v2")
    chunk_size: int = Field(
        16,
        ge=1,
        description="steps per chunk of the scan; a CPU scans narrow streams (headdim * d_state <= 16) by step",
    )
    dropout: float = Field(0.1, ge=0, lt=1)


class Graph(Section):
    """Learned graph over the electrodes: edge stream, adjacency, positional encoding, graph convolution."""

    enabled: bool = True
    backend: Literal["dense", "pyg"] = Field("dense", description="`use_pyg: true` is an alias of pyg")
    n_layers: int = Field(2, ge=1, le=8)
    hops: int = Field(2, ge=1, le=8, description="K of SSGConv")
    alpha: float = Field(0.05, ge=0, le=1, description="share of a node's own features in SSGConv")
    dropout: float = Field(0.1, ge=0, lt=1)
    use_residual: bool = True
    edge_features: Literal["cosine", "correlation"] = "cosine"
    edge_top_k: int = Field(3, ge=1, le=18)
    edge_threshold: float = Field(1e-4, ge=0)
    edge_mamba_layers: int = Field(2, ge=0, le=12, description="0: edge weights straight from the similarity")
    edge_mamba_d_model: int = Field(16, ge=1)
    edge_mamba_d_state: int = Field(8, ge=1)
    edge_mamba_headdim: int = Field(4, ge=1)
    use_dynamic_pe: bool = Field(True, description="false: one encoding of the fixed 10-20 neighbour graph")
    pe: Literal["laplacian", "resolvent"] = "laplacian"
    pe_gradient: Literal["safe", "detached", "raw"] = "safe"
    pe_repair: Literal["none", "clamp_eigenvalues", "nan_to_num", "jitter"] = Field(
        "none", description="historical repairs of the eigenvectors, to be tried: none of them reaches their gradient"
    )
    k_eigenvectors: int = Field(16, ge=1, le=18)
    semi_dynamic_interval: int = Field(1, ge=1, description="compute the encoding every n-th step and hold it")

    @model_validator(mode="before")
    @classmethod
    def _use_pyg(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and "use_pyg" in values:
            values = dict(values)
            values["backend"] = "pyg" if values.pop("use_pyg") else "dense"
        return values


class Model(Section):
    """The detector."""

    architecture: Literal["v3", "v2", "tcn"] = "v3"
    norm: bool = Field(True, description="normalisation within and between the stages; false: the historical network")
    bias: bool = Field(True, description="biases in the TCN and in the projections in front of the graph")
    back_norm: bool = Field(False, description="another norm, in front of the projection back from the electrodes")
    clamp: tuple[float, float] | None = Field(
        None, description="historical clamp behind every stage; none in the stable detector"
    )
    checkpoint_activations: bool = Field(False, description="recompute the streams' activations in the backward pass")
    tcn: TCN = TCN()
    mamba: Mamba = Mamba()
    graph: Graph = Graph()

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        if self.clamp is not None and self.clamp[0] >= self.clamp[1]:
            raise ValueError(f"clamp is {self.clamp[0]:g} to {self.clamp[1]:g}; expected a lower and a higher bound")
        return self


class Scheduler(Section):
    """Learning rate over the steps of the run."""

    type: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_ratio: float = Field(0.05, ge=0, lt=1, description="share of all steps")


Metric = Literal[
    "loss",
    "auroc",
    "sensitivity_at_10fa",
    "sensitivity_at_5fa",
    "sensitivity_at_2.5fa",
    "sensitivity_at_1fa",
]


class EarlyStopping(Section):
    """What "best" means, and when to stop: after `patience` validations without a better one."""

    metric: Metric = "auroc"
    patience: int | None = Field(None, ge=1, description="none: never stop early")


def _precision(value: Any) -> Any:
    return {True: "fp16", False: False}[value] if isinstance(value, bool) else value


class Training(Section):
    """Optimisation."""

    epochs: int = Field(1, ge=1)
    max_steps: int | None = Field(None, ge=1, description="stop after this many optimizer steps")
    batch_size: int = Field(4, ge=1)
    learning_rate: float = Field(3e-4, gt=0)
    weight_decay: float = Field(0.05, ge=0)
    gradient_clip: float = Field(1.0, ge=0, description="largest norm of the gradient; 0: no clipping")
    gradient_accumulation_steps: int = Field(1, ge=1)
    mixed_precision: Annotated[Literal[False, "bf16", "fp16"], BeforeValidator(_precision)] = False
    loss: Literal["focal", "bce"] = "focal"
    focal_alpha: float = Field(0.5, ge=0, le=1)
    focal_gamma: float = Field(2.0, ge=0)
    scheduler: Scheduler = Scheduler()
    early_stopping: EarlyStopping = EarlyStopping()
    validate_every: int = Field(1, ge=1, description="epochs between validations")
    on_nonfinite: Literal["stop", "skip", "record", "sanitize"] = "stop"
    max_skipped_steps: int = Field(10, ge=0, description="steps that `on_nonfinite: skip` may drop before it stops")
    sanitize_inputs: bool = Field(False, description="replace non-finite input samples by zero; counted")
    detect_anomaly: bool = Field(False, description="PyTorch's anomaly mode: slow")
    checkpoint_interval: int = Field(200, ge=1, description="steps between writes of the last checkpoint")
    log_every: int = Field(10, ge=1, description="steps between printed lines")


class Hysteresis(Section):
    """Enter an event at tau_on, leave it at tau_off."""

    tau_on: float = Field(0.86, gt=0, lt=1)
    tau_off: float = Field(0.78, gt=0, lt=1)
    min_onset_samples: int = Field(128, ge=1)
    min_offset_samples: int = Field(256, ge=1)

    @model_validator(mode="after")
    def _order(self) -> Self:
        if self.tau_off > self.tau_on:
            raise ValueError(f"tau_off is {self.tau_off} above tau_on {self.tau_on}; expected tau_off <= tau_on")
        return self


class Morphology(Section):
    """Opening, then closing of the event mask; lengths in samples, 1 does nothing."""

    opening: int = Field(11, ge=1)
    closing: int = Field(31, ge=1)


class Duration(Section):
    """Events outside these lengths are dropped (shorter) or split (longer); seconds."""

    min: float = Field(3.0, ge=0)
    max: float = Field(600.0, gt=0)

    @model_validator(mode="after")
    def _order(self) -> Self:
        if self.min >= self.max:
            raise ValueError(f"min is {self.min:g} s and max {self.max:g} s; expected min < max")
        return self


class Events(Section):
    """From mask to events."""

    tau_merge: float = Field(2.0, ge=0, description="merge events that are at most this far apart, s")
    confidence: Literal["mean", "peak"] = "mean"


class Postprocessing(Section):
    """From probabilities to events."""

    hysteresis: Hysteresis = Hysteresis()
    morphology: Morphology = Morphology()
    duration: Duration = Duration()
    events: Events = Events()


class Evaluation(Section):
    """Evaluation of whole recordings."""

    fa_rates: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (10.0, 5.0, 2.5, 1.0), min_length=1, description="false alarms per 24 h"
    )
    stride: float = Field(30.0, ge=SAMPLE, description="distance of window starts in overlap-add, s")
    batch_size: int = Field(8, ge=1)


class Experiment(Section):
    """The run itself."""

    name: str = "run"
    seed: int = Field(42, ge=0, lt=2**63)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    output_dir: Path = Path("runs")
    tensorboard: bool = False
    progress: bool = Field(True, description="a live progress bar where there is a terminal")
    purpose: Literal["training", "smoke", "incident"] = Field(
        "training",
        description="what triage holds it to; smoke stands for the train.yaml beside it, an incident is there to fail",
    )
    expects: tuple[str, ...] = Field((), description="the checks of triage that are to find something in an incident")

    @model_validator(mode="after")
    def _expects(self) -> Self:
        if self.expects and self.purpose != "incident":
            raise ValueError(f"purpose is {self.purpose} and expects {', '.join(self.expects)}; expected an incident")
        return self


class WatchConfig(Section):
    """What `brainbrr train` watches."""

    enabled: bool = True
    sentinel: bool = Field(False, description="look at every leaf module's output, not only at the logits")
    healthy_batches: int = Field(1, ge=1, le=64, description="recent healthy batches kept for the capture")
    eigengap: float = Field(1e-6, gt=0, description="relative eigengap at or below which a graph counts as degenerate")
    every: int = Field(0, ge=0, description="steps between statistics of every module, forward and backward; 0: none")
    ranges: int = Field(0, ge=0, description="minima and maxima kept of every leaf module, shown on a trigger; 0: none")
    snapshot_every: int = Field(0, ge=0, description="steps between copies of the state to capture from; 0: none")


class Config(Section):
    """The whole tree."""

    data: Data = Data()
    preprocessing: Preprocessing = Preprocessing()
    model: Model = Model()
    training: Training = Training()
    postprocessing: Postprocessing = Postprocessing()
    evaluation: Evaluation = Evaluation()
    experiment: Experiment = Experiment()
    watch: WatchConfig = WatchConfig()

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.evaluation.stride > self.data.window_size:
            raise ValueError(
                f"evaluation.stride is {self.evaluation.stride:g} s and data.window_size {self.data.window_size:g} s; "
                "expected windows that leave no gap: lower evaluation.stride"
            )
        metric = self.training.early_stopping.metric
        known = {f"sensitivity_at_{rate:g}fa" for rate in self.evaluation.fa_rates} | {"loss", "auroc"}
        if metric not in known:
            raise ValueError(
                f"training.early_stopping.metric is {metric}, which is never computed; add its rate to "
                "evaluation.fa_rates"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _device(cls, values: Any) -> Any:
        """A top-level `device` is an alias of `experiment.device`."""
        if isinstance(values, Mapping) and "device" in values:
            values = dict(values)
            device, experiment = values.pop("device"), values.get("experiment") or {}
            if isinstance(experiment, Mapping):  # anything else is refused by the section itself
                values["experiment"] = {"device": device, **experiment}
        return values
