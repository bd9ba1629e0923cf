"""The state of every random number generator a step may draw from, as plain data.

Covered: torch on the CPU and on every CUDA device in use, NumPy's legacy global generator, Python's `random`.
Generators that a program keeps for itself belong into the capture's extra state.
"""

from __future__ import annotations

import dataclasses
import random
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RngState:
    """States as the libraries give them: torch's as uint8 tensors, NumPy's as dict, Python's as tuple."""

    cpu: Tensor
    cuda: tuple[Tensor, ...]
    numpy: Mapping[str, Any]
    python: tuple[Any, ...]

    @classmethod
    def take(cls) -> Self:
        """The states now. CUDA is asked only where the process uses it already."""
        used: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
        cuda = tuple(torch.cuda.get_rng_state_all()) if used else ()
        return cls(cpu=torch.get_rng_state(), cuda=cuda, numpy=_numpy_state(), python=random.getstate())

    def restore(self) -> tuple[str, ...]:
        """Set all generators; returns what could not be set here, one sentence each."""
        torch.set_rng_state(self.cpu)
        notes: tuple[str, ...] = ()
        if self.cuda and torch.cuda.device_count() < len(self.cuda):
            notes = (f"{len(self.cuda)} CUDA generators were recorded and {torch.cuda.device_count()} exist here",)
        for index, state in enumerate(self.cuda[: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(state, index)
        np.random.set_state(dict(self.numpy))
        random.setstate(self.python)
        return notes

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; `from_dict` gives the same state back."""
        version, words, gauss = self.python
        return {
            "cpu": _hex(self.cpu),
            "cuda": [_hex(state) for state in self.cuda],
            "numpy": _plain(self.numpy),
            "python": [version, list(words), gauss],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Inverse of `to_dict`. Raises KeyError or ValueError for anything else."""
        version, words, gauss = values["python"]
        return cls(
            cpu=_tensor(values["cpu"]),
            cuda=tuple(_tensor(state) for state in values["cuda"]),
            numpy=_numpy_back(values["numpy"]),
            python=(version, tuple(words), gauss),
        )


@contextmanager
def preserved() -> Iterator[RngState]:
    """All generators are, after the block, what they were before it."""
    state = RngState.take()
    try:
        yield state
    finally:
        state.restore()


def _numpy_state() -> Mapping[str, Any]:
    state = np.random.get_state(legacy=False)
    return state if isinstance(state, Mapping) else dict(state)


def _hex(state: Tensor) -> str:
    return state.cpu().numpy().tobytes().hex()


def _tensor(text: str) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # frombuffer warns that bytes are read-only; the clone is not
        return torch.frombuffer(bytes.fromhex(text), dtype=torch.uint8).clone()


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, np.ndarray):
        return {"array": value.tolist(), "dtype": str(value.dtype)}
    return value.item() if isinstance(value, np.generic) else value


def _numpy_back(value: Any) -> Any:
    if isinstance(value, Mapping) and set(value) == {"array", "dtype"}:
        return np.array(value["array"], dtype=value["dtype"])
    if isinstance(value, Mapping):
        return {key: _numpy_back(inner) for key, inner in value.items()}
    return value
