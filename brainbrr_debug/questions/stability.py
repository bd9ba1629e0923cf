"""Is the answer the same elsewhere? n re-initialisations, or small perturbations where fresh weights pass."""

from __future__ import annotations

import dataclasses

from brainbrr_debug.oracle import Oracles, degenerate
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
    """Repeat with other weights; the same answer is: bad, and the indicator names the same component and samples."""
    weights: Weights = "fresh" if fresh else "perturbed"
    seeds = range(trials.content.seed + 1, trials.content.seed + 1 + n)
    results = [trials.ask("stable", Trial(weights=weights, seed=seed), oracles.indicator) for seed in seeds]
    same = sum(same_answer(result, oracles, samples, component) for result in results)
    how = "re-initialisations" if fresh else f"perturbations of the captured weights by {PERTURBATION:g}"
    return Stability(k=same, n=n, how=how)


def same_answer(result: Result, oracles: Oracles, samples: tuple[Sample, ...], component: str | None) -> bool:
    """Whether this trial was bad and its indicator, if there is one, points at the same place."""
    if not result.bad or result.observation is None:
        return False
    worst = degenerate(result.observation, oracles.threshold) if oracles.leading is not None else None
    if worst is None:
        return oracles.leading is None
    if component is not None and not (worst.site == component or worst.site.startswith(component + ".")):
        return False
    return not samples or worst.sample is None or (worst.micro_batch, worst.sample) in samples
