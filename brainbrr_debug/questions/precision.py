"""Which precision, which backend, which device? The captured step in float64, whole and by module, and in others.

Judged by the indicator, so that a tie that float64 resolves into 1e-16 does not pass for healed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from brainbrr_debug.capture import CaptureContent
from brainbrr_debug.oracle import Oracles
from brainbrr_debug.questions.components import captured_value
from brainbrr_debug.records import Outcome
from brainbrr_debug.search import fewest_that_heal
from brainbrr_debug.subject import Subject
from brainbrr_debug.trial import Trial
from brainbrr_debug.trials import Result, Skipped, Trials

MAX_TRIALS = 32
"""For the search in the module tree."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Precision:
    """What heals: `rows` names each precision, backend, device and kind of algorithm with its outcome and reason.

    `modules` are the fewest that heal in float64, empty where float64 does not; "<loss>" is outside of all of them.
    `told` says it in words.
    """

    rows: tuple[Mapping[str, Any], ...]
    modules: tuple[str, ...]
    told: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """The modules in each module that has some; a list of modules cannot be called, and is seen through."""

    def __call__(self, content: CaptureContent, subject: Subject) -> dict[str, list[str]]:
        """Names by name; "" is the root."""
        model = subject.build(content.seed, {}).model
        return {name: found for name, module in model.named_modules() if (found := list(_parts(module, name)))}


def which_precision(trials: Trials, oracles: Oracles) -> Precision:
    """Try them all; where float64 heals, look for the modules that need it."""
    asked = {
        "float64": Trial(dtype="float64"),
        "bfloat16 where it may": Trial(autocast="bfloat16"),
        "float16 where it may": Trial(autocast="float16"),
        "deterministic algorithms": Trial(deterministic=True),
    }
    cuda = str(trials.content.environment.get("device", "cpu")).startswith("cuda")
    rows: list[Mapping[str, Any]] = []
    if torch.cuda.is_available():
        asked["TF32"] = Trial(tf32=True)
        asked["cpu" if cuda else "cuda"] = Trial(device="cpu" if cuda else "cuda")
    else:
        rows = [
            {"name": name, "outcome": "skip", "reason": "there is no CUDA device here"} for name in ("TF32", "cuda")
        ]
    asked |= _backends(trials)
    results = dict(zip(asked, trials.ask_all("precision", list(asked.values()), oracles.indicator), strict=True))
    rows = [{"name": n, "outcome": r.outcome, "reason": r.reason} for n, r in results.items()] + rows
    modules = _modules(trials, oracles) if _heals(results["float64"]) else ()
    return Precision(rows=tuple(rows), modules=modules, told=_told(results, modules))


def _backends(trials: Trials) -> dict[str, Trial]:
    """The other values of the subject's switches that choose an implementation; known already, if it was asked for."""
    return {
        f"{name}={value}": Trial(switches=((name, value),))
        for name, switch in trials.subject.switches().items()
        for value in switch.values
        if value != captured_value(trials.content.config, name)
        if name.rpartition(".")[2] == "backend" and switch.applies is None and switch.keeps_weights
    }


def _modules(trials: Trials, oracles: Oracles) -> tuple[str, ...]:
    """Down the tree, into the one part that alone heals, or to the fewest that heal together."""

    def heals(names: tuple[str, ...]) -> bool | None:
        bad = trials.ask("precision", Trial(float64_modules=names), oracles.indicator).bad
        return None if bad is None else not bad

    if not heals(("",)):
        return ("<loss>",)
    try:
        tree: Mapping[str, Sequence[str]] = trials.run("precision", Tree())
    except Skipped:
        return ("",)
    found, left = "", MAX_TRIALS
    while parts := tuple(tree.get(found, ())):
        alone = next((part for place, part in enumerate(parts) if place < left and heals((part,))), None)
        left -= len(parts)
        if alone is None:
            together = fewest_that_heal(parts, lambda names: _not(heals(names)), max_trials=max(left, 0))
            return together.minimal or (found,)
        found = alone
    return (found,)


def _not(answer: bool | None) -> bool | None:
    return None if answer is None else not answer


def _parts(module: torch.nn.Module, name: str) -> Any:
    for part, child in module.named_children():
        full = f"{name}.{part}" if name else part
        if isinstance(child, (torch.nn.ModuleList, torch.nn.ModuleDict)):
            yield from _parts(child, full)
        else:
            yield full


def _heals(result: Result) -> bool:
    return result.outcome is Outcome.GOOD


def _told(results: Mapping[str, Result], modules: tuple[str, ...]) -> str:
    healing = [name for name, result in results.items() if _heals(result) and name != "float64"]
    also = f"; it heals with {', '.join(healing)}, too" if healing else ""
    if modules:
        names = " and ".join(name or "the whole model" for name in modules)
        return f"it is a matter of precision in {names}: float64 there heals it{also}"
    if results["float64"].outcome is Outcome.SKIP:
        return f"float64 does not run: {results['float64'].reason}{also}"
    return f"it is no matter of precision: it fails in float64 as well{also}"
