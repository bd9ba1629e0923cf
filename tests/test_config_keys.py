"""No dead key: whatever can be configured changes an object, a batch, the bits of a step or an output.

Every leaf of the tree has a case: another value, and an observation that must then differ. Observations run the very
functions that training, evaluation and the command line run, on a detector of a few hundred parameters; configuration
files, hashes and the configurations inside of checkpoints and captures are no evidence. A new key without a case fails.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import io
import itertools
import json
import math
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import brainbrr.data.dataset
from brainbrr.cli import cli
from brainbrr.cli.training import watch_of
from brainbrr.config import Config, ConfigError
from brainbrr.configure import _section_of, build_config, known_keys, with_values
from brainbrr.data.cache import open_cache
from brainbrr.data.dataset import WindowBatch, WindowDataset
from brainbrr.data.prepare import prepare, windows
from brainbrr.data.preprocess import preprocess
from brainbrr.data.synthetic import write_corpus
from brainbrr.evaluation.document import document
from brainbrr.evaluation.evaluate import evaluate
from brainbrr.evaluation.postprocess import events_from_probabilities
from brainbrr.models.inventory import activation_bytes
from brainbrr.training.loop import Trainer
from brainbrr.training.observer import Unobserved
from brainbrr.training.setup import as_batch, build_setup, choose_device, new_detector, window_batches
from brainbrr_debug.capture import read_capture
from brainbrr_debug.checks.given import Given
from brainbrr_debug.main import exit_code
from brainbrr_debug.rundir import RunDir
from brainbrr_debug.triage.baseline import Baseline
from brainbrr_debug.triage.checklist import default_checklist
from brainbrr_debug.triage.run import triage

SMALL_GRAPH = {"n_layers": 1, "edge_mamba_layers": 1, "edge_mamba_d_model": 4, "edge_mamba_headdim": 4}
BASE: dict[str, Any] = {
    "data": {"window_size": 10, "stride": 5, "background_ratio": 0.5},
    "model": {
        "tcn": {"num_layers": 1, "channels": [8], "stride_down": 512},
        "mamba": {"backend": "torch", "n_layers": 1, "d_model": 8, "d_state": 4, "headdim": 4, "chunk_size": 4},
        "graph": {**SMALL_GRAPH, "edge_mamba_d_state": 4},
    },
    "training": {"batch_size": 2, "learning_rate": 0.01},
    "evaluation": {"stride": 10},
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """`value` instead of the present one, what to look at, and what must be so before the key can matter."""

    value: Any
    look: Callable[[Bench, Config], Any]
    given: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(kw_only=True)
class Bench:
    """What the observations share: a corpus in the cache, a folder to write to, what was seen already."""

    place: Path
    seen: dict[tuple[str, str], Any] = dataclasses.field(default_factory=dict)

    def base(self) -> Config:
        """The smallest configuration with every stage in it, on the corpus that is here."""
        config = build_config(BASE)
        return with_values(config, {"data.data_dir": self.place / "corpus", "data.cache_dir": self.place / "cache"})

    def observe(self, look: Callable[[Bench, Config], Any], config: Config) -> Any:
        """What `look` sees under `config`, each once."""
        key = (look.__name__, config.model_dump_json())
        if key not in self.seen:
            self.seen[key] = look(self, config)
        return self.seen[key]

    def folder(self) -> Path:
        """A new one."""
        path = self.place / f"{len(list(self.place.iterdir())):03d}"
        path.mkdir()
        return path


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    place = tmp_path_factory.mktemp("keys")
    for name, patients in (("corpus", 2), ("other", 1)):
        write_corpus(place / name, patients=patients, minutes=1.2, seizures=1, lookalikes=0, seed=1)
    bench = Bench(place=place)
    prepare(bench.base())
    yield bench
    shutil.rmtree(place)


def digest(*arrays: Any) -> str:
    """Of the bits of tensors and arrays."""
    bits = hashlib.sha256()
    for array in arrays:
        array = array.detach().numpy() if isinstance(array, torch.Tensor) else array
        bits.update(np.ascontiguousarray(array).tobytes())
    return bits.hexdigest()[:16]


# What can be looked at


def step_bits(bench: Bench, config: Config) -> Any:
    """Parameters by name and shape, kernels, logits and gradient of a training step, and the weights after it."""
    setup = build_setup(config)
    generator = torch.Generator().manual_seed(5)
    signal = torch.randn(2, 19, 2560, generator=generator)
    signal[:, 9, ::3] += 3
    target = (torch.rand(2, 2560, generator=generator) > 0.7).float()
    logits: list[torch.Tensor] = []
    gate = Unobserved()
    gate.forward = lambda output, loss: logits.append(output.detach().float())  # type: ignore[method-assign]
    setup.step([((signal,), target)], gate)
    parameters = dict(setup.model.named_parameters())
    gradients = [p.grad for p in parameters.values() if p.grad is not None]
    return {
        "shapes": {name: tuple(p.shape) for name, p in parameters.items()},
        "backends": dataclasses.asdict(setup.model.backends),
        "logits": digest(*logits),
        "gradients": digest(*gradients),
        "weights": digest(*parameters.values()),
    }


def kept_bytes(bench: Bench, config: Config) -> Any:
    """What the forward pass keeps for the backward pass."""
    return activation_bytes(new_detector(config), 2560, 2)


def device(bench: Bench, config: Config) -> str:
    """Where the detector is put on a machine without CUDA, and on one with it."""
    found = []
    for available in (False, True):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.cuda, "is_available", lambda there=available: there)
            try:
                found.append(choose_device(config.experiment.device).type)
            except ConfigError as error:
                found.append(str(error))
    return " / ".join(found)


def batches(bench: Bench, config: Config) -> Any:
    """Every batch of an epoch: which windows of which recordings, and their bits."""
    dataset = windows(config, open_cache(config.data.cache_dir, "train"))
    return [
        ([tuple(dataset.identify(window).values()) for window in batch.windows], digest(batch.signal, batch.target))
        for batch in window_batches(config, dataset, 0)
    ]


def loaders(bench: Bench, config: Config) -> Any:
    """The options of every DataLoader that an epoch builds, on a machine with CUDA."""
    built: list[dict[str, Any]] = []

    class Loader:
        def __init__(self, dataset: object, **options: Any) -> None:
            built.append({name: value for name, value in options.items() if name != "sampler"})

        def __iter__(self) -> Iterator[WindowBatch]:
            return iter(())

    def pinned(batch: WindowBatch) -> WindowBatch:
        built.append({"pinned": True})
        return batch

    dataset = windows(config, open_cache(config.data.cache_dir, "train"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(brainbrr.data.dataset, "DataLoader", Loader)
        patch.setattr(WindowBatch, "pin_memory", pinned)
        list(window_batches(config, dataset, 0))
    return built


def triaged(bench: Bench, config: Config) -> Any:
    """What triage says of it."""
    path = bench.folder() / "config.yaml"
    path.write_text(config.model_dump_json(), encoding="utf-8")
    wanted = ["config.bounds_agree", "config.drift"]
    found = triage(Given(config=path), default_checklist(), wanted, Baseline(entries={}))
    return [finding.message for finding in found.findings], sorted(found.not_applicable)


def corpus(bench: Bench, config: Config) -> Any:
    """Every file of the corpus that is written where none is."""
    root = bench.folder()
    prepare(with_values(config, {"data.data_dir": root / "corpus", "data.cache_dir": root / "cache"}))
    files = sorted(path for path in (root / "corpus").rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def cached(bench: Bench, config: Config) -> Any:
    """Where the cache of the corpus lies, and what is in it."""
    recordings = prepare(config)["train"].recordings
    return [(str(recording.path), digest(recording.read(0, 2560))) for recording in recordings]


def placed(bench: Bench, config: Config) -> Any:
    """Where recordings lie whose paths fit two layouts."""
    folder = bench.folder() / "train/sub-002/eeg"
    folder.mkdir(parents=True)
    for path in sorted((config.data.data_dir / "edf/train").rglob("*_t000.*"))[:2]:
        shutil.copy(path, folder / f"sub-002_eeg{path.suffix}")
    there = {"data.data_dir": folder.parents[2], "data.cache_dir": bench.folder()}
    return [recording.source for recording in prepare(with_values(config, there))["train"].recordings]


def relisted(bench: Bench, config: Config) -> Any:
    """The recordings of a cache beside which somebody put one that its index does not know."""
    cache = bench.folder() / "cache"
    shutil.copytree(config.data.cache_dir, cache)
    known = min((cache / "train").glob("*.json")).stem
    for path in (cache / "train").glob(f"{known}.*"):
        content = path.read_bytes()
        stranger = content.replace(known.encode(), b"stranger_s001_t000") if path.suffix == ".json" else content
        path.with_stem("stranger_s001_t000").write_bytes(stranger)
    found = prepare(with_values(config, {"data.cache_dir": cache}))["train"].recordings
    return [recording.name for recording in found]


def preprocessed(bench: Bench, config: Config) -> Any:
    """A minute of noise with mains and a pop."""
    t = np.arange(60 * 256) / 256
    signal = np.random.default_rng(0).normal(0, 20, (19, t.size)) + 5 * np.sin(2 * np.pi * 60 * t)
    signal[3, 4000:4010] += 5000
    return digest(preprocess(signal.astype(np.float32), 256, config.preprocessing).signal)


def events(bench: Bench, config: Config) -> Any:
    """The events in a trace with a step for each rule."""
    prob = np.full(1200 * 256, 0.1, dtype=np.float32)
    for start, stop, value in (
        (10, 40, 0.9),  # an event
        (60, 90, 0.82),  # between the thresholds
        (41.5, 47, 0.88),  # 1.5 s behind the first
        (100, 110, 0.95), (110.05, 120, 0.95),  # a rest of 13 samples
        (150, 150.3, 0.99),  # 77 samples
        (170, 172, 0.99),  # 2 s
        (180, 183.3, 0.99),  # 845 samples
        (200, 200.8, 0.9), (200.8, 201.4, 0.5), (201.4, 230, 0.9),  # a rest of 154 samples
        (240, 250, 0.9), (250, 260, 0.6),  # falls slowly
        (300, 1000, 0.97),  # longer than anything may be
    ):  # fmt: skip
        prob[round(start * 256) : round(stop * 256)] = value
    found = events_from_probabilities(prob, 256, config.postprocessing)
    return [(event.start_s, event.stop_s, round(event.confidence, 4)) for event in found]


def evaluation(bench: Bench, config: Config) -> Any:
    """The report on the dev split, and the sizes of the batches that the detector saw."""
    sizes: list[int] = []
    setup = build_setup(config)
    setup.model.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    report = evaluate(setup.model, open_cache(config.data.cache_dir, "dev").recordings, config, device="cpu")
    return json.dumps(document(report)), sizes


def course(bench: Bench, config: Config) -> Any:
    """Everything about a training but its config: lines, saves, validations, learning rates, the bits it ends with."""
    lines: list[str] = []
    told: list[Any] = []
    setup = build_setup(config)
    values = iter([0.5, 0.4, 0.3, 0.2] + [0.1] * 99)

    def validate(setup: Any) -> dict[str, float]:
        told.append("validated")
        return {"auroc": (value := next(values)), "loss": value}

    trainer = Trainer(
        config,
        setup,
        windows(config, open_cache(config.data.cache_dir, "train")),
        checkpoints=bench.folder(),
        observer=Unobserved(),
        validate=validate,
        narrate=lambda line: lines.append(line.partition("lr")[0]),
        scalars=lambda step, scalars: told.append((step, scalars)),
    )
    trainer.save = lambda name: told.append((name, trainer.step))  # type: ignore[method-assign,assignment,return-value]
    outcome = dataclasses.replace(trainer.train(), seconds=0)
    return lines, told, outcome, digest(*setup.model.parameters())


class Poisoned(WindowDataset):
    """Its third batch holds a sample that is not a number."""

    def batch(self, chunk: Sequence[int]) -> WindowBatch:
        batch = super().batch(chunk)
        self.drawn = getattr(self, "drawn", 0) + 1
        if self.drawn == 3:
            batch.signal[0, 0, 0] = math.nan
        return batch


def incident(bench: Bench, config: Config) -> Any:
    """What a watched run leaves when one sample of its third batch is not a number."""
    setup = build_setup(config)
    run = RunDir.create(bench.folder(), "incident")
    data = config.data
    dataset = Poisoned(open_cache(data.cache_dir, "train"), window_size=data.window_size, stride=data.stride)
    watch = watch_of(config, setup, run, {})
    trainer = Trainer(config, setup, dataset, checkpoints=run.checkpoints, observer=watch)
    stopped = None
    try:
        with watch:
            trainer.train()
    except (RuntimeError, FloatingPointError) as error:
        stopped = type(error).__name__
    captures = [read_capture(path) for path in run.list_captures()]
    return {
        "stopped": (stopped, trainer.step),
        "counters": watch.counters,
        "altered": setup.step.altered,
        "weights": digest(*setup.model.parameters()),
        "readings": {(reading.site, reading.quantity) for reading in run.readings().items},
        "findings": [(finding.step, finding.check) for finding in run.findings().items],
        "healthy": [len(capture.healthy_micro_batches or ()) for capture in captures],
        "evidence": sorted({key for finding in run.findings().items for key in finding.evidence}),
        "lead_in": [len(capture.lead_in) for capture in captures],
    }


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def command(bench: Bench, config: Config) -> Any:
    """What `brainbrr train` leaves behind in the folder it is run from, and whether it draws a bar on a terminal."""
    root = bench.folder()
    changes = {"data.cache_dir": str(root / "cache"), "data.limit_files": 1, "training.max_steps": 1}
    path = root / "config.yaml"
    path.write_text(json.dumps(with_values(config, changes).model_dump(mode="json")))
    terminal = Terminal()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setattr(sys, "stderr", terminal)
        patch.setattr(sys, "stdout", io.StringIO())
        assert exit_code(cli, ["train", str(path)]) == 0, terminal.getvalue()
    found = {str(path.relative_to(root)) for path in root.rglob("*") if path.suffix != ".npy"}
    files = {name if "tfevents" not in name else "tfevents" for name in found if not name.startswith("cache")}
    return files, "1/1 recordings  " in terminal.getvalue()


# What is changed, and where it shows

SYNTHETIC = {"data.synthetic": {"patients": 1, "minutes": 1.0, "seizures": 1, "lookalikes": 0, "seed": 4}}
WORKERS = {"data.num_workers": 1}
CHUNKED = {"model.mamba.d_state": 64, "model.mamba.headdim": 16}  # smaller scans go step by step on a CPU
SHORT = {"training.epochs": 1, "training.max_steps": 4, "training.on_nonfinite": "record"}
RAW = {**SHORT, "model.graph.pe_gradient": "raw"}
SKIP = {**SHORT, "training.on_nonfinite": "skip", "training.max_skipped_steps": 0}
EPOCHS = {"training.epochs": 4, "model.architecture": "tcn"}
PATIENT = {**EPOCHS, "training.early_stopping.patience": 1}

CASES: dict[str, Case] = {
    "data.data_dir": Case(value="{place}/other", look=cached, given={"data.cache_dir": "{place}/mutable"}),
    "data.cache_dir": Case(value="{place}/elsewhere", look=cached),
    "data.layout": Case(value="tusz", look=placed),
    "data.synthetic.patients": Case(value=2, look=corpus, given=SYNTHETIC),
    "data.synthetic.minutes": Case(value=1.1, look=corpus, given=SYNTHETIC),
    "data.synthetic.seizures": Case(value=2, look=corpus, given=SYNTHETIC),
    "data.synthetic.lookalikes": Case(value=1, look=corpus, given=SYNTHETIC),
    "data.synthetic.artefacts": Case(value=["pop"], look=corpus, given=SYNTHETIC),
    "data.synthetic.seed": Case(value=5, look=corpus, given=SYNTHETIC),
    "data.window_size": Case(value=11, look=batches),
    "data.stride": Case(value=4, look=batches),
    "data.use_balanced_sampling": Case(value=False, look=batches),
    "data.full_seizure_ratio": Case(value=0.6, look=batches),
    "data.background_ratio": Case(value=1.0, look=batches),
    "data.limit_files": Case(value=1, look=cached),
    "data.rebuild_index": Case(value=True, look=relisted),
    "data.num_workers": Case(value=1, look=loaders),
    "data.pin_memory": Case(value=True, look=loaders),
    "data.persistent_workers": Case(value=True, look=loaders, given=WORKERS),
    "data.prefetch_factor": Case(value=3, look=loaders, given=WORKERS),
    "preprocessing.bandpass": Case(value=[1.0, 70.0], look=preprocessed),
    "preprocessing.notch_freq": Case(value=50.0, look=preprocessed),
    "preprocessing.normalize": Case(value=False, look=preprocessed),
    "preprocessing.causal": Case(value=True, look=preprocessed),
    "preprocessing.clip_sigma": Case(value=5.0, look=preprocessed),
    "model.architecture": Case(value="v2", look=step_bits),
    "model.norm": Case(value=False, look=step_bits),
    "model.bias": Case(value=False, look=step_bits),
    "model.back_norm": Case(value=True, look=step_bits),
    "model.clamp": Case(value=[-0.1, 0.1], look=step_bits),
    "model.checkpoint_activations": Case(value=True, look=kept_bytes),
    "model.tcn.num_layers": Case(value=2, look=step_bits),
    "model.tcn.channels": Case(value=[9], look=step_bits),
    "model.tcn.kernel_size": Case(value=5, look=step_bits),
    "model.tcn.stride_down": Case(value=256, look=step_bits),
    "model.tcn.dropout": Case(value=0.5, look=step_bits),
    "model.mamba.enabled": Case(value=False, look=step_bits),
    "model.mamba.backend": Case(value="conv1d", look=step_bits),
    "model.mamba.n_layers": Case(value=2, look=step_bits),
    "model.mamba.d_model": Case(value=4, look=step_bits),
    "model.mamba.d_state": Case(value=8, look=step_bits),
    "model.mamba.conv_kernel": Case(value=3, look=step_bits),
    "model.mamba.headdim": Case(value=8, look=step_bits),
    "model.mamba.chunk_size": Case(value=2, look=step_bits, given=CHUNKED),
    "model.mamba.dropout": Case(value=0.5, look=step_bits),
    "model.graph.enabled": Case(value=False, look=step_bits),
    "model.graph.backend": Case(value="pyg", look=step_bits),
    "model.graph.n_layers": Case(value=2, look=step_bits),
    "model.graph.hops": Case(value=3, look=step_bits),
    "model.graph.alpha": Case(value=0.5, look=step_bits),
    "model.graph.dropout": Case(value=0.5, look=step_bits),
    "model.graph.use_residual": Case(value=False, look=step_bits),
    "model.graph.edge_features": Case(value="correlation", look=step_bits),
    "model.graph.edge_top_k": Case(value=5, look=step_bits),
    "model.graph.edge_threshold": Case(value=2.0, look=step_bits),
    "model.graph.edge_mamba_layers": Case(value=2, look=step_bits),
    "model.graph.edge_mamba_d_model": Case(value=8, look=step_bits),
    "model.graph.edge_mamba_d_state": Case(value=8, look=step_bits),
    "model.graph.edge_mamba_headdim": Case(value=8, look=step_bits),
    "model.graph.use_dynamic_pe": Case(value=False, look=step_bits),
    "model.graph.pe": Case(value="resolvent", look=step_bits),
    "model.graph.pe_gradient": Case(value="detached", look=step_bits),
    "model.graph.pe_repair": Case(value="jitter", look=step_bits),
    "model.graph.k_eigenvectors": Case(value=4, look=step_bits),
    "model.graph.semi_dynamic_interval": Case(value=2, look=step_bits),
    "training.epochs": Case(value=2, look=course, given=EPOCHS),
    "training.max_steps": Case(value=3, look=course, given=EPOCHS),
    "training.batch_size": Case(value=3, look=batches),
    "training.learning_rate": Case(value=0.02, look=step_bits),
    "training.weight_decay": Case(value=0.5, look=step_bits),
    "training.gradient_clip": Case(value=1e-9, look=step_bits),
    "training.gradient_accumulation_steps": Case(value=2, look=course, given=EPOCHS),
    "training.mixed_precision": Case(value="bf16", look=step_bits),
    "training.loss": Case(value="bce", look=step_bits),
    "training.focal_alpha": Case(value=0.25, look=step_bits),
    "training.focal_gamma": Case(value=1.0, look=step_bits),
    "training.scheduler.type": Case(value="constant", look=course, given=EPOCHS),
    "training.scheduler.warmup_ratio": Case(value=0.5, look=course, given=EPOCHS),
    "training.early_stopping.metric": Case(value="loss", look=course, given=PATIENT),
    "training.early_stopping.patience": Case(value=2, look=course, given=PATIENT),
    "training.validate_every": Case(value=2, look=course, given=EPOCHS),
    "training.on_nonfinite": Case(value="sanitize", look=incident, given=SHORT),
    "training.max_skipped_steps": Case(value=10, look=incident, given=SKIP),
    "training.sanitize_inputs": Case(value=True, look=incident, given=SHORT),
    "training.detect_anomaly": Case(value=True, look=incident, given=SHORT),
    "training.checkpoint_interval": Case(value=2, look=course, given=EPOCHS),
    "training.log_every": Case(value=2, look=course, given=EPOCHS),
    "postprocessing.hysteresis.tau_on": Case(value=0.8, look=events),
    "postprocessing.hysteresis.tau_off": Case(value=0.4, look=events),
    "postprocessing.hysteresis.min_onset_samples": Case(value=700, look=events),
    "postprocessing.hysteresis.min_offset_samples": Case(value=100, look=events),
    "postprocessing.morphology.opening": Case(value=900, look=events),
    "postprocessing.morphology.closing": Case(value=3000, look=events),
    "postprocessing.duration.min": Case(value=1.0, look=events),
    "postprocessing.duration.max": Case(value=300.0, look=events),
    "postprocessing.events.tau_merge": Case(value=0.5, look=events),
    "postprocessing.events.confidence": Case(value="peak", look=events),
    "evaluation.fa_rates": Case(value=[10.0, 3.0], look=evaluation),
    "evaluation.stride": Case(value=5.0, look=evaluation),
    "evaluation.batch_size": Case(value=3, look=evaluation),
    "experiment.name": Case(value="other", look=command),
    "experiment.seed": Case(value=7, look=step_bits),
    "experiment.device": Case(value="cuda", look=device),
    "experiment.output_dir": Case(value="results", look=command),
    "experiment.tensorboard": Case(value=True, look=command),
    "experiment.progress": Case(value=False, look=command),
    "experiment.purpose": Case(value="smoke", look=triaged),
    "experiment.expects": Case(value=["config.bounds_agree"], look=triaged, given={"experiment.purpose": "incident"}),
    "watch.enabled": Case(value=False, look=command),
    "watch.sentinel": Case(value=True, look=incident, given=SHORT),
    "watch.healthy_batches": Case(value=2, look=incident, given=SHORT),
    "watch.every": Case(value=2, look=incident, given=SHORT),
    "watch.ranges": Case(value=2, look=incident, given=SHORT),
    "watch.snapshot_every": Case(value=2, look=incident, given=SHORT),
    "watch.eigengap": Case(value=0.9, look=incident, given=RAW),
}

GPU_ONLY = {
    "data.pin_memory": "brainbrr.data.dataset:load_batches",
    "experiment.device": "brainbrr.training.setup:choose_device",
}
"""Keys that change nothing without CUDA, and who reads them; their cases pretend that there is a device."""


def leaves() -> list[str]:
    """Every key of the tree that is no section."""
    keys = known_keys()
    return [key for key in keys if not any(other.startswith(f"{key}.") for other in keys)]


def test_every_key_has_a_case() -> None:
    assert sorted(CASES) == sorted(leaves())


def test_keys_are_those_of_the_sections_fields() -> None:
    """`known_keys` is what the enumeration rests on: hold it against the fields, walked independently."""

    def walk(section: type, prefix: str) -> Iterator[str]:
        for name, field in section.model_fields.items():
            inner = _section_of(field.annotation)
            yield from [f"{prefix}{name}"] if inner is None else walk(inner, f"{prefix}{name}.")

    dumped = with_values(Config(), {"data.synthetic": {}}).model_dump()
    flat = [key for key in known_keys() if not isinstance(_at(dumped, key), dict)]
    assert sorted(walk(Config, "")) == sorted(leaves()) == sorted(flat)


def _at(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values[part]
    return values


def configured(bench: Bench, changes: Mapping[str, Any]) -> Config:
    placed = {
        key: value.format(place=bench.place) if isinstance(value, str) else value for key, value in changes.items()
    }
    return with_values(bench.base(), placed)


@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled")
@pytest.mark.filterwarnings("ignore:Error detected in")
@pytest.mark.parametrize("key", sorted(CASES))
def test_every_key_changes_something(key: str, bench: Bench) -> None:
    case = CASES[key]
    before = configured(bench, case.given)
    after = configured(bench, {**case.given, key: case.value})
    assert _at(before.model_dump(), key) != _at(after.model_dump(), key)
    assert bench.observe(case.look, before) != bench.observe(case.look, after)


@pytest.mark.parametrize(
    "look",
    sorted({case.look for case in CASES.values()}, key=lambda look: look.__name__),
    ids=lambda look: look.__name__,
)
def test_without_a_change_nothing_changes(look: Callable[[Bench, Config], Any], bench: Bench) -> None:
    """Or the differences above would show nothing."""
    given = next(case.given for case in CASES.values() if case.look is look)
    config = configured(bench, given)
    assert bench.observe(look, config) == look(bench, config)


@pytest.mark.parametrize("key", sorted(GPU_ONLY))
def test_keys_for_cuda_alone_have_a_reader_and_change_nothing_without_it(key: str, bench: Bench) -> None:
    module, _, name = GPU_ONLY[key].partition(":")
    assert callable(getattr(importlib.import_module(module), name))
    if key == "data.pin_memory" and not torch.cuda.is_available():
        plain, pinned = (configured(bench, {key: value}) for value in (False, True))
        assert bench.observe(batches, plain) == bench.observe(batches, pinned)
        dataset = windows(pinned, open_cache(pinned.data.cache_dir, "train"))
        (batch,) = itertools.islice(window_batches(pinned, dataset, 0), 1)
        (signal,), _ = as_batch(batch)
        assert not signal.is_pinned()
