"""Keys of the detector's configuration that nothing reads as long as another key has its value."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator

from brainbrr.config import Config
from brainbrr.configure import known_keys


def idle_keys(config: Config) -> Iterator[tuple[str, str]]:
    """Each idle key with the reason, once; whether the file sets it at all is for the caller to say."""
    told: set[str] = set()
    keys = known_keys()
    for patterns, idle, reason in _rules(config):
        for key in keys if idle else ():
            if key not in told and any(fnmatch.fnmatchcase(key, pattern) for pattern in patterns.split()):
                told.add(key)
                yield key, reason


def _rules(config: Config) -> Iterator[tuple[str, bool, str]]:
    """Patterns of keys, whether they are idle now, and why."""
    model, graph, data, training = config.model, config.model.graph, config.data, config.training
    no_graph = model.architecture != "v3" or not graph.enabled
    no_nodes = model.architecture == "tcn" or not model.mamba.enabled
    no_edges = no_graph or graph.edge_mamba_layers == 0
    yield "model.graph.*", model.architecture != "v3", f"architecture {model.architecture} has no graph"
    yield "model.graph.[!e]* model.graph.e[!n]*", no_graph, "model.graph.enabled is false"
    yield "model.mamba.*", model.architecture == "tcn", "architecture tcn has no Mamba stream"
    yield (
        "model.mamba.n_layers model.mamba.d_state model.mamba.headdim",
        no_nodes,
        "model.mamba.enabled is false",
    )
    yield (
        "model.mamba.backend model.mamba.conv_kernel model.mamba.chunk_size model.mamba.dropout",
        no_nodes and no_edges,
        "neither electrodes nor edges have a Mamba stream",
    )
    yield "model.graph.edge_mamba_[dh]*", no_edges, "model.graph.edge_mamba_layers is 0"
    yield (
        "model.graph.pe model.graph.pe_gradient model.graph.pe_repair model.graph.semi_dynamic_interval",
        not graph.use_dynamic_pe,
        "model.graph.use_dynamic_pe is false",
    )
    yield "model.graph.pe_[gr]*", graph.pe == "resolvent", "a resolvent has no eigenvectors"
    yield "model.back_norm", model.architecture != "v3", f"architecture {model.architecture} has no electrodes"
    yield "training.focal_*", training.loss != "focal", f"training.loss is {training.loss}"
    yield "training.max_skipped_steps", training.on_nonfinite != "skip", "training.on_nonfinite is not skip"
    yield "data.*_ratio", not data.use_balanced_sampling, "data.use_balanced_sampling is false"
    yield "data.prefetch_factor data.persistent_workers", data.num_workers == 0, "data.num_workers is 0"
    yield "watch.[!e]* watch.e[!n]*", not config.watch.enabled, "watch.enabled is false"
