"""What the detector's configuration says, as neutral facts: what is refused, what nobody reads, what it will need."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from brainbrr.config import ELECTRODES, SAMPLING_RATE, Config, ConfigError
from brainbrr.configure import build_config, differences, objections
from brainbrr.environment import apply_overrides
from brainbrr_debug.facts import Bounds, ConfigFacts, Feature, KernelIndex, Objection, Place, StateSpace, Twin
from brainbrr_debug.subjects.idle import idle_keys
from brainbrr_debug.yamlfile import YamlFile, read_yaml

EXPAND = 2  # of Mamba-2
PAIRS = len(ELECTRODES) * (len(ELECTRODES) - 1) // 2
WIDTHS = {"v3": (64, 8), "v2": (512, 64)}  # d_model and headdim where the configuration leaves them open
SEQUENCES = {"v3": len(ELECTRODES), "v2": 1}  # a window, in the stream of the electrodes
LEAST_CHUNK = 32  # steps; the fused kernels are never given fewer
TRIAL = (
    "data.cache_dir", "data.limit_files", "training.checkpoint_interval", "training.early_stopping", "training.epochs",
    "training.log_every", "training.max_steps", "training.validate_every", "experiment.", "watch.",
)  # fmt: skip
"""What a trial run may change and still stand for the training."""
LOADING = ("data.data_dir", "data.num_workers", "data.persistent_workers", "data.pin_memory", "data.prefetch_factor")
"""What belongs to a machine: none of it changes a number."""


def facts_of(path: Path) -> ConfigFacts:
    """The facts of a configuration file; what is wrong with it is among them. Raises OSError."""
    file = read_yaml(path)
    refused, unread = _objections(file)
    nothing = ConfigFacts(path=path, lines=file.lines, objections=refused, unread=unread)
    if refused:
        return nothing
    config = config_of(path)
    idle = tuple(Objection(key=key, message=reason) for key, reason in idle_keys(config) if key in file.lines)
    try:
        config, overrides = apply_overrides(config)
    except ConfigError as error:
        objection = Objection(key="", message=f"an environment variable cannot be applied: {error}")
        return ConfigFacts(path=path, lines=file.lines, objections=(objection,), unread=unread)
    return ConfigFacts(
        path=path,
        lines=file.lines,
        unread=(*unread, *idle),
        device=config.experiment.device,
        precision=config.training.mixed_precision or "float32",
        workers=config.data.num_workers,
        purpose=config.experiment.purpose,
        expects=config.experiment.expects,
        metric=config.training.early_stopping.metric,
        spaces=tuple(_spaces(config)),
        kernels=tuple(_kernels(config)),
        bounds=_bounds(config),
        features=tuple(_features(config)),
        places=tuple(_places(config)),
        twin=_twin(path, config),
        siblings=tuple(_siblings(path, config)),
        overrides={name: ", ".join(f"{k}={v}" for k, v in what["changes"].items()) for name, what in overrides.items()},
    )


def config_of(path: Path) -> Config:
    """The configuration without its unknown keys, which training refuses and checks do not. Raises ConfigError."""
    file = read_yaml(path)
    return build_config(_without(file.values, [item.key for item in _objections(file)[1]]), source=str(path))


def _objections(file: YamlFile) -> tuple[tuple[Objection, ...], tuple[Objection, ...]]:
    """What refuses the file, and its unknown keys."""
    if file.error is not None:
        return (Objection(key="", message=f"not YAML: {file.error}"),), ()
    if not isinstance(file.values, dict):
        return (Objection(key="", message=f"holds a {type(file.values).__name__}; expected a mapping of sections"),), ()
    try:
        Config.model_validate(file.values)
    except ValidationError as error:
        found = objections(error)
        refused = tuple(Objection(key=o.key, message=o.message) for o in found if not o.unknown)
        unread = tuple(Objection(key=o.key, message=f"no such key{o.message}", unread=True) for o in found if o.unknown)
        return refused, unread
    return (), ()


def _without(values: Mapping[str, Any], keys: list[str], prefix: str = "") -> dict[str, Any]:
    return {
        name: _without(value, keys, f"{prefix}{name}.") if isinstance(value, Mapping) else value
        for name, value in values.items()
        if f"{prefix}{name}" not in keys
    }


def _spaces(config: Config) -> Iterator[StateSpace]:
    model = config.model
    if model.architecture != "tcn" and model.mamba.enabled:
        d_model, headdim = WIDTHS[model.architecture]
        yield _space("model.mamba", model.mamba.d_model or d_model, model.mamba.headdim or headdim)
    if model.architecture == "v3" and model.graph.enabled and model.graph.edge_mamba_layers:
        yield _space("model.graph.edge_mamba_", model.graph.edge_mamba_d_model, model.graph.edge_mamba_headdim)


def _space(key: str, d_model: int, headdim: int) -> StateSpace:
    name = f"{key}headdim" if key.endswith("_") else f"{key}.headdim"
    # The detector's fused path takes the scan of mamba_ssm and PyTorch's own convolution.
    return StateSpace(key=name, d_model=d_model, expand=EXPAND, headdim=headdim, fused_convolution=False)


def _kernels(config: Config) -> Iterator[KernelIndex]:
    """What the scan of mamba_ssm counts into, where it may run: its chunk matrices, and its input."""
    model, windows = config.model, config.training.batch_size
    if config.experiment.device == "cpu" or model.mamba.backend not in ("auto", "mamba_ssm"):
        return
    steps = math.ceil(round(config.data.window_size * SAMPLING_RATE) / model.tcn.stride_down)
    chunk = max(LEAST_CHUNK, 1 << (model.mamba.chunk_size - 1).bit_length())
    for space in _spaces(config):
        edges = space.key.startswith("model.graph")
        counts = {"sequences a window": PAIRS if edges else SEQUENCES[model.architecture], "windows": windows}
        matrices = {"chunks": math.ceil(steps / chunk), "steps of a chunk squared": chunk * chunk}
        states = model.graph.edge_mamba_d_state if edges else model.mamba.d_state
        inner = space.d_model * space.expand
        channels = {"steps": steps, "channels": 2 * inner + 2 * states + inner // space.headdim}
        for name, factors in (("chunk matrices", matrices), ("input of the scan", channels)):
            yield KernelIndex(
                name=f"{space.key.removesuffix('headdim').rstrip('._')}: {name}", factors=counts | factors
            )


def _bounds(config: Config) -> Bounds:
    hysteresis = config.postprocessing.hysteresis
    return Bounds(
        key="model.clamp",
        logits=config.model.clamp,
        loss=None,  # computed from log-sigmoids: it tells all logits apart
        enter=hysteresis.tau_on,
        leave=hysteresis.tau_off,
    )


def _features(config: Config) -> Iterator[Feature]:
    model = config.model
    graph = model.architecture == "v3" and model.graph.enabled
    scans = (model.architecture != "tcn" and model.mamba.enabled) or (graph and model.graph.edge_mamba_layers > 0)
    yield Feature(key="preprocessing", module="scipy", install="brainbrr[eeg]")
    yield Feature(key="data.data_dir", module="edfio", install="brainbrr[eeg]")
    if graph and model.graph.backend == "pyg":
        yield Feature(key="model.graph.backend", module="torch_geometric", install="brainbrr[eeg]")
    if scans and model.mamba.backend == "mamba_ssm":
        yield Feature(key="model.mamba.backend", module="mamba_ssm", install="brainbrr[gpu]")
    if config.experiment.tensorboard:
        yield Feature(key="experiment.tensorboard", module="tensorboard", install="brainbrr[tensorboard]")


def _places(config: Config) -> Iterator[Place]:
    yield Place(key="data.cache_dir", path=config.data.cache_dir, mapped=True)
    yield Place(key="experiment.output_dir", path=config.experiment.output_dir)


def _twin(path: Path, config: Config) -> Twin | None:
    other = path.with_name("train.yaml")
    return _compared(other, config) if config.experiment.purpose == "smoke" and other != path else None


def _siblings(path: Path, config: Config) -> Iterator[Twin]:
    """The configurations of the same name in the folders beside: the same training on another machine."""
    others = path.resolve().parent.parent.glob(f"*/{path.name}") if config.experiment.purpose == "training" else ()
    for other in sorted(others):
        twin = _compared(other, config) if other != path.resolve() else None
        if twin is not None:
            yield Twin(path=other, differences=tuple(d for d in twin.differences if not d.key.startswith(LOADING)))


def _compared(other: Path, config: Config) -> Twin | None:
    """What differs from another configuration beyond what a trial run may change; None where it cannot be read."""
    try:
        whole = Config.model_validate(read_yaml(other).values)
    except (OSError, ValidationError):
        return None
    apart = [line.partition(": ") for line in differences(whole, config) if not line.startswith(TRIAL)]
    return Twin(path=other, differences=tuple(Objection(key=key, message=values) for key, _, values in apart))
