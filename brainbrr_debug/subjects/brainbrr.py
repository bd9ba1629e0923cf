"""The seizure detector as a Subject: its switches are the configuration's own options."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Mapping
from typing import Any, Self

from brainbrr.config import ELECTRODES, Config
from brainbrr.configure import build_config, with_values
from brainbrr.data.dataset import WindowDataset
from brainbrr.training.optim import learning_rate_factor
from brainbrr.training.setup import as_batch, build_setup, epoch_windows, planned_steps, window_batches
from brainbrr_debug.subject import Batch, Run, Schedule, Switch
from brainbrr_debug.subjects.electrodes import PLACES


class DetectorSubject:
    """The detector, its optimizer and its training step, as one configuration describes them."""

    channels = ELECTRODES  # names for the second axis of an input, in verdicts
    places = PLACES  # of the channels on a head, in pictures

    def __init__(self, config: Config) -> None:
        self.config = config

    @classmethod
    def from_config(cls, values: Mapping[str, Any]) -> Self:
        """The Subject of a captured configuration (plain values)."""
        return cls(build_config(values, source="the capture's configuration"))

    def build(self, seed: int, switches: Mapping[str, object]) -> Run:
        """A fresh run; a switch is a dotted key of the configuration."""
        config = with_values(self.config, {"experiment.device": self._device(), **switches})
        setup = build_setup(config, seed)
        return Run(
            model=setup.model,
            optimizer=setup.optimizer,
            loss_fn=setup.loss_fn,
            batches=_Batches(config),
            step=setup.step,
            extra_state={"scaler": setup.step.scaler},
            accumulate=config.training.gradient_accumulation_steps,
            schedule=_schedule(config),
        )

    def _device(self) -> str:
        # A run captured on a GPU can still be replayed where there is none, to a tolerance.
        return "auto" if self.config.experiment.device == "cuda" else self.config.experiment.device

    def switches(self) -> Mapping[str, Switch]:
        """Every component that can be taken away, and every hazard that has a safe form."""
        return {**self._components(), **self._options()}

    def _components(self) -> dict[str, Switch]:
        """What stands for one module of the detector."""
        model, graph = self.config.model, self.config.model.graph
        no_graph = None if model.architecture == "v3" and graph.enabled else "the model has no graph"
        no_vectors = no_graph or (
            None if graph.use_dynamic_pe and graph.pe == "laplacian" else "no eigenvectors are computed"
        )
        no_mamba = None if model.architecture != "tcn" and model.mamba.enabled else "the model has no Mamba stream"
        return {
            "model.graph.pe_gradient": Switch(
                values=("raw", "detached", "safe"),
                safe="safe",
                applies=no_vectors or _already(graph.pe_gradient, "safe"),
                component="graph.pe",
                description="gradient through the eigenvectors: pairs closer than 1e-4 are dropped and counted",
            ),
            "model.graph.use_dynamic_pe": Switch(
                values=(True, False),
                safe=False,
                applies=no_graph or _already(graph.use_dynamic_pe, False),
                component="graph.pe",
                description="one encoding of the fixed 10-20 neighbour graph instead of one per step",
            ),
            "model.graph.pe": Switch(
                values=("laplacian", "resolvent"),
                safe="resolvent",
                applies=no_vectors,
                component="graph.pe",
                description="a resolvent filter of the adjacency: no eigenvectors, another encoding",
            ),
            "model.graph.edge_mamba_layers": Switch(
                values=(graph.edge_mamba_layers, 0),
                safe=0,
                applies=no_graph or _already(graph.edge_mamba_layers, 0),
                component="graph.edges",
                description="edge weights straight from the similarity",
            ),
            "model.mamba.enabled": Switch(
                values=(True, False),
                safe=False,
                applies=no_mamba,
                component="nodes",
                description="no Mamba stream per electrode",
            ),
            "model.graph.enabled": Switch(
                values=(True, False),
                safe=False,
                applies=no_graph,
                component="graph",
                description="no graph at all",
            ),
        }

    def _options(self) -> dict[str, Switch]:
        """What concerns the detector as a whole, or the training step."""
        model, training = self.config.model, self.config.training
        return {
            "model.architecture": Switch(
                values=("v3", "v2", "tcn"),
                safe="tcn",
                applies=_already(model.architecture, "tcn"),
                keeps_weights=False,
                description="v2: one Mamba-2 stack over all electrodes; tcn: none",
            ),
            "model.norm": Switch(
                values=(False, True),
                safe=True,
                applies=_already(model.norm, True),
                keeps_weights=False,
                description="normalisation within and between the stages",
            ),
            "model.bias": Switch(
                values=(False, True),
                safe=True,
                applies=_already(model.bias, True),
                keeps_weights=False,
                description="biases in the TCN and in the projection to the electrodes",
            ),
            "model.clamp": Switch(
                values=(None, (-10.0, 10.0)),
                safe=(-10.0, 10.0),
                applies="already clamped" if model.clamp is not None else None,
                hides=True,
                description="the historical clamp behind every stage",
            ),
            "training.mixed_precision": Switch(
                values=("fp16", "bf16", False),
                safe=False,
                applies=_already(training.mixed_precision, False),
                description="float32 throughout",
            ),
            "training.on_nonfinite": Switch(
                values=("stop", "sanitize"),
                safe="sanitize",
                applies=_already(training.on_nonfinite, "sanitize"),
                hides=True,
                description="the historical nan_to_num on logits and on the gradient that enters the network",
            ),
        }

    def identify(self, batch_index: int, sample_index: int) -> dict[str, Any]:
        """Recording and seconds of a sample of a batch of the first epoch, from the cache."""
        dataset = _windows(self.config)
        order = epoch_windows(self.config, dataset, 0)
        return dict(dataset.identify(int(order[batch_index * self.config.training.batch_size + sample_index])))


def _already(value: object, safe: object) -> str | None:
    return f"is {safe!r} already" if value == safe else None


def _schedule(config: Config) -> Schedule:
    """The trainer's; how long a whole training is, only the data know."""

    @functools.cache
    def whole() -> int:
        return planned_steps(config, _windows(config))

    def factor(step: int, steps: int | None) -> float:
        return learning_rate_factor(step, total=steps or whole(), schedule=config.training.scheduler)

    return factor


def _windows(config: Config) -> WindowDataset:
    from brainbrr.data.prepare import prepare, windows

    return windows(config, prepare(config)["train"])


class _Batches:
    """The batches of an epoch, drawn only when somebody iterates: the first epoch, and the next one each time after."""

    def __init__(self, config: Config) -> None:
        self._config, self._epochs = config, itertools.count()

    def __iter__(self) -> Iterator[Batch]:
        for batch in window_batches(self._config, _windows(self._config), next(self._epochs)):
            yield as_batch(batch)
