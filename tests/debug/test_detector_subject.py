"""The detector as a Subject: every switch is a legal configuration and changes what is built."""

from __future__ import annotations

import collections
from pathlib import Path

import pytest
import torch

from brainbrr.config import Config
from brainbrr.configure import load_config, with_values
from brainbrr.data.prepare import prepare, windows
from brainbrr.training.loop import Trainer
from brainbrr.training.observer import Unobserved
from brainbrr.training.setup import build_setup
from brainbrr_debug.lead import Passing
from brainbrr_debug.subject import Subject, grouped, set_rates
from brainbrr_debug.subjects.brainbrr import DetectorSubject

CONFIG = load_config(
    Path(__file__).parents[2] / "configs/local/batch7.yaml", ["data.window_size=10", "evaluation.stride=10"]
)
SUBJECT = DetectorSubject(CONFIG)
CASES = [
    (name, value)
    for name, switch in SUBJECT.switches().items()
    if switch.applies is None
    for value in switch.values
    if value != "mamba_ssm"  # its kernels need a GPU
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


def test_every_fix_that_was_tried_at_the_time_can_be_tried() -> None:
    switches = SUBJECT.switches()
    tried = {
        "model.graph.use_dynamic_pe": False,
        "model.clamp": (-10.0, 10.0),
        "model.graph.edge_mamba_layers": 0,
        "model.back_norm": True,
    }
    assert all(switches[name].safe == value and switches[name].applies is None for name, value in tried.items())
    assert set(switches["model.graph.pe_repair"].values) == {"none", "clamp_eigenvalues", "nan_to_num", "jitter"}
    assert set(switches["training.on_nonfinite"].values) == {"stop", "skip", "record", "sanitize"}
    assert all(switches[name].hides for name in ("model.graph.pe_repair", "model.clamp", "training.on_nonfinite"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Path, list[torch.Tensor]]:
    """A configuration, its checkpoint after two of four steps, and the weights at the end."""
    place = tmp_path_factory.mktemp("resume")
    changes = {
        "data.data_dir": str(place / "corpus"), "data.cache_dir": str(place / "cache"),
        "data.synthetic": {"patients": 2, "minutes": 1.0, "seizures": 1, "lookalikes": 0},
        "data.window_size": 10, "data.stride": 10, "evaluation.stride": 10,
        "model.architecture": "tcn", "model.tcn.dropout": 0.2, "training.batch_size": 2, "training.epochs": 2,
        "training.max_steps": 4, "training.checkpoint_interval": 2, "experiment.device": "cpu",
    }  # fmt: skip
    config = with_values(CONFIG, changes)
    setup = build_setup(config)
    trainer = Trainer(
        config, setup, windows(config, prepare(config)["train"]), checkpoints=place, observer=Unobserved()
    )
    saved: list[Path] = []
    trainer.save = lambda name: saved or saved.append(Trainer.save(trainer, name)) or saved[0]  # type: ignore[assignment, func-returns-value]
    trainer.train()
    return config, saved[0], [p.detach().clone() for p in setup.model.parameters()]


def test_a_checkpoint_goes_on_as_the_training_did(trained: tuple[Config, Path, list[torch.Tensor]]) -> None:
    config, path, ended = trained
    found = DetectorSubject(config).resume(path)
    assert found is not None
    run, step = found
    assert step == 2
    run.model.train()
    for number, batches in zip(range(step, 4), grouped(run), strict=False):
        set_rates(run, number, 4)
        run.step(batches, Passing())  # type: ignore[misc]
    assert all(torch.equal(p, end) for p, end in zip(run.model.parameters(), ended, strict=True))


def test_no_run_goes_on_from_a_foreign_file(trained: tuple[Config, Path, list[torch.Tensor]], tmp_path: Path) -> None:
    config, path, _ = trained
    (tmp_path / "other.pt").write_bytes(b"no checkpoint")
    assert DetectorSubject(config).resume(tmp_path / "other.pt") is None
    assert DetectorSubject(with_values(config, {"model.tcn.dropout": 0.3})).resume(path) is None
