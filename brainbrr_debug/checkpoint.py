"""A checkpoint of whatever program, read without running anything in it."""

from __future__ import annotations

import dataclasses
import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from brainbrr_debug.pickled import Unreadable, callables

CONFIGS = ("config", "cfg", "hyper_parameters", "hparams", "args", "model_config")
PARTS = {
    "optimizer": r"optim",
    "scheduler": r"sched",
    "random state": r"rng|random",
    "position": r"step|epoch|iteration|batch|loops",
    "loss scaler": r"scaler|amp|mixedprecision",
}
"""What a run needs to go on bit for bit, by what programs call it."""
_DEEPEST = 24
_UNREADABLE = (
    pickle.UnpicklingError, zipfile.BadZipFile, struct.error, RuntimeError, OSError, EOFError, ValueError, KeyError,
    IndexError, TypeError, AttributeError, AssertionError, OverflowError, MemoryError, ImportError,
)  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointFacts:
    """`calls`: what loading it plainly would call beyond building tensors. `error`: why it cannot be read at all.

    `nonfinite`: names of tensors with a value that is not finite, with their count, at most those of one file.
    `parts`: which of PARTS are there and hold something. `weights_only`: a state dict and nothing else.
    """

    path: Path
    calls: tuple[str, ...] = ()
    error: str | None = None
    weights_only: bool = False
    config: Any = None
    parts: frozenset[str] = frozenset()
    nonfinite: Mapping[str, int] = dataclasses.field(default_factory=dict)
    backends: Mapping[str, str] = dataclasses.field(default_factory=dict)


def read_checkpoint(path: Path) -> CheckpointFacts:
    """What can be known of the file. Raises OSError where it cannot be opened."""
    with path.open("rb"):
        pass
    try:
        calls = callables(path)
    except Unreadable as error:
        return CheckpointFacts(path=path, error=str(error))
    if calls:
        return CheckpointFacts(path=path, calls=calls)
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols that others use: it is read, or said not to be
            content = torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        return CheckpointFacts(path=path, error=f"torch cannot read it: {reason}")
    return _facts(path, content)


def _facts(path: Path, content: Any) -> CheckpointFacts:
    import torch

    values = content if isinstance(content, dict) else {"": content}
    weights_only = bool(values) and all(isinstance(value, torch.Tensor) for value in values.values())
    backends = values.get("backends")
    return CheckpointFacts(
        path=path,
        weights_only=weights_only,
        config=next((values[name] for name in CONFIGS if values.get(name)), None),
        parts=frozenset() if weights_only else frozenset(_parts(values)),
        nonfinite=dict(_nonfinite(values, "", 0)),
        backends={str(k): str(v) for k, v in backends.items()} if isinstance(backends, dict) else {},
    )


def _parts(values: Mapping[Any, Any]) -> Iterator[str]:
    inner = [value for value in values.values() if isinstance(value, dict)]
    items = [(str(key).lower(), value) for level in (values, *inner) for key, value in level.items()]
    for part, pattern in PARTS.items():
        if any(re.search(pattern, key) and value is not None and value != {} for key, value in _plain(items)):
            yield part


def _plain(items: list[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """Tensors are not compared with anything: that they are there is enough."""
    import torch

    yield from ((key, True if isinstance(value, torch.Tensor) else value) for key, value in items)


def _nonfinite(value: Any, name: str, depth: int) -> Iterator[tuple[str, int]]:
    import torch

    if isinstance(value, torch.Tensor):
        if (value.is_floating_point() or value.is_complex()) and value.layout is torch.strided:
            count = int(value.numel() - torch.isfinite(value).sum())
            if count:
                yield name, count
    elif depth < _DEEPEST and isinstance(value, dict | list | tuple):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _nonfinite(inner, f"{name}.{key}" if name else str(key), depth + 1)
