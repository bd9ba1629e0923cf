"""The matrix that a step could not take apart, as HTML: its values and its graph. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from brainbrr_debug.report.elements import section
from brainbrr_debug.report.figure import shown
from brainbrr_debug.report.graph_plot import graph
from brainbrr_debug.report.spectrum_plot import levels
from brainbrr_debug.sentence import electrodes_apart, nearby, sample_name


def degenerate(verdict: Mapping[str, Any]) -> list[str]:
    """Spectrum and graph of the matrix in a verdict's details; nothing where there is none."""
    details = verdict.get("details", {})
    found = details.get("matrix")
    if not found:
        return []
    pictures = [levels("Its values, and those of a healthy one", *_numbers(found))] if found["values"] else []
    if found["entries"]:
        here = (found["micro_batch"], found["matrix"]["sample"])
        its = [sample for sample in verdict["samples"] if (sample.get("micro_batch", 0), sample["index"]) == here]
        marked = [name for sample in its for name in electrodes_apart(sample, len(found["entries"]))]
        names, places = details.get("channels", ()), details.get("places", {})
        pictures.append(graph("Its graph", found["entries"], names=names, places=places, marked=marked))
    parts = [f"<p>{escape(_told(found))}</p>", f'<div class="figures">{"".join(pictures)}</div>']
    if found["entries"]:
        parts.append('<p class="dim">An edge is an entry beside the diagonal, the wider the larger.</p>')
    return [section("The matrix that it could not take apart", *parts)]


def _numbers(found: Mapping[str, Any]) -> tuple[list[float], list[float]]:
    return [float(value) for value in found["values"]], [float(value) for value in found["healthy"]]


def _told(found: Mapping[str, Any]) -> str:
    matrix = found["matrix"]
    where = f"{found['operation']} in {found['site'] or 'the root module'}"
    told = f"{where} ({nearby(found['location'])})" if found["location"] else where
    told += f", matrix {matrix['index']}"
    if matrix["sample"] is not None:
        told += f" of {sample_name({'index': matrix['sample'], **found['identity']})}"
    if matrix["gap"] is not None:
        told += f": relative gap {shown(float(matrix['gap']))}"
    elif matrix["condition"] is not None:
        told += f": condition number {shown(float(matrix['condition']))}"
    largest = max(matrix["multiplicities"], default=1)
    return told + (f", {largest} equal values." if largest > 1 else ".")
