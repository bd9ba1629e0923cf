"""The processes that train one model together: they decide together, and say in which of them a failure was born.

Averaging the gradients spreads one process's NaN to all of them, so afterwards everybody sees it. What loss, logits and
the gradients before the averaging were is known to each process alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.utils.hooks import RemovableHandle

from brainbrr_debug.checks.run import NONFINITE
from brainbrr_debug.probes.ledger import Guard
from brainbrr_debug.records import Finding, Severity
from brainbrr_debug.rundir import RunDir
from brainbrr_debug.statistics import screen

FINE, INHERITED, BORN_HERE = 0, 1, 2


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Agreed:
    """A finding that all ranks make in this step, as this one sees it; `captures` says whether it writes one."""

    finding: Finding
    captures: bool


class Ranks:
    """The ranks of `group`, else of the group that `model` is distributed over; one rank where there is neither."""

    def __init__(self, model: nn.Module, group: Any = None) -> None:
        self.group = _group_of(model) if group is None else group
        self.world = distributed.get_world_size(self.group) if self.group is not None else 1
        self.rank = distributed.get_rank(self.group) if self.group is not None else 0
        self._root: Path | None = None
        self._device = next((p.device for p in model.parameters()), torch.device("cpu"))
        self._handles: list[RemovableHandle] = []
        self._local: list[Tensor] = []

    def directory(self, run_dir: RunDir | str | Path | None) -> RunDir | None:
        """The run directory of this rank: the one given for rank 0, a folder in it for every other."""
        if run_dir is None:
            return None
        self._root = run_dir.path if isinstance(run_dir, RunDir) else Path(run_dir)
        if self.rank:
            return RunDir.at(folder(self._root, self.rank))
        return run_dir if isinstance(run_dir, RunDir) else RunDir.at(run_dir)

    def attach(self, parameters: Mapping[str, Tensor], guard: Guard) -> None:
        """Where there are others: look at every gradient before it is averaged with theirs."""
        if self.world > 1:
            hook = guard(self._see)
            watched = [p for p in parameters.values() if p.requires_grad]
            self._handles = [p.register_hook(hook) for p in watched]  # type: ignore[no-untyped-call]

    def detach(self) -> None:
        """Remove the hooks and forget everything."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self.clear()

    def clear(self) -> None:
        """Forget the step."""
        self._local = []

    def loudest(self, alarm: Tensor) -> Tensor:
        """The largest of all ranks' `alarm`, 0-d, in place and on its device: never a sum, which could cancel."""
        if self.world > 1:
            distributed.all_reduce(alarm, distributed.ReduceOp.MAX, self.group)
        return alarm

    def agree(self, finding: Finding | None, step: int) -> Agreed | None:
        """What all ranks decide about a step of which any raised the alarm. Every one of them must call it.

        None where nobody has a finding; else everybody gets one, with the ranks it was born on.
        """
        codes = self._codes(FINE if finding is None else self._code(finding))
        if not any(codes):
            return None
        if self.world == 1:
            return None if finding is None else Agreed(finding=finding, captures=True)
        born = [rank for rank, code in enumerate(codes) if code == BORN_HERE]
        bad = [rank for rank, code in enumerate(codes) if code != FINE]
        if finding is None:
            finding = self._named(self._elsewhere(step), born, f"not on rank {_listed(bad)}")
        else:
            where = f"born on rank {_listed(born)}" if born else "born in averaging the gradients"
            finding = self._named(finding, born, where)
        return Agreed(finding=finding, captures=codes[self.rank] == BORN_HERE or (not born and self.rank == 0))

    def wait(self) -> None:
        """Until all ranks are here: a launcher kills the others over their captures when the first one stops."""
        self._codes(FINE)

    def _code(self, finding: Finding) -> int:
        inherited = finding.evidence["nonfinite"] == ["gradient"] and all(torch.isfinite(x) for x in self._local)
        return INHERITED if inherited else BORN_HERE

    def _codes(self, own: int) -> list[int]:
        if self.world == 1:
            return [own]
        on_host = "gloo" in str(distributed.get_backend(self.group))
        codes = torch.zeros(self.world, dtype=torch.int32, device="cpu" if on_host else self._device)
        codes[self.rank] = own
        return [int(code) for code in self.loudest(codes).tolist()]

    def _elsewhere(self, step: int) -> Finding:
        return Finding(
            check=NONFINITE,
            severity=Severity.P0,
            message=f"step {step}: everything is finite",
            where="rank",
            step=step,
            evidence={"nonfinite": []},
            why="ranks that do not go on together wait for each other for ever",
        )

    def _named(self, finding: Finding, born: Sequence[int], where: str) -> Finding:
        """The finding with this rank, those it was born on, and where their captures are."""
        others = [rank for rank in born if rank != self.rank]
        commands = tuple(f"brainbrr-debug bisect {folder(self._root, rank)}" for rank in others if self._root)
        return dataclasses.replace(
            finding,
            message=f"{finding.message} on rank {self.rank}, {where}",
            evidence={**finding.evidence, "rank": self.rank, "born_on": list(born)},
            commands=commands,
        )

    def _see(self, gradient: Tensor) -> None:
        self._local.append(screen(gradient))


def folder(root: Path, rank: int) -> Path:
    """The run directory of a rank: `root` itself for rank 0, a folder in it for every other."""
    return root / f"rank-{rank:04d}" if rank else root


def _listed(ranks: Sequence[int]) -> str:
    return ", ".join(map(str, ranks))


def _group_of(model: nn.Module) -> Any:
    model = getattr(model, "_orig_mod", model)
    return model.process_group if isinstance(model, nn.parallel.DistributedDataParallel) else None
