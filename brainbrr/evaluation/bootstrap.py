"""Percentile bootstrap over patients: recordings of one patient stand and fall together.

Letters: P patients, R replicates. A replicate draws P patients with replacement; it is P weights, how often each was
drawn. What a metric needs of a patient are sums, so that a replicate is a weighted sum of them and no recording is
looked at twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

REPLICATES = 1000
SEED = 0
COVERAGE = 0.95
FEWEST = 2
"""Patients: the draws of fewer are all the same, which would look like certainty."""

Floats = npt.NDArray[np.float64]
Statistic = Callable[[Floats], Floats]
"""From weights (R, P) to the metric of every replicate (R,), NaN where it is undefined."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """The central COVERAGE of the replicates. `undefined` counts replicates without a value, which were left out."""

    low: float | None
    high: float | None
    undefined: int

    def text(self) -> str:
        """As "0.71 to 0.93"."""
        return "–" if self.low is None else f"{self.low:.3g} to {self.high:.3g}"


def draws(patients: int, *, replicates: int = REPLICATES, seed: int = SEED) -> Floats:
    """Weights (R, P) of the replicates; each row sums to P."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(patients, np.full(patients, 1 / patients), size=replicates).astype(np.float64)


def interval(statistic: Statistic, weights: Floats) -> Interval:
    """The interval of one metric over the replicates `weights` (R, P)."""
    values = statistic(weights)
    defined = values[np.isfinite(values)]
    undefined = values.size - defined.size
    if not defined.size:
        return Interval(low=None, high=None, undefined=undefined)
    tail = (1 - COVERAGE) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return Interval(low=float(low), high=float(high), undefined=undefined)


def ratio(numerators: npt.ArrayLike, denominators: npt.ArrayLike) -> Statistic:
    """The metric Σ numerator / Σ denominator of patients (P,); undefined where the denominator is 0."""
    above, below = np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)

    def statistic(weights: Floats) -> Floats:
        total = weights @ below
        found: Floats = np.divide(weights @ above, total, out=np.full(len(weights), np.nan), where=total != 0)
        return found

    return statistic


def of_sums(sums: Floats, metric: Callable[[Floats], float | None]) -> Statistic:
    """Any metric of the patients' summed vectors: `sums` (P, K), `metric` of one sum (K,), None where undefined."""

    def statistic(weights: Floats) -> Floats:
        values = (metric(row @ sums) for row in weights)
        return np.array([np.nan if value is None else value for value in values])

    return statistic
