"""Whether numbers lie below zero by more than chance. Imports no torch."""

from __future__ import annotations

import dataclasses
import itertools
import math
import statistics
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BelowZero:
    """One-sided test of the mean of `n` numbers against 0: `p` is the chance of a mean this low if the truth is 0."""

    mean: float
    n: float
    p: float

    def __str__(self) -> str:
        return f"mean {self.mean:.3g}, one-sided t-test with {self.n:.0f} independent values, p {_chance(self.p)}"


def below_zero(numbers: Sequence[float]) -> BelowZero:
    """The test, for numbers that follow each other in time; two at least.

    Neighbours that are alike count as fewer independent values: n·(1−r)/(1+r) with their correlation r.
    """
    mean = statistics.fmean(numbers)
    if not math.isfinite(mean):
        return BelowZero(mean=mean, n=len(numbers), p=1.0)
    spread = statistics.stdev(numbers)
    if spread <= 1e-12 * abs(mean):
        return BelowZero(mean=mean, n=len(numbers), p=0.0 if mean < 0 else 1.0)
    away = [number - mean for number in numbers]
    alike = sum(a * b for a, b in itertools.pairwise(away)) / sum(a * a for a in away)
    alike = min(max(alike, 0.0), 0.99)
    n = max(2.0, len(numbers) * (1 - alike) / (1 + alike))
    return BelowZero(mean=mean, n=n, p=t_below(mean / (spread / math.sqrt(n)), n - 1))


def t_below(t: float, freedom: float) -> float:
    """The chance of a value below `t` by Student's distribution, by Wallace's normal deviate (1959), within a third."""
    z = (8 * freedom + 1) / (8 * freedom + 3) * math.sqrt(freedom * math.log1p(t * t / freedom))
    return 0.5 * math.erfc(math.copysign(z, -t) / math.sqrt(2))


def _chance(p: float) -> str:
    return "below 1e-12" if p < 1e-12 else f"{p:.2g}"
