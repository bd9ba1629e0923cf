"""The detector as a Subject: every switch is a legal configuration and changes what is built."""

from __future__ import annotations

import collections
from pathlib import Path

import pytest
import torch

from brainbrr.configure import load_config
from brainbrr_debug.subject import Subject
from brainbrr_debug.subjects.brainbrr import DetectorSubject

CONFIG = load_config(
    Path(__file__).parents[2] / "configs/local/batch7.yaml", ["data.window_size=10", "evaluation.stride=10"]
)
SUBJECT = DetectorSubject(CONFIG)
CASES = [
    (name, value) for name, switch in SUBJECT.switches().items() if switch.applies is None for value in switch.values
]


def graph_and_logits(switches: dict[str, object]) -> tuple[collections.Counter[str], torch.Tensor]:
    """The nodes of the autograd graph of one forward pass, by name, and the logits."""
    run = SUBJECT.build(3, switches)
    torch.manual_seed(0)
    output = run.model(torch.randn(1, 19, 2560))
    nodes, open_nodes = {}, [output.grad_fn]
    while open_nodes:
        node = open_nodes.pop()
        if node is not None and id(node) not in nodes:
            nodes[id(node)] = node
            open_nodes += [following for following, _ in node.next_functions]
    return collections.Counter(node.name() for node in nodes.values()), output.detach()


@pytest.fixture(scope="module")
def plain() -> tuple[collections.Counter[str], torch.Tensor]:
    return graph_and_logits({})


def test_it_is_a_subject_that_can_be_built_from_captured_values() -> None:
    assert isinstance(SUBJECT, Subject)
    again = DetectorSubject.from_config(CONFIG.model_dump(mode="json"))
    assert again.config == CONFIG


@pytest.mark.parametrize(("name", "value"), CASES, ids=lambda x: str(x))
def test_every_switch_is_legal_and_every_other_value_changes_the_forward_graph(plain, name: str, value: object) -> None:
    captured: object = CONFIG
    for part in name.split("."):
        captured = getattr(captured, part)
    nodes, logits = graph_and_logits({name: value})
    if value == captured:
        assert nodes == plain[0] and torch.equal(logits, plain[1])
    elif name != "training.on_nonfinite":  # a matter of the training step: tests/training/test_step.py
        assert nodes != plain[0]


def test_a_switch_that_does_not_apply_says_why() -> None:
    tcn = DetectorSubject(
        load_config(Path(__file__).parents[2] / "configs/local/batch7.yaml", ["model.architecture=tcn"])
    )
    reasons = {name: switch.applies for name, switch in tcn.switches().items()}
    assert reasons["model.graph.enabled"] == reasons["model.graph.pe_gradient"] == "the model has no graph"
    assert reasons["model.mamba.enabled"] == "the model has no Mamba stream"
    assert reasons["model.architecture"] == "is 'tcn' already"


def test_the_same_seed_builds_the_same_weights() -> None:
    first, second = (SUBJECT.build(5, {}).model.state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
