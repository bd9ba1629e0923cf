"""Norms that grow geometrically, gaps that close, gradients that jump. Imports no torch."""

from __future__ import annotations

import collections
import math
from collections.abc import Iterator, Sequence

from brainbrr_debug.checks.steps import Step
from brainbrr_debug.checks.trend import Series, Shape, Trend, fit
from brainbrr_debug.quantities import ABSMAX, EIGENGAP, GRADIENT_NORM, HEADROOM, LOSS
from brainbrr_debug.records import Finding, Reading, Severity

GROWTH = "run.growth"
CLOSING_GAP = "run.eigengap_closing"
SPIKE = "run.grad_spike"

OF_STEPS = Shape(windows=(24, 12, 8), doublings=6, r2=0.95)
"""Loss and gradient norm: ×64 in 8 to 24 steps, along a line. What falls again, or rises in one jump, has none."""
OF_SAMPLES = Shape(windows=(24, 12, 6), doublings=6, r2=0.95)
"""Outputs of modules and the gradients there: the same over sampled steps."""
OF_GAPS = Shape(windows=(96, 48, 12), doublings=math.log2(100), r2=0.8, sign=-1)
"""A smallest gap is an extreme of many, and scatters."""
NEW = 3.0
"""Growth counts where it leads so many doublings beyond everything seen before it."""
RISES, RISES_R2 = 0.2, 0.8
"""A model that leaves its initial scale behind grows geometrically, too, and learns: gradients and outputs count where
the loss (or its logarithm) rises along a line by this share of its size, or where the end is near.
"""
NEAR = 2
"""So many times the window's length."""
NORM_BITS = 64.0
"""A norm whose square is beyond float32 can no longer be computed in it."""
REMEMBERED = 4096
SPIKE_FACTOR = 10.0
SPIKE_STEPS = 50

_LARGEST = {"float16": 16.0, "float32": 128.0}  # log2 of what overflows


class Growth:
    """Finds loss, gradient norm, and every module's numbers that grow by the same factor step after step."""

    def __init__(self) -> None:
        self._series: dict[tuple[str, str, int], Series] = {}
        self._losses: collections.deque[tuple[int, float]] = collections.deque(maxlen=REMEMBERED)

    def see(self, step: Step) -> Iterator[Finding]:
        """The findings of one step."""
        losses = step.values(LOSS)
        if losses:
            loss = sum(losses) / len(losses)
            if self._losses and step.number <= self._losses[-1][0]:
                self._losses.clear()  # the run went back to an earlier step
            self._losses.append((step.number, loss))
            trend = self._trend(("loss", "", 0), OF_STEPS, step.number, loss)
            if trend is not None:
                yield _growing("loss", "the loss", trend, _ends(trend))
        for norm in step.values(GRADIENT_NORM):
            trend = self._trend(("gradient", "", 0), OF_STEPS, step.number, norm)
            if trend is not None and self._matters(trend, NORM_BITS - trend.end):
                yield _growing("gradient", "the gradient norm", trend, _ends(trend))
        if step.has(ABSMAX):
            yield from self._sampled(step)

    def _sampled(self, step: Step) -> Iterator[Finding]:
        calls: collections.Counter[tuple[str, str]] = collections.Counter()
        left = _headrooms(step)
        for reading in step.readings(ABSMAX):
            place = reading.phase, reading.site
            key, calls[place] = (*place, calls[place]), calls[place] + 1
            trend = self._trend(key, OF_SAMPLES, step.number, reading.value)
            bits = left.get(key)
            if trend is None or bits is None or not self._matters(trend, bits):
                continue
            of = "the output of" if reading.phase == "forward" else "the gradient at the output of"
            name = f"the largest magnitude in {of} {reading.site or 'the root module'}"
            yield _growing(reading.site, name, trend, [f"its dtype in about {bits / trend.slope:.0f}"])

    def _trend(self, key: tuple[str, str, int], shape: Shape, step: int, value: float) -> Trend | None:
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = Series(shape)
        series.add(step, value)
        trend = series.trend()
        if trend is None or trend.end < NEW + series.largest_before(trend.first):
            return None
        return trend

    def _matters(self, trend: Trend, bits: float) -> bool:
        """Whether it leads to harm: `bits` doublings are left, or the loss suffers already."""
        if bits / trend.slope <= NEAR * (trend.last - trend.first):
            return True
        seen = [(step, loss) for step, loss in self._losses if trend.first <= step <= trend.last]
        if len(seen) < 2:
            return not self._losses
        if all(loss > 0 for _, loss in seen):
            line = fit([(step, math.log2(loss)) for step, loss in seen])
            return line.r2 >= RISES_R2 and line.end - line.start >= math.log2(1 + RISES)
        line = fit(seen)
        return line.r2 >= RISES_R2 and line.end - line.start >= RISES * abs(line.start)


def _ends(trend: Trend) -> list[str]:
    ahead = {kind: trend.steps_to(limit) for kind, limit in _LARGEST.items()}
    return [f"{kind} in about {steps:.0f}" for kind, steps in ahead.items() if steps < math.inf]


def _headrooms(step: Step) -> dict[tuple[str, str, int], float]:
    """Doublings left, for each reading of ABSMAX that is followed by one of HEADROOM, by the same key."""
    found: dict[tuple[str, str, int], float] = {}
    calls: collections.Counter[tuple[str, str]] = collections.Counter()
    for reading in step.readings(ABSMAX, HEADROOM):
        place = reading.phase, reading.site
        if reading.quantity == ABSMAX:
            calls[place] += 1
        else:
            found[*place, calls[place] - 1] = reading.value
    return found


def _growing(where: str, name: str, trend: Trend, ends: Sequence[str]) -> Finding:
    span, start, end = trend.last - trend.first, _power(trend.start), _power(trend.end)
    return Finding(
        check=GROWTH,
        severity=Severity.P1,
        message=(
            f"step {trend.last}: {name} grows ×{_power(trend.slope):.3g} a step for {span} steps, "
            f"{start:.3g} → {end:.3g}" + (f": overflows {', '.join(ends)} steps" if ends else "")
        ),
        where=where,
        step=trend.last,
        evidence={"factor": _power(trend.slope), "steps": span, "start": start, "end": end, "r2": trend.r2},
        why="what grows by the same factor at every step feeds on itself, and ends beyond the range of its dtype",
        remedy="lower the learning rate, clip the gradient, and look at the module whose numbers grow first",
    )


class ClosingGap:
    """Finds eigengaps on their way to the threshold at which the gradient of the vectors is lost."""

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._series: dict[str, Series] = {}

    def see(self, step: Step) -> Iterator[Finding]:
        """The findings of one step."""
        smallest: dict[str, Reading] = {}
        for reading in step.readings(EIGENGAP):
            known = smallest.get(reading.site)
            smallest[reading.site] = reading if known is None or reading.value < known.value else known
        for site, reading in smallest.items():
            series = self._series.get(site) or self._series.setdefault(site, Series(OF_GAPS))
            series.add(step.number, reading.value)
            trend = series.trend() if reading.value > self._threshold else None
            ahead = math.inf if trend is None else trend.steps_to(math.log2(self._threshold))
            if trend is not None and ahead <= trend.last - trend.first:
                yield self._closing(site, trend, ahead)

    def _closing(self, site: str, trend: Trend, ahead: float) -> Finding:
        span, start, end = trend.last - trend.first, _power(trend.start), _power(trend.end)
        return Finding(
            check=CLOSING_GAP,
            severity=Severity.P2,
            message=(
                f"step {trend.last}: the smallest relative eigengap in {site or 'the root module'} fell from "
                f"{start:.3g} to {end:.3g} in {span} steps: at {self._threshold:g} in about {ahead:.0f} steps"
            ),
            where=site,
            step=trend.last,
            evidence={"start": start, "end": end, "steps": span, "steps_left": ahead, "r2": trend.r2},
            why="the gradient of eigenvectors contains 1/(λi−λj): it grows without bound as the gap closes",
            remedy="use a gradient that is defined for repeated eigenvalues, detach the vectors, or avoid them",
        )


class Spikes:
    """Finds gradient norms far beyond those of the steps before."""

    def __init__(self) -> None:
        self._norms: collections.deque[float] = collections.deque(maxlen=SPIKE_STEPS)

    def see(self, step: Step) -> Iterator[Finding]:
        """The findings of one step."""
        for norm in step.values(GRADIENT_NORM):
            usual = max(self._norms) if len(self._norms) == SPIKE_STEPS else math.inf
            self._norms.append(norm)
            if 0 < usual * SPIKE_FACTOR < norm < math.inf:
                yield Finding(
                    check=SPIKE,
                    severity=Severity.P2,
                    message=(
                        f"step {step.number}: gradient norm {norm:.3g}, {norm / usual:.3g} times the largest of the "
                        f"{SPIKE_STEPS} steps before ({usual:.3g})"
                    ),
                    where="gradient",
                    step=step.number,
                    evidence={"norm": norm, "largest_before": usual},
                    why="one such step can undo many, and leaves its mark in the optimizer's averages",
                    remedy="clip the gradient by its norm, and look at the samples of this batch",
                )


def _power(exponent: float) -> float:
    return math.ldexp(2.0 ** (exponent % 1), min(math.floor(exponent), 1023))
