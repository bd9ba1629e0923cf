"""Checkpoints: crash-safe to write, safe to load (nothing is unpickled), bit-exact to resume."""

from __future__ import annotations

import dataclasses
import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from brainbrr.config import Config, ConfigError
from brainbrr.configure import build_config, differences
from brainbrr.files import atomic_write

SCHEMA = 1
MAY_DIFFER = ("training.epochs", "training.max_steps", "experiment.device", "experiment.progress")


class CheckpointError(ValueError):
    """A checkpoint that cannot be used: which file, what is wrong with it, what to do."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Everything a run needs to go on: `step` counts optimizer steps, `epoch` and `batch` name the next micro-batch.

    `state` holds the state dicts of model, optimizer, scheduler and scaler, `rng` torch's generators, `progress` what
    the trainer remembers of its validations. `config` is None in a file from elsewhere.
    """

    config: Config | None
    step: int
    epoch: int
    batch: int
    state: dict[str, Any]
    rng: dict[str, torch.Tensor]
    progress: dict[str, Any]
    backends: dict[str, Any]


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write to a temporary name, sync, rename."""
    if checkpoint.config is None:
        raise CheckpointError(f"{path}: a checkpoint without its configuration is of no use; give one")
    content = {f.name: getattr(checkpoint, f.name) for f in dataclasses.fields(checkpoint)}
    content["config"] = checkpoint.config.model_dump(mode="json")
    buffer = io.BytesIO()
    torch.save({"schema": SCHEMA, **content}, buffer)
    with atomic_write(path) as file:
        file.write(buffer.getbuffer())


def load_checkpoint(path: str | Path) -> Checkpoint:
    """The checkpoint at `path`, its tensors on the CPU.

    A file from elsewhere that holds a state dict, alone or under "model", "model_state_dict" or "state_dict", is read
    with `config` None. Raises CheckpointError for a missing, truncated or foreign file, and for one that would need
    unpickling.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; expected a checkpoint such as runs/<id>/checkpoints/best.pt")
    if not zipfile.is_zipfile(path):
        raise CheckpointError(f"{path}: truncated, or no PyTorch checkpoint; expected a file that torch.save wrote")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: holds objects that need unpickling, which can run code; convert it to plain tensors first"
        ) from error
    except (RuntimeError, EOFError, zipfile.BadZipFile, KeyError) as error:
        raise CheckpointError(f"{path}: truncated or damaged: {str(error).splitlines()[0]}") from error
    if isinstance(content, dict) and content.get("schema") == SCHEMA:
        return _own(path, content)
    return _foreign(path, content)


def to_resume(run_dir: Path, asked: Config) -> Checkpoint:
    """The last checkpoint of a run that is to go on; its configuration holds but for its lengths and the device.

    Raises CheckpointError for weights alone, ConfigError when `asked` is not the configuration of the run.
    """
    path = run_dir / "checkpoints" / "last.pt"
    checkpoint = load_checkpoint(path)
    if checkpoint.config is None:
        raise CheckpointError(f"{path}: weights alone, which a run cannot go on from; expected a checkpoint of `train`")
    changed = [line for line in differences(checkpoint.config, asked) if not line.startswith(MAY_DIFFER)]
    if changed:
        raise ConfigError(
            f"{run_dir} was started with another configuration: {'; '.join(changed)}; "
            f"give {run_dir / 'config.yaml'} to go on, or leave --resume out"
        )
    return checkpoint


def _own(path: Path, content: dict[str, Any]) -> Checkpoint:
    names = [f.name for f in dataclasses.fields(Checkpoint)]
    missing = [name for name in names if content.get(name) is None]
    if missing:
        raise CheckpointError(f"{path}: damaged: it holds no {', '.join(missing)}")
    fields = {name: content[name] for name in names}
    try:
        fields["config"] = build_config(fields["config"], source=str(path))
    except ConfigError as error:
        raise CheckpointError(f"{error}; it was written by another version") from error
    return Checkpoint(**fields)


def _foreign(path: Path, content: Any) -> Checkpoint:
    if isinstance(content, dict):
        for key in ("model", "model_state_dict", "state_dict"):
            if isinstance(content.get(key), dict):
                content = content[key]
                break
    if not isinstance(content, dict) or not content or not all(isinstance(v, torch.Tensor) for v in content.values()):
        raise CheckpointError(f"{path}: no brainbrr checkpoint (schema {SCHEMA}) and no state dict of tensors")
    return Checkpoint(config=None, step=0, epoch=0, batch=0, state={"model": content}, rng={}, progress={}, backends={})


def load_weights(model: torch.nn.Module, checkpoint: Checkpoint, path: str | Path) -> None:
    """Load the model's state strictly; raises CheckpointError naming the first names that do not fit."""
    wanted, found = set(model.state_dict()), set(checkpoint.state["model"])
    if wanted != found:
        missing, extra = sorted(wanted - found)[:3], sorted(found - wanted)[:3]
        raise CheckpointError(
            f"{path}: its weights are of another model (missing {missing or 'none'}, "
            f"not known here {extra or 'none'}); give the configuration it was trained with by --config"
        )
    try:
        model.load_state_dict(checkpoint.state["model"])
    except RuntimeError as error:
        raise CheckpointError(f"{path}: {str(error).splitlines()[-1].strip()}; another size of model?") from error
