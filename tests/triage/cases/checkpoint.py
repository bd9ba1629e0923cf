"""Checkpoints, whole and not, of this program and of others."""

from __future__ import annotations

import collections
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from brainbrr_debug.checks.given import Given
from tests.triage.cases import Case

WEIGHTS = {"layer.weight": torch.ones(3, 3), "layer.bias": torch.zeros(3)}


class Runs:
    """What unpickling would call."""

    def __reduce__(self) -> Any:
        return (eval, ("1 + 1",))


def saved(content: Any, **options: Any) -> Callable[[Path], Given]:
    """A file that torch.save wrote."""

    def make(folder: Path) -> Given:
        torch.save(content, folder / "c.pt", **options)
        return Given(checkpoint=folder / "c.pt")

    return make


def raw(data: bytes) -> Callable[[Path], Given]:
    """A file of these bytes."""

    def make(folder: Path) -> Given:
        (folder / "c.pt").write_bytes(data)
        return Given(checkpoint=folder / "c.pt")

    return make


def whole(**changes: Any) -> dict[str, Any]:
    """A checkpoint from which a run can go on."""
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([parameter])
    parameter.grad = torch.ones(2)
    optimizer.step()
    content: dict[str, Any] = {
        "model": WEIGHTS,
        "optimizer_state_dict": optimizer.state_dict(),
        "lr_scheduler": {"last_epoch": 3},
        "rng_state": torch.get_rng_state(),
        "global_step": 12,
        "config": {"training": {"mixed_precision": False}},
    }
    return {name: value for name, value in (content | changes).items() if value is not ...}


def poisoned_state() -> dict[str, Any]:
    content = whole()
    content["optimizer_state_dict"]["state"][0]["exp_avg"][1] = float("nan")
    return content


def ours(trained: str, here: str) -> Callable[[Path], Given]:
    """A checkpoint trained with one backend where another would run."""

    def make(folder: Path) -> Given:
        given = saved(whole(backends={"mamba": trained}))(folder)
        return Given(checkpoint=given.checkpoint, known={"backends_here": {"mamba": here}})

    return make


def torn(folder: Path) -> Given:
    given = saved(whole())(folder)
    path = folder / "c.pt"
    path.write_bytes(path.read_bytes()[:-200])
    return given


# A decoy: the texts of a harmless name are pushed last and popped again.
DECOY = b"\x80\x04\x8c\x02os\x8c\x06system\x8c\x0bcollections\x8c\x0bOrderedDict00\x93."
FP16 = {"training": {"mixed_precision": "fp16"}}

CASES = {
    "checkpoint.unreadable": (
        Case(planted=torn, healthy=saved(whole())),
        Case(planted=raw(b"not a checkpoint"), healthy=saved(WEIGHTS, _use_new_zipfile_serialization=False)),
        Case(planted=raw(b""), healthy=raw(pickle.dumps([Runs()]))),
    ),
    "checkpoint.unsafe": (
        Case(planted=saved({"model": WEIGHTS, "callback": Runs()}), healthy=saved(whole())),
        Case(
            planted=saved({"model": WEIGHTS, "callback": Runs()}, _use_new_zipfile_serialization=False),
            healthy=saved(collections.OrderedDict(WEIGHTS), _use_new_zipfile_serialization=False),
        ),
        Case(planted=raw(pickle.dumps([1, Runs()], protocol=4)), healthy=raw(pickle.dumps([1, {"a": 2}], protocol=4))),
        Case(planted=raw(DECOY), healthy=raw(pickle.dumps(collections.OrderedDict(a=1), protocol=4))),
        Case(planted=saved({"path": Path("x")}), healthy=saved({"half": torch.ones(2, dtype=torch.bfloat16)})),
    ),
    "checkpoint.config": (
        Case(planted=saved(whole(config=None)), healthy=saved(whole())),
        Case(planted=saved(WEIGHTS), healthy=saved({"state_dict": WEIGHTS, "hyper_parameters": {"width": 3}})),
    ),
    "checkpoint.finite": (
        Case(planted=saved({**WEIGHTS, "layer.bias": torch.tensor([1.0, float("inf")])}), healthy=saved(WEIGHTS)),
        Case(planted=saved(poisoned_state()), healthy=saved(whole())),
    ),
    "checkpoint.complete": (
        Case(planted=saved(whole(rng_state=...)), healthy=saved(whole())),
        Case(planted=saved(whole(lr_scheduler=None)), healthy=saved(whole())),
        Case(planted=saved(whole(config=FP16)), healthy=saved(whole(config=FP16, scaler={"scale": 2.0}))),
    ),
    "checkpoint.backend": (
        Case(planted=ours("conv1d", "torch"), healthy=ours("torch", "torch")),
        Case(planted=ours("mamba_ssm", "torch"), healthy=ours("mamba_ssm", "mamba_ssm")),
    ),
}
