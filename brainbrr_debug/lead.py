"""The steps between a snapshot and a captured step: what it takes to get there again."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch

from brainbrr_debug.records import to_json
from brainbrr_debug.rng import RngState
from brainbrr_debug.subject import Batch, Gate, Run, step_of
from brainbrr_debug.tensors import copied


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LeadStep:
    """One step of a lead-in.

    `groups` are the optimizer's options (rates and the like) as of the step's start; `updated` is False where the gate
    dropped the update. `identities` says for every sample of every micro-batch where it comes from, or is empty.
    """

    step: int
    micro_batches: tuple[Batch, ...]
    identities: tuple[tuple[dict[str, Any], ...], ...]
    rng: RngState
    groups: list[dict[str, Any]]
    updated: bool

    def to_tree(self) -> dict[str, Any]:
        """Plain containers, numbers and tensors; `from_tree` gives the same step back."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {**fields, "rng": self.rng.to_dict(), "identities": to_json(self.identities)}

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any]) -> Self:
        """Inverse of `to_tree`."""
        identities = tuple(tuple(samples) for samples in tree["identities"])
        return cls(**{**tree, "rng": RngState.from_dict(tree["rng"]), "identities": identities})

    def play(self, run: Run, gate: Gate, micro_batches: Sequence[Batch]) -> None:
        """Repeat the step on `run`, which stands at its start, with its `micro_batches` as the run needs them."""
        self.rng.restore()
        set_options(run.optimizer, self.groups)
        step_of(run)(micro_batches, gate)


def options(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """Copies of what every parameter group says beside its parameters."""
    return [copied({k: v for k, v in group.items() if k != "params"}) for group in optimizer.param_groups]


def set_options(optimizer: torch.optim.Optimizer, groups: Sequence[Mapping[str, Any]]) -> None:
    """Give the optimizer's groups the options of `groups`, one each; their parameters stay."""
    for group, saved in zip(optimizer.param_groups, groups, strict=True):
        group.update(copied({k: v for k, v in saved.items() if k != "params"}))


def with_options(groups: Sequence[Mapping[str, Any]], saved: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A state dict's groups with the `options` that were saved, if any were."""
    return [{**group, **(saved[index] if saved else {})} for index, group in enumerate(groups)]


class Passing:
    """A gate that watches nothing; `updated` says whether the step may update."""

    def __init__(self, *, updated: bool = True) -> None:
        self._updated = updated

    def forward(self, output: Any, loss: torch.Tensor) -> None:
        """Nothing."""

    def gradients(self, norm: torch.Tensor | None = None) -> bool:
        """Go on, or not."""
        return self._updated
