"""Every leading indicator has a planted fault, which it names, and a healthy twin, on which all of them are silent."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brainbrr_debug.checks.indicators import Indicators, indications
from brainbrr_debug.checks.trend import Series, Shape, fit
from brainbrr_debug.records import Finding, Reading, Severity

Rows = Iterable[tuple[str, float] | tuple[str, float, str]]


def run(steps: int, rows: Callable[[int], Rows], *, every: int = 1) -> Iterator[Reading]:
    """Readings of a run: `rows` gives (quantity, value, site) for a step."""
    for step in range(0, steps, every):
        for quantity, value, *site in rows(step):
            yield Reading(step=step, phase="forward", site="".join(site), quantity=quantity, value=value)


def found(readings: Iterable[Reading], **options: float) -> list[Finding]:
    return list(indications(readings, **options))


def noisy(step: int, scatter: float = 0.2) -> float:
    """A factor that scatters by `scatter` (natural logarithm), the same for the same step."""
    return math.exp(random.Random(step).gauss(0, scatter))


def healthy_loss(step: int) -> float:
    return 0.2 + 2.0 * math.exp(-step / 80) * noisy(step)


def healthy_norm(step: int) -> float:
    """Rises fast in the first steps, falls, scatters, and jumps now and then."""
    rise = min(1.0, 0.02 + step / 20)
    return 5.0 * rise * noisy(step, 0.5) / (1 + step / 200) * (4 if step % 97 == 96 else 1)


def gate(step: int) -> list[tuple[str, float]]:
    return [("loss", healthy_loss(step)), ("gradient.norm", healthy_norm(step)), ("learning_rate", 1e-3)]


# Growth -------------------------------------------------------------------------------------------------------------


def test_a_norm_that_grows_by_the_same_factor_is_named_long_before_it_overflows() -> None:
    readings = run(32, lambda s: [("gradient.norm", 0.1 * 1.8 ** max(0, s - 10) * noisy(s, 0.1))])
    first = next(iter(found(readings)))
    assert (first.check, first.severity, first.where) == ("run.growth", Severity.P1, "gradient")
    assert first.step is not None and first.step <= 24
    assert first.evidence["factor"] == pytest.approx(1.8, rel=0.1) and first.evidence["r2"] > 0.95
    assert "the gradient norm grows ×1.8" in first.message or "the gradient norm grows ×1.7" in first.message
    assert "overflows float16 in about" in first.message and "float32 in about" in first.message


def test_the_forecast_is_that_of_the_line() -> None:
    first = next(iter(found(run(13, lambda s: [("loss", 2.0**s)]))))
    assert first.step == 7 and first.where == "loss"
    assert first.message == (
        "step 7: the loss grows ×2 a step for 7 steps, 1 → 128: "
        "overflows float16 in about 9, float32 in about 121 steps"
    )


@pytest.mark.parametrize(
    "norm",
    [
        healthy_norm,
        lambda s: 1e-3 + s * 10.0,  # linear growth: no factor of its own
        lambda s: 1.0 if s < 50 else 500.0,  # one jump
        lambda s: math.exp(5 * math.sin(s / 3)),  # up and down over four orders of magnitude
        lambda s: 100 * 0.5**s if s < 20 else 100 * 0.5 ** (40 - s),  # comes back to where it was
        lambda s: 1e-8 if s == 0 else 1.0 * noisy(s),  # a head of zeros opens
        lambda s: 0.0,
    ],
)
def test_no_other_growth_is_geometric(norm: Callable[[int], float]) -> None:
    readings = run(40, lambda s: [("gradient.norm", norm(s))])
    assert [f for f in found(readings) if f.check == "run.growth"] == []


def test_a_run_that_returned_to_an_earlier_step_begins_anew() -> None:
    readings = [*run(7, lambda s: [("loss", 2.0**s)]), *run(7, lambda s: [("loss", 2.0 ** (s + 7))])]
    assert found(readings) == []


def test_the_module_whose_numbers_grow_is_named_with_what_its_dtype_has_left() -> None:
    def rows(step: int) -> Rows:
        for site, value in (("calm", 3.0 * noisy(step)), ("hot", 0.5 * 1.1**step), ("hot", 2.0)):
            yield "absmax", value, site
            yield "headroom", math.log2(65504 / value), site

    hot = [f for f in found(run(100, rows, every=10)) if f.check == "run.growth"]
    assert {f.where for f in hot} == {"hot"} and hot[0].step == 50
    assert "the largest magnitude in the output of hot grows ×1.1 a step for 50 steps" in hot[0].message
    assert "overflows its dtype in about 74 steps" in hot[0].message


@pytest.mark.parametrize("loss", [lambda s: 2 - s / 100, lambda s: 1.0 * noisy(s)])
def test_growth_of_what_learns_and_has_room_is_none(loss: Callable[[int], float]) -> None:
    """A model that starts near zero finds the scale of its targets."""

    def rows(step: int) -> Rows:
        value = 1e-3 * 1.3 ** min(step, 50)
        sizes = [("absmax", value, "hot"), ("headroom", math.log2(3.4e38 / value), "hot")] if step % 5 == 0 else []
        return [("loss", loss(step)), ("gradient.norm", value), *sizes]

    assert found(run(80, rows)) == []


@pytest.mark.parametrize("loss", [lambda s: 1.5**s, lambda s: 2 + s / 5, lambda s: -2 + s / 5])
def test_growth_counts_where_the_loss_suffers(loss: Callable[[int], float]) -> None:
    first = next(iter(found(run(30, lambda s: [("loss", loss(s)), ("gradient.norm", 1e-3 * 1.9**s)]))))
    assert first.where == "gradient" and first.step is not None and first.step <= 12


def test_growth_that_has_no_room_left_is_named_whatever_the_loss_does() -> None:
    def rows(step: int) -> Rows:
        value = 1e-3 * 1.8**step
        sizes = [("absmax", value, "hot"), ("headroom", math.log2(3.4e38 / value), "hot")] if step % 5 == 0 else []
        return [("loss", 2 / (1 + step)), ("gradient.norm", value), *sizes]

    first = {f.where: f.step for f in reversed(found(run(120, rows)))}
    assert 1.8 ** first["gradient"] < 2**64 and 1.8 ** first["hot"] < 1e38


@settings(max_examples=50)
@given(st.lists(st.floats(-100, 100), min_size=3, max_size=30), st.integers(1, 50))
def test_the_line_is_that_of_numpy(values: list[float], spacing: int) -> None:
    steps = np.arange(len(values)) * spacing
    trend = fit(list(zip(steps.tolist(), values, strict=True)))
    slope, level = np.polyfit(steps, values, 1)
    assert trend.start == pytest.approx(level, abs=1e-6) and trend.slope == pytest.approx(slope, abs=1e-6)
    if np.std(values) > 1e-6:
        assert trend.r2 == pytest.approx(np.corrcoef(steps, values)[0, 1] ** 2, abs=1e-6)


@settings(max_examples=50)
@given(st.lists(st.one_of(st.floats(), st.just(0.0)), max_size=60))
def test_any_values_are_digested(values: list[float]) -> None:
    series = Series(Shape(windows=(4, 8), doublings=2, r2=0.5))
    for step, value in enumerate(values):
        series.add(step, value)
        series.trend()
        series.largest_before(step)
    found([Reading(step=s, phase="", site="", quantity=q, value=v) for s, v in enumerate(values) for q in QUANTITIES])


QUANTITIES = (
    "loss", "gradient.norm", "absmax", "headroom", "eigengap", "clamped", "sanitised", "output.spread",
    "input.differs", "baseline.loss", "baseline.zeros", "baseline.constant", "learning_rate", "update.unchanged",
)  # fmt: skip


# Spikes, gaps -------------------------------------------------------------------------------------------------------


def test_a_spike_is_ten_times_the_largest_of_fifty_steps() -> None:
    (spike,) = found(run(120, lambda s: [("gradient.norm", 300.0 if s == 100 else 1.0 * noisy(s))]))
    assert (spike.check, spike.severity, spike.step) == ("run.grad_spike", Severity.P2, 100)
    assert found(run(120, lambda s: [("gradient.norm", 8.0 if s == 100 else 1.0 * noisy(s))])) == []
    assert found(run(40, lambda s: [("gradient.norm", 300.0 if s == 30 else 1.0)])) == []  # still finding its size


def test_a_gap_that_closes_is_named_before_it_is_closed() -> None:
    rows = lambda s: [("eigengap", 0.1 * 0.8**s * noisy(s, 0.5), "graph.pe"), ("eigengap", 0.3, "other")]  # noqa: E731
    readings = list(run(60, rows))
    first = next(iter(found(readings)))
    assert (first.check, first.severity, first.where) == ("run.eigengap_closing", Severity.P2, "graph.pe")
    at_fault = next(r.step for r in readings if r.quantity == "eigengap" and r.value <= 1e-6)
    assert first.step is not None and first.step < at_fault
    assert first.step + first.evidence["steps_left"] == pytest.approx(at_fault, abs=8)


@pytest.mark.parametrize(
    "gap",
    [
        lambda s: 0.01 * noisy(s, 2.0),  # scatters over orders of magnitude
        lambda s: 0.1 * 0.97**s + 0.01,  # settles
        lambda s: 1e-3 * 0.99**s,  # far from the threshold still
    ],
)
def test_a_gap_that_does_not_close_is_none(gap: Callable[[int], float]) -> None:
    assert found(run(200, lambda s: [("eigengap", gap(s), "pe")])) == []


# Sanitisers ---------------------------------------------------------------------------------------------------------


def test_a_nan_to_num_that_acts_is_a_masked_failure() -> None:
    (finding,) = found(run(1, lambda s: [("sanitised", 960.0, "head"), ("loss", 0.13)]))
    assert (finding.check, finding.severity, finding.where) == ("run.masked_failure", Severity.P0, "head")
    assert finding.message == (
        "step 0: a nan_to_num or clamp in head made 960 non-finite values finite; the loss is 0.13"
    )
    (data,) = found(run(1, lambda s: [("sanitised.data", 3.0, "")]))
    assert data.severity == Severity.P2 and "3 non-finite values that carry no gradient" in data.message


def test_a_clamp_is_saturated_when_it_holds_half_of_its_values_twice() -> None:
    def share(of: Callable[[int], float]) -> list[Finding]:
        return found(run(4, lambda s: [("absmax", 1.0), ("clamped", of(s), "c"), ("clamped", 0.01, "c")]))

    assert [f.step for f in share(lambda s: 0.7)] == [1, 2, 3]
    assert share(lambda s: 0.7)[0].severity == Severity.P1
    assert share(lambda s: 0.4) == [] and share(lambda s: 0.9 * (s % 2)) == []


# Constant predictors ------------------------------------------------------------------------------------------------


def answers(spread: float, loss: float, zeros: float, mean: float, differ: float = 0.75) -> Rows:
    return [
        ("input.differs", differ), ("output.spread", spread), ("baseline.loss", loss), ("baseline.zeros", zeros),
        ("baseline.constant", mean),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "where", "step"),
    [
        (answers(1e-7, 0.5, 0.69, 0.5), "output", 20),
        (answers(0.3, 0.693147, 0.693147, 0.8), "loss of zeros", 20),
        (answers(0.3, 0.5, 0.69, 0.5), "loss of a constant", 500),
    ],
)
def test_what_a_constant_would_do_as_well_is_named(rows: Rows, where: str, step: int) -> None:
    first = next(f for f in found(run(1000, lambda s: rows, every=10)) if f.where == where)
    assert (first.check, first.severity, first.step) == ("run.constant_predictor", Severity.P1, step)


@pytest.mark.parametrize(
    "rows",
    [
        lambda s: answers(0.3, 0.5, 0.69, 0.6),
        lambda s: answers(1e-7, 0.5, 0.69, 0.6, differ=0.0),  # the same sample again and again
        lambda s: answers(0.0, 0.69, 0.69, 0.69) if s < 20 else answers(0.1, 0.6, 0.69, 0.65),  # a head of zeros opens
        lambda s: answers(0.3, 0.6, 0.69, 0.6) if s % 100 else answers(0.3, 0.5, 0.69, 0.6),  # now and then better
    ],
)
def test_what_learns_is_no_constant(rows: Callable[[int], Rows]) -> None:
    assert found(run(1000, rows, every=25)) == []


# Updates ------------------------------------------------------------------------------------------------------------


def test_a_rate_that_is_not_the_scheduled_one_is_named() -> None:
    (finding,) = found(run(1, lambda s: [("learning_rate", 1e-3), ("learning_rate.expected", 2e-3, "<optimizer>")]))
    assert (finding.check, finding.severity) == ("run.lr_schedule", Severity.P1)
    assert finding.message == "step 0: the learning rate is 0.001, the schedule says 0.002"


def test_a_rate_of_zero_is_named_when_it_stays() -> None:
    first, *_ = found(run(40, lambda s: [("learning_rate", 0.0)]))
    assert (first.check, first.step, first.where) == ("run.lr_schedule", 19, "zero")
    assert found(run(40, lambda s: [("learning_rate", float(s % 19 > 0))])) == []
    assert found(run(40, lambda s: [("learning_rate", 0.0), ("learning_rate", 1e-3)])) == []  # a frozen group


def test_a_gradient_of_zero_is_named_when_it_stays() -> None:
    first, *_ = found(run(5, lambda s: [("gradient.norm", 0.0)]))
    assert (first.check, first.severity, first.step) == ("run.zero_gradient", Severity.P1, 2)
    assert found(run(40, lambda s: [("gradient.norm", float(s % 3 > 0))])) == []


def still(share: float, rate: float = 1e-3, norm: float = 1.0) -> list[Finding]:
    rows = lambda s: [("update.unchanged", share), ("gradient.norm", norm), ("learning_rate", rate)]  # noqa: E731
    return found(run(4, rows))


def test_an_update_without_effect_is_named() -> None:
    first, *_ = still(1.0)
    assert (first.check, first.severity, first.step) == ("run.no_update", Severity.P1, 2)
    assert still(0.9) == [] and still(1.0, rate=0.0) == []
    discarded = run(9, lambda s: [("update.unchanged", 1.0), ("gradient.norm.discarded", math.inf)])
    assert found(discarded) == []


def test_a_scaler_that_does_not_settle_is_named() -> None:
    def scaled(discard: Callable[[int], bool]) -> list[Finding]:
        name = {True: "gradient.norm.discarded", False: "gradient.norm"}
        return found(run(300, lambda s: [(name[discard(s)], math.inf if discard(s) else 1.0)]))

    first, *_ = scaled(lambda s: s % 4 == 0)
    assert (first.check, first.severity) == ("run.skipped_steps", Severity.P1)
    assert scaled(lambda s: s < 16 or s % 100 == 0) == []


# Everything together ------------------------------------------------------------------------------------------------


def test_a_healthy_run_is_silent() -> None:
    def rows(step: int) -> Iterator[tuple[str, float] | tuple[str, float, str]]:
        if step % 10 == 0:
            for site, size in (("a", 3.0), ("b", 0.1 + 5 * (1 - math.exp(-step / 150)))):
                yield "absmax", size * noisy(step, 0.1), site
                yield "headroom", math.log2(65504 / size), site
            yield "clamped", 0.02, "a"
            yield from answers(0.3, healthy_loss(step), 2.3, healthy_loss(step) + 0.4)
        if step % 10 == 1 and step > 1:
            yield "update.unchanged", 0.0
        yield "eigengap", 0.01 * noisy(step, 1.0), "pe"
        yield from gate(step)

    assert found(run(2000, rows)) == []


def test_the_same_findings_online_and_afterwards() -> None:
    readings = list(run(30, lambda s: [("loss", 1.9**s), ("eigengap", 0.5**s, "x"), ("gradient.norm", 0.0)]))
    online = Indicators()
    seen = [f for s in range(30) for f in online.see([r for r in readings if r.step == s])]
    assert seen == found(readings) and {f.check for f in seen} >= {"run.growth", "run.zero_gradient"}
    assert Indicators().see([]) == []


def test_every_finding_says_why_and_what_to_do() -> None:
    everything: Sequence[Finding] = [
        *found(run(30, lambda s: [("loss", 1.9**s), ("eigengap", 0.5**s, "x"), ("gradient.norm", 0.0)])),
        *still(1.0),
    ]
    assert all(f.why and f.remedy and f.step is not None for f in everything)
    assert all(dataclasses.asdict(f)["evidence"] for f in everything)
