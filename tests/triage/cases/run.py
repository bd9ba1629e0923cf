"""Run directories of healthy runs, and of runs in which one thing went wrong."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterable
from pathlib import Path

from brainbrr_debug.checks.given import Given
from brainbrr_debug.checks.run import crashed, overflow
from brainbrr_debug.records import Finding, Reading
from brainbrr_debug.rundir import RunDir
from tests.triage.cases import Case

Row = tuple[str, float] | tuple[str, float, str]
Rows = Callable[[int], Iterable[Row]]


def noisy(step: int, scatter: float = 0.2) -> float:
    """A factor that scatters, the same for the same step."""
    return math.exp(random.Random(step).gauss(0, scatter))


def healthy(step: int) -> list[Row]:
    """A run that learns: the loss falls, the gradient scatters, outputs differ."""
    loss = 0.2 + 2.0 * math.exp(-step / 80) * noisy(step, 0.05)
    return [
        ("loss", loss),
        ("output.sum", 3.0 * noisy(step)),
        ("gradient.norm", 2.0 * noisy(step)),
        ("learning_rate", 1e-3),
        ("eigengap", 0.1 * noisy(step), "graph.pe"),
        ("absmax", 2.0 * noisy(step), "head"),
        ("headroom", 100.0, "head"),
        ("output.spread", 0.3),
        ("input.differs", 0.75),
        ("baseline.loss", loss),
        ("baseline.zeros", loss + 0.3),
        ("baseline.constant", loss + 0.2),
        ("update.unchanged", 0.0),
    ]


def ran(
    change: Rows = lambda step: (), *, steps: int = 140, findings: Iterable[Finding] = ()
) -> Callable[[Path], Given]:
    """A run; the readings that `change` gives for a step stand in the place of the healthy ones of their quantity."""

    def make(folder: Path) -> Given:
        run = RunDir.create(folder)
        for step in range(steps):
            mine = list(change(step))
            rows = [row for row in healthy(step) if row[0] not in {other[0] for other in mine}] + mine
            run.append_readings(
                step,
                [
                    Reading(step=step, phase="forward", site="".join(site), quantity=quantity, value=value)
                    for quantity, value, *site in rows
                ],
            )
        for finding in findings:
            run.append_finding(finding)
        return Given(run=run.path)

    return make


def at(step: int, *rows: Row) -> Rows:
    """These readings in one step."""
    return lambda number: rows if number == step else ()


def measured(metric: str, produced: Iterable[str]) -> Callable[[Path], Given]:
    """A run that was to stop by `metric`, with what its validation produced."""

    def make(folder: Path) -> Given:
        run = RunDir.create(folder)
        run.write_config({"training": {"early_stopping": {"metric": metric}}})
        (run.path / "outcome.json").write_text(json.dumps({"metrics": dict.fromkeys(produced, 0.5)}), encoding="utf-8")
        return Given(run=run.path)

    return make


NORM = Reading(step=5, phase="backward", site="", quantity="gradient.norm", value=1e39)
CALM = ran()

CASES = {
    "run.nonfinite": Case(planted=ran(at(7, ("gradient.norm", math.nan))), healthy=CALM),
    "run.gradient_overflow": Case(planted=ran(findings=[overflow(NORM)]), healthy=CALM),
    "run.infinite_output": Case(planted=ran(at(7, ("output.sum", math.inf))), healthy=CALM),
    "run.eigengap": Case(
        planted=ran(at(7, ("eigengap", 1e-9, "graph.pe"))), healthy=ran(at(7, ("eigengap.detached", 1e-9, "graph.pe")))
    ),
    "run.probe": Case(planted=ran(findings=[crashed("census", ValueError("x"), "…")]), healthy=CALM),
    "run.eigengap_closing": Case(
        planted=ran(lambda s: [("eigengap", 0.1 * 0.8**s * noisy(s, 0.5), "graph.pe")], steps=60),
        healthy=ran(lambda s: [("eigengap", 0.1 * 0.97**s + 0.01, "graph.pe")]),
    ),
    "run.growth": Case(
        planted=ran(lambda s: [("loss", 0.1 * 1.8 ** max(0, s - 10))], steps=32),
        healthy=ran(at(50, ("loss", 9.0))),
    ),
    "run.grad_spike": Case(
        planted=ran(at(100, ("gradient.norm", 300.0))), healthy=ran(at(100, ("gradient.norm", 8.0)))
    ),
    "run.condition": Case(
        planted=ran(at(7, ("condition", 3.0, "solve"))), healthy=ran(at(7, ("condition", 1e-4, "solve")))
    ),
    "run.masked_failure": Case(planted=ran(at(7, ("sanitised", 960.0, "head"))), healthy=CALM),
    "run.constant_predictor": Case(
        planted=ran(lambda s: [("output.spread", 1e-8)]),
        healthy=ran(lambda s: [("output.spread", 1e-8), ("input.differs", 0.0)]),
    ),
    "run.lr_schedule": (
        Case(planted=ran(at(3, ("learning_rate.expected", 2e-3, "<optimizer>"))), healthy=CALM),
        Case(planted=ran(lambda s: [("learning_rate", 0.0)]), healthy=ran(at(0, ("learning_rate", 0.0)))),
    ),
    "run.zero_gradient": Case(
        planted=ran(lambda s: [("gradient.norm", 0.0)] if s > 99 else ()), healthy=ran(at(7, ("gradient.norm", 0.0)))
    ),
    "run.no_update": Case(planted=ran(lambda s: [("update.unchanged", 1.0)]), healthy=CALM),
    "run.skipped_steps": Case(
        planted=ran(lambda s: [("gradient.norm.discarded", math.inf)] if s % 3 == 0 else ()),
        healthy=ran(lambda s: [("gradient.norm.discarded", math.inf)] if s < 8 else ()),
    ),
    "run.early_stop_metric": Case(
        planted=measured("sensitivity_at_10fa", ["loss", "sensitivity_at_10.0fa"]),
        healthy=measured("sensitivity_at_10fa", ["loss", "sensitivity_at_10fa"]),
    ),
}
