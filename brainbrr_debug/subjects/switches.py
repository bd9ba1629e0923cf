"""What can be turned about the detector: its configuration's own options, with the safe value of each."""

from __future__ import annotations

from brainbrr.config import Config
from brainbrr_debug.subject import Switch


def switches_of(config: Config) -> dict[str, Switch]:
    """Every component that can be taken away, every hazard that has a safe form, every repair that was ever tried."""
    return {**_encoding(config), **_streams(config), **_whole(config), **_step(config)}


def _encoding(config: Config) -> dict[str, Switch]:
    """The positional encoding."""
    graph = config.model.graph
    no_graph = _no_graph(config)
    no_vectors = no_graph or (
        None if graph.use_dynamic_pe and graph.pe == "laplacian" else "no eigenvectors are computed"
    )
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
        "model.graph.pe_repair": Switch(
            values=("none", "clamp_eigenvalues", "nan_to_num", "jitter"),
            safe="none",
            applies=no_vectors,
            component="graph.pe",
            hides=True,
            description="a historical repair: eigenvalues within [1e-6, 2], nan_to_num on the vectors, or L + 1e-4 I",
        ),
    }


def _streams(config: Config) -> dict[str, Switch]:
    """The streams over electrodes and pairs, and the graph."""
    model, graph = config.model, config.model.graph
    no_graph = _no_graph(config)
    no_mamba = None if model.architecture != "tcn" and model.mamba.enabled else "the model has no Mamba stream"
    no_edges = no_graph or _already(graph.edge_mamba_layers, 0)
    return {
        "model.graph.edge_mamba_layers": Switch(
            values=(graph.edge_mamba_layers, 0),
            safe=0,
            applies=no_edges,
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
        "model.mamba.backend": Switch(
            values=("torch", "mamba_ssm", "conv1d"),
            safe="torch",
            applies=no_mamba and no_edges and "the model has no Mamba stream",
            description="Mamba-2 in PyTorch alone; mamba_ssm: the fused kernels; conv1d: a convolution in its place",
        ),
        "model.graph.enabled": Switch(
            values=(True, False),
            safe=False,
            applies=no_graph,
            component="graph",
            description="no graph at all",
        ),
    }


def _whole(config: Config) -> dict[str, Switch]:
    """What concerns the detector as a whole."""
    model = config.model
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
        "model.back_norm": Switch(
            values=(False, True),
            safe=True,
            applies=_already(model.back_norm, True) if model.architecture == "v3" else "the model has no electrodes",
            component="from_electrodes",
            description="a norm in front of the projection back from the electrodes",
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
    }


def _step(config: Config) -> dict[str, Switch]:
    """What concerns the training step."""
    training = config.training
    return {
        "training.mixed_precision": Switch(
            values=("fp16", "bf16", False),
            safe=False,
            applies=_already(training.mixed_precision, False),
            description="float32 throughout",
        ),
        "training.on_nonfinite": Switch(
            values=("stop", "skip", "record", "sanitize"),
            safe="sanitize",
            hides=True,
            description=(
                "sanitize: the historical nan_to_num on logits and on the gradient that enters the network; "
                "skip drops the update, record does nothing"
            ),
        ),
    }


def _no_graph(config: Config) -> str | None:
    return None if config.model.architecture == "v3" and config.model.graph.enabled else "the model has no graph"


def _already(value: object, safe: object) -> str | None:
    return f"is {safe!r} already" if value == safe else None
