from __future__ import annotations

import contextlib
import os
import signal
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest
import torch

import brainbrr.training.checkpoint
from brainbrr.config import Config
from brainbrr.files import atomic_write
from brainbrr.training.checkpoint import CheckpointError, load_checkpoint, load_weights, save_checkpoint
from brainbrr.training.loop import Trainer
from brainbrr.training.setup import build_setup

MakeConfig = Callable[..., Config]
MakeTrainer = Callable[..., Trainer]


@pytest.fixture
def path(tiny: MakeConfig, make_trainer: MakeTrainer) -> Path:
    """The last checkpoint of a run of two steps."""
    trainer = make_trainer(tiny({"training.max_steps": 2}))
    trainer.train()
    return trainer.checkpoints / "last.pt"


def test_a_checkpoint_holds_everything_and_its_configuration(path: Path, tiny: MakeConfig) -> None:
    checkpoint = load_checkpoint(path)
    assert checkpoint.config == tiny({"training.max_steps": 2})
    assert (checkpoint.step, checkpoint.epoch, checkpoint.batch) == (2, 0, 2)
    assert checkpoint.state.keys() == {"model", "optimizer", "scheduler", "scaler"}
    assert checkpoint.backends["device"] == "cpu"
    assert checkpoint.rng["cpu"].dtype == torch.uint8
    assert all(tensor.device.type == "cpu" for tensor in checkpoint.state["model"].values())


def test_it_can_be_loaded_without_unpickling(path: Path) -> None:
    assert torch.load(path, weights_only=True)["schema"] == 1


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_checkpoint_is_refused(share: float, path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(CheckpointError, match=r"last\.pt: truncated, or no PyTorch checkpoint; expected a file that"):
        load_checkpoint(path)


def test_a_damaged_archive_is_refused(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.pt"
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("x/notes.txt", "no tensors here")
    with pytest.raises(CheckpointError, match=r"other\.pt: truncated or damaged"):
        load_checkpoint(other)


@pytest.mark.parametrize("name", ["none.pt", ""])
def test_a_missing_file_and_a_folder_say_what_is_expected(name: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no such file; expected a checkpoint such as runs/<id>/checkpoints"):
        load_checkpoint(tmp_path / name)


@pytest.mark.parametrize("key", [None, "model", "model_state_dict", "state_dict"])
def test_weights_from_elsewhere_are_read_without_configuration(
    key: str | None, tiny: MakeConfig, tmp_path: Path
) -> None:
    model = build_setup(tiny()).model
    state = model.state_dict()
    torch.save(state if key is None else {key: state, "epoch": 3}, tmp_path / "w.pt")
    checkpoint = load_checkpoint(tmp_path / "w.pt")
    assert checkpoint.config is None
    other = build_setup(tiny({"experiment.seed": 7})).model
    load_weights(other, checkpoint, tmp_path / "w.pt")
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("content", [{"a": 1}, [1, 2], torch.zeros(3), {}, {"model": {"weight": "text"}}])
def test_files_that_hold_no_weights_are_refused(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=r"x\.pt: no brainbrr checkpoint \(schema 1\) and no state dict"):
        load_checkpoint(tmp_path / "x.pt")


class Dangerous:
    """Would run code when unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, ("touch harm",))


def test_a_file_that_needs_unpickling_is_refused_and_nothing_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": {"w": torch.zeros(2)}, "extra": Dangerous()}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=r"x\.pt: holds objects that need unpickling, which can run code"):
        load_checkpoint(tmp_path / "x.pt")
    assert not (tmp_path / "harm").exists()


def test_a_checkpoint_of_another_version_names_the_key(path: Path) -> None:
    content = torch.load(path, weights_only=True)
    content["config"]["training"]["novelty"] = 1
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=r"unknown key training\.novelty.*; it was written by another version"):
        load_checkpoint(path)


def test_a_checkpoint_that_lacks_something_says_what(path: Path) -> None:
    content = torch.load(path, weights_only=True)
    del content["rng"], content["config"]
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=r"last\.pt: damaged: it holds no config, rng"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.tcn.num_layers": 2}, r"weights are of another model \(missing \['tcn\.blocks\.1\..*--config"),
        ({"model.tcn.channels": [8]}, r"size mismatch for .*; another size of model\?"),
    ],
)
def test_weights_of_another_model_are_refused_with_names(
    changes: dict[str, Any], message: str, path: Path, tiny: MakeConfig
) -> None:
    with pytest.raises(CheckpointError, match=message):
        load_weights(build_setup(tiny(changes)).model, load_checkpoint(path), path)


def test_a_checkpoint_without_configuration_is_not_written(tiny: MakeConfig, tmp_path: Path) -> None:
    torch.save(build_setup(tiny()).model.state_dict(), tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match="a checkpoint without its configuration is of no use"):
        save_checkpoint(tmp_path / "again.pt", load_checkpoint(tmp_path / "w.pt"))


class Torn:
    """Writes half of what it is given, then the process is killed."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file

    def write(self, content: memoryview) -> None:
        self.file.write(content[: len(content) // 2])
        self.file.flush()
        kill()


@contextlib.contextmanager
def torn(path: Path) -> Iterator[Torn]:
    with atomic_write(path) as file:
        yield Torn(file)


def kill(*args: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def kill_behind(replace: Callable[..., None]) -> Callable[..., None]:
    def replaced(*names: Path) -> None:
        replace(*names)
        kill()

    return replaced


@pytest.mark.parametrize(
    ("place", "name", "deed", "step"),
    [
        (brainbrr.training.checkpoint, "atomic_write", torn, 2),
        (os, "fsync", kill, 2),
        (os, "replace", kill, 2),
        (os, "replace", kill_behind(os.replace), 10),
    ],
    ids=["half-written", "not-synced", "not-renamed", "renamed"],
)
def test_a_process_killed_while_it_writes_leaves_the_old_checkpoint_or_the_new(
    place: object,
    name: str,
    deed: Callable[..., Any],
    step: int,
    path: Path,
    tiny: MakeConfig,
    make_trainer: MakeTrainer,
) -> None:
    child = os.fork()
    if child == 0:
        try:
            setattr(place, name, deed)
            make_trainer(tiny(), resume=path).train()
        finally:
            os._exit(1)  # nothing of this process's tests goes on in its child
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert load_checkpoint(path).step == step
