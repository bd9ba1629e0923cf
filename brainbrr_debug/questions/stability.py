"""Is the answer the same elsewhere? n re-initialisations, or small perturbations where fresh weights pass."""

from __future__ import annotations

import dataclasses
import math

from brainbrr_debug.oracle import Oracles
from brainbrr_debug.samples import Sample
from brainbrr_debug.trial import PERTURBATION, Trial, Weights
from brainbrr_debug.trials import Result, Trials


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Stability:
    """k of n answers were the same; `how` says what was varied."""

    k: int
    n: int
    how: str


def is_it_stable(
    trials: Trials, oracles: Oracles, *, n: int, fresh: bool, samples: tuple[Sample, ...], component: str | None
) -> Stability:
    """Repeat with other weights; the same answer is the leading reading in the same component and samples."""
    weights: Weights = "fresh" if fresh else "perturbed"
    seeds = range(trials.content.seed + 1, trials.content.seed + 1 + n)
    results = trials.ask_all("stable", [Trial(weights=weights, seed=seed) for seed in seeds], oracles.indicator)
    same = sum(same_answer(result, oracles, samples, component) for result in results)
    how = "re-initialisations" if fresh else f"perturbations of the captured weights by {PERTURBATION:g}"
    return Stability(k=same, n=n, how=how)


def same_answer(result: Result, oracles: Oracles, samples: tuple[Sample, ...], component: str | None) -> bool:
    """Whether this trial shows the leading reading at the place that was blamed; without one, whether it did harm."""
    seen = result.observation
    if seen is None or oracles.leading is None:
        return bool(result.bad)
    blamed = [d for d in seen.decompositions if d.differentiated and _within(d.site, component)]
    gaps = {(d.micro_batch, sample): gap for d in blamed for sample, gap in enumerate(d.gaps)}
    if samples and gaps:
        return all(gaps.get(sample, math.inf) <= oracles.threshold for sample in samples)
    return any(d.gap <= oracles.threshold for d in blamed)


def _within(site: str, component: str | None) -> bool:
    return component is None or component == "" or site == component or site.startswith(component + ".")
