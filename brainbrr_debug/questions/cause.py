"""Data, weights, or both? The step with {fresh, before, after} weights on {this, a healthy} batch, and what follows.

    weights   this batch   healthy batch   word
    any       bad          good            batch (with "only these weights" noted when fresh ones are fine)
    any       bad          bad, fresh good batch, and not the only one
    before    fresh good   bad             weights, or accumulation when loss or gradients grew on the way there
    fresh     bad          bad             weights: they fail from the beginning, whatever the batch
    before    only the update is bad       optimizer, or schedule when a rate is not a number
    before    bad          –               rng, when other random numbers heal the same batch and weights

The interface knows seven words; "hardware" is given by the first question, when repeats differ.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

from brainbrr_debug.observation import Observation
from brainbrr_debug.oracle import Oracles
from brainbrr_debug.quantities import GRADIENT_NORM, LOSS
from brainbrr_debug.records import Cause, Outcome, Reading
from brainbrr_debug.trial import Trial, Weights
from brainbrr_debug.trials import Result, Trials

GROWTH = 10.0
"""So many times larger must losses or gradient norms have become for "accumulation"; its square in a short history."""
RESEEDED = (1, 2, 3)
KINDS: tuple[Weights, ...] = ("before", "fresh", "after")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """The word, its evidence in words, and the trials: `cells` maps "fresh weights, this batch" and so on."""

    cause: Cause | None
    evidence: str
    cells: Mapping[str, Result]
    only_these_weights: bool = False

    @property
    def everything_fails(self) -> bool:
        """Fresh and captured weights on this and on the healthy batch: then the samples must tell data from program."""
        return all(self.bad(weights, batch) for weights in KINDS[:2] for batch in ("this", "healthy"))

    def bad(self, weights: Weights, batch: str) -> bool | None:
        """Whether that cell failed; None when it could not be told."""
        cell = self.cells.get(cell_name(weights, batch))
        return None if cell is None else cell.bad


def cell_name(weights: Weights, batch: str) -> str:
    """The name of a cell: `batch` is "this" or "healthy"."""
    return f"{weights} weights, {batch} batch"


def data_or_weights(trials: Trials, oracles: Oracles) -> Matrix:
    """Run the matrix and the controls that its pattern asks for."""
    cells: dict[str, Result] = {}
    batches = ("this", "healthy") if trials.content.healthy_micro_batches else ("this",)
    for weights in KINDS:
        for batch in batches:
            trial = Trial(weights=weights, healthy_batch=batch == "healthy")
            name = cell_name(weights, batch)
            # A healthy batch, or the damage that a step leaves, is judged by what it does; a gap alone blames neither.
            by_itself = batch == "healthy" or weights == "after"
            cells[name] = trials.ask("cause", trial, oracles.harm if by_itself else oracles.indicator)
    outcomes = {name: result.bad for name, result in cells.items()}
    captured = cells[cell_name("before", "this")].observation
    if captured is not None and only_the_update(captured):
        return _optimizer(trials, oracles, cells)
    reseeded = _reseed(trials, oracles, insist=bool(outcomes.get(cell_name("before", "healthy"))))
    cells |= {f"other random numbers ({seed})": result for seed, result in zip(RESEEDED, reseeded, strict=False)}
    cause, evidence, both = judge(
        outcomes,
        reseeded_heals=_heals(reseeded, some=bool(outcomes.get(cell_name("before", "healthy")))),
        poisoned=poisoned(trials.content.model_state),
        grew=growth(trials.content.readings),
    )
    return Matrix(cause=cause, evidence=evidence, cells=cells, only_these_weights=both)


def _reseed(trials: Trials, oracles: Oracles, *, insist: bool) -> list[Result]:
    """The captured step with other random numbers, until one of them fails; with `insist`, all of them."""
    results: list[Result] = []
    for seed in RESEEDED:
        if insist or not any(result.bad for result in results):
            results.append(trials.ask("cause", Trial(generator=seed), oracles.indicator))
    return results


def _heals(reseeded: list[Result], *, some: bool) -> bool:
    """All of them heal; or `some`, where the captured random numbers break the healthy batch as well."""
    good = [result.outcome is Outcome.GOOD for result in reseeded]
    return bool(good) and (any(good) if some else all(good))


def judge(
    outcomes: Mapping[str, bool | None], *, reseeded_heals: bool, poisoned: str | None, grew: str | None
) -> tuple[Cause | None, str, bool]:
    """The word for a pattern of outcomes (True: bad), its evidence, and whether it takes these weights as well."""
    this, healthy = outcomes.get("before weights, this batch"), outcomes.get("before weights, healthy batch")
    fresh, fresh_healthy = outcomes.get("fresh weights, this batch"), outcomes.get("fresh weights, healthy batch")
    if poisoned is not None:
        return "weights", f"{poisoned} was not finite when the step began: the damage is older than this step", False
    if reseeded_heals:
        return "rng", "the same batch and weights pass with other random numbers", False
    if not this:
        return None, "the captured step does not fail by itself", False
    if healthy is None:
        return None, "there is no healthy batch to compare with", False
    if not healthy:
        if fresh is None:
            return "batch", "the captured weights pass a healthy batch; fresh ones could not be tried", False
        if fresh:
            return "batch", "fresh weights fail on it too, and the captured weights pass a healthy batch", False
        return "batch", "the captured weights pass a healthy batch; fresh weights pass this one: it takes both", True
    if fresh and fresh_healthy:
        return "weights", "every batch fails, with fresh weights too: so they are from the beginning", False
    if fresh and fresh_healthy is False:
        more = (
            "fresh weights fail on it too; the captured ones fail on a healthy batch as well, so it is not the only one"
        )
        return "batch", more, False
    if grew is not None:
        return "accumulation", f"no batch is to blame: a healthy one fails as well, and {grew}", False
    return "weights", "the captured weights fail on a healthy batch too, fresh ones pass it", False


def only_the_update(seen: Observation) -> bool:
    """Whether everything was finite up to the update, and the update was not."""
    finite = not seen.gradients_nonfinite and not seen.output_nan and all(math.isfinite(x) for x in seen.losses)
    return finite and bool(seen.state_nonfinite) and seen.error is None


def poisoned(state: Mapping[str, Any]) -> str | None:
    """The first captured weight that is not finite."""
    from brainbrr_debug.statistics import finiteness

    tensors = ((name, x) for name, x in state.items() if hasattr(x, "is_floating_point"))
    return next((name for name, x in tensors if not finiteness(x).finite), None)


def growth(readings: Iterable[Reading]) -> str | None:
    """Which of loss and gradient norm became `GROWTH` times as large over the steps before, in words."""
    rows = list(readings)
    last = max((r.step for r in rows), default=0)
    for quantity in (GRADIENT_NORM, LOSS):
        values = [r.value for r in rows if r.quantity == quantity and r.step < last and math.isfinite(r.value)]
        if len(values) < 2:
            continue
        quarter = max(1, len(values) // 4)
        first, end = sorted(values[:quarter])[quarter // 2], sorted(values[-quarter:])[quarter // 2]
        # A few values vary by chance, so a short history must show more.
        if first > 0 and end >= (GROWTH if quarter > 1 else GROWTH**2) * first:
            return f"the {quantity.replace('.', ' ')} grew {end / first:.3g}-fold over {len(values)} steps"
    return None


def _optimizer(trials: Trials, oracles: Oracles, cells: dict[str, Result]) -> Matrix:
    rates = [group.get("lr") for group in trials.content.optimizer_state.get("param_groups", ())]
    wrong = [float(rate) for rate in rates if rate is not None and not math.isfinite(float(rate))]
    if wrong:
        return Matrix(cause="schedule", evidence=f"the learning rate is {wrong[0]}", cells=cells)
    result = trials.ask("cause", Trial(fresh_optimizer=True), oracles.harm)
    cells["before weights, this batch, fresh optimizer"] = result
    healed = "a fresh one heals it" if result.outcome is Outcome.GOOD else "a fresh one does not heal it"
    evidence = f"loss and gradients are finite, what the optimizer makes of them is not; {healed}"
    return Matrix(cause="optimizer", evidence=evidence, cells=cells)
