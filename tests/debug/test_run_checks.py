from __future__ import annotations

import math

import pytest

from brainbrr_debug.checks.run import eigengap, infinite_output, nonfinite, smallest_gap
from brainbrr_debug.records import Reading, Severity


def reading(quantity: str, value: float, *, step: int = 0, site: str = "", sample: int | None = None) -> Reading:
    return Reading(step=step, phase="p", site=site, quantity=quantity, value=value, sample=sample)


def test_healthy_readings_give_nothing() -> None:
    readings = [reading(q, 1.0, step=s) for s in range(3) for q in ("output.sum", "loss", "gradient.norm", "eigengap")]
    assert nonfinite(readings) == [] and eigengap(readings, 1e-6) == [] and infinite_output(readings) == []


@pytest.mark.parametrize(
    ("bad", "where", "message"),
    [
        (["gradient.norm"], "gradient", "step 0: the gradient is not finite"),
        (["loss", "gradient.norm"], "loss", "step 0: the loss and the gradient are not finite"),
        (["gradient.norm", "loss", "output.sum"], "logits", "step 0: logits, the loss and the gradient are not finite"),
        (["state.norm"], "state", "step 0: parameters or optimizer state are not finite"),
        (["output.sum"], "logits", "step 0: logits are not finite"),
    ],
)
def test_what_is_not_finite_is_listed_in_the_order_of_cause(bad: list[str], where: str, message: str) -> None:
    (finding,) = nonfinite([reading(quantity, math.nan) for quantity in bad])
    assert (finding.where, finding.message, finding.severity) == (where, message, Severity.P0)


def test_every_step_is_judged_by_itself() -> None:
    readings = [reading("loss", math.nan if step in (2, 4) else 1.0, step=step) for step in range(6)]
    assert [finding.step for finding in nonfinite(readings)] == [2, 4]


def test_logits_of_one_infinity_count_only_with_harm() -> None:
    masked = [reading("output.sum", -math.inf), reading("loss", 1.0)]
    assert nonfinite(masked) == [] and len(infinite_output(masked)) == 1
    harmed = [reading("output.sum", -math.inf), reading("loss", math.nan)]
    assert nonfinite(harmed)[0].evidence["nonfinite"] == ["logits", "loss"] and infinite_output(harmed) == []


def test_a_discarded_norm_is_no_finding() -> None:
    assert nonfinite([reading("gradient.norm.discarded", math.inf)]) == []


def test_gaps_are_judged_where_a_gradient_flows() -> None:
    readings = [
        reading("eigengap", 1e-3, site="a"),
        reading("eigengap", 1e-7, site="graph.pe", sample=2),
        reading("eigengap", math.nan, site="c"),
        reading("eigengap.detached", 0.0, site="d"),
    ]
    assert [f.where for f in eigengap(readings, 1e-6)] == ["graph.pe", "c"]
    assert eigengap(readings, 1e-6)[0].message == (
        "step 0: relative eigengap 1e-07 in graph.pe, sample 2, at or below 1e-06, "
        "and a gradient flows through the vectors"
    )
    assert smallest_gap(readings[:2]).value == 1e-7 and math.isnan(smallest_gap(readings).value)
    finding = nonfinite([*readings[:2], reading("gradient.norm", math.inf)])[0]
    assert finding.evidence["eigengap"] == {"value": 1e-7, "site": "graph.pe", "sample": 2}


def test_the_first_module_is_named() -> None:
    readings = [reading("module.sum", math.nan, site="a.b"), reading("module.sum", math.nan, site="c")]
    (finding,) = nonfinite([*readings, reading("loss", math.nan)])
    assert finding.evidence["first_module"] == "a.b"
