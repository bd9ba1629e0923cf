"""A verdict in one sentence, for the top of a page and the subject of a mail. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from brainbrr_debug.sentence import CAUSES, changes_of, component_name, listed, sample_name

_KINDS = {"nan": "NaN", "inf": "infinite"}


def headline(verdict: Mapping[str, Any]) -> str:
    """Where, what, why, and what heals it; of a verdict without a culprit its first sentence."""
    origin = verdict["origin"]
    if verdict["component"] is None and origin["healthy"]:
        return str(verdict["sentence"].partition(". ")[0].rstrip(".")) + "."
    parts = [f"Step {verdict['step']} failed in {component_name(_place(verdict))}", _what(origin), _why(verdict)]
    return " ".join(part for part in parts if part) + f"{_repair(verdict)}."


def _place(verdict: Mapping[str, Any]) -> str:
    component = verdict["component"]
    return str(component if component is not None else verdict["origin"]["module"])


def _what(origin: Mapping[str, Any]) -> str:
    if origin["healthy"]:
        return ""
    kind = _KINDS.get(origin["kind"], "not finite")
    named = f", {str(origin['mechanism']).replace('-', ' ')}" if origin["mechanism"] else ""
    what = {"backward": "the gradient of ", "optimizer": "the update by "}.get(origin["phase"], "")
    return f"({what}{origin['op']} is {kind}{named})"


def _why(verdict: Mapping[str, Any]) -> str:
    if verdict["cause"] is None:
        return ""
    if verdict["samples"]:
        return f"because of {listed([sample_name(sample) for sample in verdict['samples']])}"
    return f"because of {CAUSES[verdict['cause']]}"


def best_repair(verdict: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The repair to try first: a proved one, else the one that changes least; None where nothing heals."""
    healing = [repair for repair in verdict["repairs"] if repair["heals"] and not repair["hides"]]
    return next((repair for repair in healing if repair["proved"]), healing[0] if healing else None)


def _repair(verdict: Mapping[str, Any]) -> str:
    best = best_repair(verdict)
    return "" if best is None else f"; {changes_of(best)} heals it{', proved' if best['proved'] else ''}"
