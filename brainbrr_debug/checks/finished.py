"""The checks that Watch applies while a run goes on, over what the run left behind. Imports no torch."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from brainbrr_debug.checks import conditioning, constant, growth, masking, run, updates
from brainbrr_debug.checks.indicators import indications
from brainbrr_debug.checks.registry import Given, NotApplicable, check
from brainbrr_debug.checks.steps import by_step
from brainbrr_debug.records import Finding, Reading, Severity

if TYPE_CHECKING:
    from brainbrr_debug.rundir import RunDir

METRIC = "run.early_stop_metric"

RECORDED = (run.OVERFLOW, run.PROBE)
"""What readings alone do not show: taken from what the watch wrote down."""

SUMMARIES = {
    run.NONFINITE: (Severity.P0, "loss, logits, gradient, parameters or optimizer state that were not finite"),
    run.OVERFLOW: (Severity.P1, "a finite gradient whose norm overflowed, so that clipping made it zero"),
    run.INFINITE_OUTPUT: (Severity.P2, "infinite logits while loss and gradient stayed finite"),
    run.NARROW_GAP: (Severity.P1, "repeated eigenvalues under a gradient through their vectors"),
    run.PROBE: (Severity.P3, "a probe that failed and looked no longer"),
    growth.CLOSING_GAP: (Severity.P2, "an eigengap on its way to zero"),
    growth.GROWTH: (Severity.P1, "numbers that grew by the same factor step after step"),
    growth.SPIKE: (Severity.P2, "a gradient far beyond those of the steps before"),
    conditioning.NEAR_SINGULAR: (Severity.P1, "a system that was singular to its precision"),
    masking.MASKED_FAILURE: (Severity.P0, "a sanitiser that acted while the loss looked fine"),
    constant.CONSTANT: (Severity.P1, "outputs that did not depend on the input"),
    updates.SCHEDULE: (Severity.P1, "a learning rate that was not the scheduled one, or zero throughout"),
    updates.ZERO_GRADIENT: (Severity.P1, "gradients that were zero for several steps"),
    updates.NO_UPDATE: (Severity.P1, "updates that changed no parameter"),
    updates.SKIPPED: (Severity.P1, "a loss scaler that discarded step after step"),
}
REMEDIES = {
    run.NONFINITE: "have the culprit named and the repair proved by `brainbrr-debug bisect`",
    run.INFINITE_OUTPUT: "where it is no mask, look for the first module whose output is infinite",
    run.PROBE: "report the traceback in findings.jsonl; nothing of the run depends on it",
}
WHY = {run.PROBE: "what the probe looks at was not watched from there on"}


def findings_of(path: RunDir, relative_gap: float) -> Mapping[str, Sequence[Finding]]:
    """Everything the checks find in a run's readings, by check; of each place the first time, with the number of times.

    Indicators see the healthy steps alone, as in the watch.
    """
    readings = path.readings().items
    found = [*run.nonfinite(readings), *run.infinite_output(readings), *run.eigengap(readings, relative_gap)]
    found += conditioning.near_singular(readings)
    bad = {finding.step for finding in run.nonfinite(readings)}
    found += indications(_healthy(readings, bad), relative_gap)
    found += [finding for finding in path.findings().items if finding.check in RECORDED]
    groups: dict[str, dict[tuple[str, Severity], list[Finding]]] = {}
    for finding in found:
        groups.setdefault(finding.check, {}).setdefault((finding.where, finding.severity), []).append(finding)
    file = str(path.path / "readings.jsonl")
    return {name: [_first(group, file) for group in places.values()] for name, places in groups.items()}


def _healthy(readings: Iterable[Reading], bad: set[int | None]) -> Iterator[Reading]:
    return (reading for step in by_step(readings) if step[0].step not in bad for reading in step)


def _first(group: Sequence[Finding], file: str) -> Finding:
    first, last = group[0], group[-1].step
    again = "" if len(group) == 1 else f"; {len(group)} times" + (f", the last in step {last}" if last else "")
    return dataclasses.replace(
        first,
        message=first.message + again,
        file=file,
        why=first.why or WHY.get(first.check, ""),
        remedy=first.remedy or REMEDIES.get(first.check, "see the runbook"),
    )


def _look(name: str) -> Callable[[Given], Iterable[Finding]]:
    def look(given: Given) -> Iterable[Finding]:
        return given.run_findings.get(name, ())

    return look


for _name, (_severity, _summary) in SUMMARIES.items():
    check(_name, _severity, needs="run", summary=_summary)(_look(_name))


@check(METRIC, Severity.P1, needs="run", summary="a run that stops early by a metric which nothing produces")
def early_stop_metric(given: Given) -> Iterator[Finding]:
    """The metric named by the configuration is among those that the run's validation gave."""
    assert given.run is not None
    path = given.run / "outcome.json"
    named, produced = given.selection_metric, _produced(path)
    if named is None or not produced:
        raise NotApplicable("the run names no metric to stop by, or left no validation behind")
    if named not in produced:
        yield Finding(
            check=METRIC,
            severity=Severity.P1,
            message=f"the metric to stop by is {named}; validation gave {', '.join(sorted(produced))}",
            where=named,
            file=str(path),
            why="a metric that is never there is never better: the first checkpoint stays the best, and the run stops",
            remedy="name a metric that is produced, in the same spelling (10 and 10.0 are two)",
        )


def _produced(path: Any) -> set[str]:
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))["metrics"]
        return set(map(str, metrics))
    except (OSError, ValueError, KeyError, TypeError):
        return set()
