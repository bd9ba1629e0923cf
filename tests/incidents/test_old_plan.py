"""The ablations of the old investigation's plan, as they were written: each is legal and changes what runs.

At the time half of them were rejected, or ignored without a word.
"""

from __future__ import annotations

import collections
import functools
from pathlib import Path

import pytest
import torch
import yaml

from brainbrr.config import ConfigError
from brainbrr.configure import load_config
from brainbrr.training.setup import build_setup

CONFIG = Path(__file__).parents[2] / "configs/local/batch7.yaml"
SMALL = ("data.window_size=10", "evaluation.stride=10")
# The override as the plan has it, and the modules that it takes out of the forward pass or puts into it.
PLAN = {
    "graph off": (("model.graph.enabled=false",), {"graph": False, "graph.pe": False, "graph.convs.0": False}),
    "static encoding": (("model.graph.use_dynamic_pe=false",), {"graph.edges": True}),
    "v2": (("model.architecture=v2",), {"graph": False, "nodes.stack": False, "temporal.stack": True}),
    "tcn alone": (
        ("model.architecture=tcn", "model.mamba.enabled=false"),
        {"graph": False, "nodes": False, "to_electrodes": False},
    ),
    "no edge stream": (("model.graph.edge_mamba_layers=0",), {"graph.edges.stream": False, "graph.edges": True}),
    "clamps": (("model.clamp=[-10, 10]",), {"clamps.tcn": True, "clamps.graph": True, "clamps.head": True}),
}


@functools.cache
def forward(*overrides: str) -> tuple[frozenset[str], collections.Counter[str]]:
    """The modules that one forward pass calls, and the nodes of its autograd graph by name."""
    model = build_setup(load_config(CONFIG, (*SMALL, *overrides))).model
    called: set[str] = set()
    for name, module in model.named_modules():
        module.register_forward_hook(lambda *_, name=name: called.add(name))
    torch.manual_seed(0)
    nodes, ahead = {}, [model(torch.randn(1, 19, 2560)).grad_fn]
    while ahead:
        node = ahead.pop()
        if node is not None and node not in nodes:
            nodes[node] = node.name()
            ahead += [following for following, _ in node.next_functions]
    return frozenset(called), collections.Counter(nodes.values())


@pytest.mark.parametrize("name", PLAN)
def test_every_ablation_changes_the_forward_graph(name: str) -> None:
    overrides, expected = PLAN[name]
    called, nodes = forward(*overrides)
    assert {module: module in called for module in expected} == expected
    assert nodes != forward()[1]


@pytest.mark.parametrize("module", sorted({module for _, called in PLAN.values() for module in called}))
def test_the_plain_run_tells_the_difference(module: str) -> None:
    added = ("temporal", "clamps")
    assert (module in forward()[0]) == (not module.startswith(added))


def test_the_static_encoding_decomposes_nothing() -> None:
    assert forward()[1]["LinalgEighBackward0"] == 1
    assert forward("model.graph.use_dynamic_pe=false")[1]["LinalgEighBackward0"] == 0


def test_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    elsewhere = (*SMALL, "experiment.device=cuda")
    with pytest.raises(ConfigError, match="no CUDA device"):
        build_setup(load_config(CONFIG, elsewhere))
    setup = build_setup(load_config(CONFIG, (*elsewhere, "device=cpu")))
    assert {p.device.type for p in setup.model.parameters()} == {setup.device.type} == {"cpu"}


def test_in_a_file_as_well_as_on_the_command_line(tmp_path: Path) -> None:
    values = yaml.safe_load(CONFIG.read_text())
    values["device"] = "cpu"
    values["model"] |= {"architecture": "tcn", "mamba": {"enabled": False}, "graph": {"edge_mamba_layers": 0}}
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(values))
    config = load_config(path)
    assert (config.experiment.device, config.model.architecture) == ("cpu", "tcn")
    assert (config.model.mamba.enabled, config.model.graph.edge_mamba_layers) == (False, 0)
