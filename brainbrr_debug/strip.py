"""A capture without the data of people, to be handed to somebody who may not see them.

Whatever is not listed here as kept is removed: a rule for every field, and allow-lists inside of them. Of batches only
shape, dtype and strides remain (tensors on the "meta" device). The optimizer's moments go as well: they are averaged
gradients, from which the inputs of a small batch can be computed back.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch

from brainbrr_debug.capture import CaptureContent, read_capture, write_capture
from brainbrr_debug.differences import EXACT
from brainbrr_debug.environment import PACKAGES
from brainbrr_debug.errors import UsageError
from brainbrr_debug.lead import LeadStep
from brainbrr_debug.records import Finding

KEPT = (
    "step, seed, the subject's import path, states of the random generators",
    "parameters and persistent buffers of the model: what it was trained on can leave traces in them",
    "shape, dtype and strides of every other tensor",
    "numbers of optimizer, schedulers and configuration under names of letters; no lists, no text",
    "versions, threads, instruction set, device and precision of the environment",
    "check, severity, place and counts of the finding, files of the program without their folders",
    "readings and losses",
)
"""What a stripped copy still says."""

REMOVED = (
    "inputs and targets of every batch: the captured one, healthy ones, the lead-in",
    "identities of samples",
    "optimizer moments and all other state that is not the model's",
    "all text of the configuration, paths, command line, variables and platform of the environment",
    "the finding's sentences and commands",
    "digests of gradients",
)
"""What it says no longer."""

GONE = "<removed>"
_LETTERS = re.compile(r"[A-Za-z_.]{1,40}")
_ENVIRONMENT = {*EXACT, "python", "machine", "interop_threads", "cuda", "packages", "framework"}
_EVIDENCE = {
    "nonfinite", "losses", "gradient_norm", "logits", "gradient_nonfinite", "gradient_finite", "gradient_none",
    "inputs_nonfinite", "state_nonfinite", "batch_modified_in_place", "first_module", "eigengap",
}  # fmt: skip
_TIE = {"site", "op", "micro_batch", "sample", "gap", "matrices"}


def strip_file(source: Path, copy: Path) -> dict[str, Any]:
    """Write a copy of the capture `source` without its signal, and say what was kept and what was removed.

    Raises CaptureError when `source` is no capture, UsageError when both are the same file.
    """
    if copy.resolve() == source.resolve():
        raise UsageError(f"{copy} is the capture itself; expected another file for the copy")
    write_capture(copy, without_signal(read_capture(source)))
    return {"kept": list(KEPT), "removed": list(REMOVED)}


def without_signal(content: CaptureContent) -> CaptureContent:
    """`content` with nothing in it that is not listed in KEPT."""
    names = _module_names(content.model_state)

    def numbers(tree: Any) -> Any:
        return _stripped(tree, names, numbers=True)

    def nothing(tree: Any) -> Any:
        return _stripped(tree, names, numbers=False)

    rules: dict[str, Callable[[Any], Any]] = {
        **dict.fromkeys(("step", "seed", "subject", "rng", "readings"), lambda value: value),
        "model_state": lambda state: {k: x if isinstance(x, torch.Tensor) else numbers(x) for k, x in state.items()},
        **dict.fromkeys(("config", "optimizer_state", "extra_state", "expected"), numbers),
        **dict.fromkeys(("micro_batches", "healthy_micro_batches"), nothing),
        **dict.fromkeys(("identities", "healthy_identities"), lambda value: ()),
        "environment": _environment,
        "finding": lambda finding: _finding(finding, names),
        "lead_in": lambda steps: tuple(_lead_step(step, numbers, nothing) for step in steps),
    }
    # A field without a rule is a KeyError: nothing slips through because it is new.
    return CaptureContent(**{f.name: rules[f.name](getattr(content, f.name)) for f in dataclasses.fields(content)})


def _module_names(state: Iterable[str]) -> frozenset[str]:
    """Names of all modules, parameters and buffers: what the program's author wrote, digits and all."""
    parts = [name.split(".") for name in state]
    return frozenset(".".join(path[:depth]) for path in parts for depth in range(len(path) + 1))


def _stripped(tree: Any, names: frozenset[str], *, numbers: bool) -> Any:
    """Tensors become their shapes, text goes, and numbers go, too, unless they may stay."""
    if isinstance(tree, np.ndarray):
        tree = torch.from_numpy(tree)
    if isinstance(tree, torch.Tensor):
        return _shape_of(tree)
    if isinstance(tree, Mapping):
        items = [(_key(key, names, place), value) for place, (key, value) in enumerate(tree.items())]
        return {key: _stripped(value, names, numbers=numbers) for key, value in items}
    if isinstance(tree, (list, tuple)):
        if numbers and tree and not any(isinstance(value, (Mapping, list, tuple, torch.Tensor)) for value in tree):
            return GONE  # the list of a study's patients is a list of numbers
        values = [_stripped(value, names, numbers=numbers) for value in tree]
        return values if isinstance(tree, list) else tuple(values)
    keep = tree is None or (numbers and isinstance(tree, (bool, int, float)))
    return tree if keep else GONE


def _shape_of(x: torch.Tensor) -> torch.Tensor:
    """`x` without its elements. Of a sparse tensor even the number of elements goes."""
    if x.layout != torch.strided:
        return torch.empty(x.shape, dtype=x.dtype, device="meta")
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="meta")


def _key(key: Any, names: frozenset[str], place: int) -> Any:
    """A key that the program's author chose; a recording or a person is named otherwise."""
    if isinstance(key, int):
        return place
    return key if isinstance(key, str) and (key in names or _LETTERS.fullmatch(key)) else f"<key {place}>"


def _environment(environment: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in environment.items() if key in _ENVIRONMENT}
    if "packages" in kept:
        kept["packages"] = {name: version for name, version in kept["packages"].items() if name in PACKAGES}
    return kept


def _finding(finding: Finding, names: frozenset[str]) -> Finding:
    evidence = {key: value for key, value in finding.evidence.items() if key in _EVIDENCE}
    if "exception" in finding.evidence:
        evidence["exception"] = str(finding.evidence["exception"]).partition(":")[0]
    if "degenerate" in finding.evidence:
        evidence["degenerate"] = [_tie(row) for row in finding.evidence["degenerate"]]
    bad = ", ".join(evidence.get("nonfinite", ()))
    return Finding(
        check=finding.check,
        severity=finding.severity,
        message=f"step {finding.step}{f': {bad} not finite' if bad else ''} (the sentence went with the signal)",
        where=finding.where if finding.where in names or _LETTERS.fullmatch(finding.where) else GONE,
        step=finding.step,
        evidence=evidence,
    )


def _tie(row: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in row.items() if key in _TIE}
    return {**kept, "location": PurePath(str(row.get("location") or "")).name}


def _lead_step(step: LeadStep, numbers: Callable[[Any], Any], nothing: Callable[[Any], Any]) -> LeadStep:
    batches = nothing(step.micro_batches)
    return dataclasses.replace(step, micro_batches=batches, identities=(), groups=numbers(step.groups))
