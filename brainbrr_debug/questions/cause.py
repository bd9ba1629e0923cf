"""Data, weights, or both? The step with {fresh, before, after} weights on {this, a healthy} batch, and what follows.

    weights   this batch   healthy batch   word
    before    bad          good            batch (with "only these weights" noted when fresh ones are fine)
    before    fresh good   bad             weights, or accumulation when loss or gradients grew on the way there
    fresh     bad          bad             weights: they fail from the beginning, whatever the batch
    before    only the update is bad       optimizer or schedule: whichever heals it when it is fresh
    before    bad          –               rng, when other random numbers heal the same batch and weights
    before    bad, fresh   bad, fresh      two faults at once: the batch fails with fresh weights, and what the run
              bad          good            carries fails without the batch

Every word needs a proof, and two proofs of different words are a disagreement and no answer. "hardware" is given by the
first question, when repeats differ; what a run from its seed adds is in `sequence`.
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

FRESH_TELL = "fresh weights fail on this one and pass a healthy one"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """Words with the evidence that proves them, and the trials: `cells` maps "fresh weights, this batch" and so on.

    `why_not` says why no word is proved. `only_these_weights`: the batch fails with the captured weights alone.
    """

    proofs: Mapping[Cause, str]
    cells: Mapping[str, Result]
    why_not: str = ""
    only_these_weights: bool = False

    @property
    def cause(self) -> Cause | None:
        """The word that alone is proved."""
        return next(iter(self.proofs)) if len(self.proofs) == 1 else None

    @property
    def evidence(self) -> str:
        """In words, whatever was proved."""
        if len(self.proofs) < 2:
            return next(iter(self.proofs.values()), self.why_not)
        return disagreement(self.proofs)

    @property
    def everything_fails(self) -> bool:
        """Fresh and captured weights on this and on the healthy batch: then the samples must tell data from program."""
        return all(self.bad(weights, batch) for weights in KINDS[:2] for batch in ("this", "healthy"))

    def bad(self, weights: Weights, batch: str) -> bool | None:
        """Whether that cell failed; None when it could not be told."""
        cell = self.cells.get(cell_name(weights, batch))
        return None if cell is None else cell.bad


def disagreement(proofs: Mapping[Cause, str]) -> str:
    """Several proved words in one sentence."""
    return "the evidence disagrees: " + "; ".join(f"for {word} speaks that {told}" for word, told in proofs.items())


def cell_name(weights: Weights, batch: str) -> str:
    """The name of a cell: `batch` is "this" or "healthy"."""
    return f"{weights} weights, {batch} batch"


def data_or_weights(trials: Trials, oracles: Oracles) -> Matrix:
    """Run the matrix and the controls that its pattern asks for."""
    cells = _matrix(trials, oracles)
    outcomes = {name: result.bad for name, result in cells.items()}
    captured = cells[cell_name("before", "this")].observation
    healthy_fails = bool(outcomes.get(cell_name("before", "healthy")))
    weights = poisoned(trials.content.model_state)
    if weights is None and captured is not None and only_the_update(captured):
        return _update(trials, oracles, cells, healthy_fails=healthy_fails)
    reseeded = _reseed(trials, oracles, insist=healthy_fails)
    cells |= {f"other random numbers ({seed})": result for seed, result in zip(RESEEDED, reseeded, strict=False)}
    matrix = judge(
        outcomes,
        reseeded_heals=_heals(reseeded, some=healthy_fails),
        poisoned=weights,
        grew=growth(trials.content.readings),
    )
    matrix = dataclasses.replace(matrix, cells=cells)
    if len(matrix.proofs) == 2:
        return _second_fault(trials, oracles, matrix)
    return _bad_numbers(trials, oracles, matrix) if matrix.everything_fails and matrix.cause == "weights" else matrix


def _matrix(trials: Trials, oracles: Oracles) -> dict[str, Result]:
    batches = ("this", "healthy") if trials.content.healthy_micro_batches else ("this",)
    cells: dict[str, Result] = {}
    # A healthy batch, or the damage that a step leaves, is judged by what it does; a gap alone blames neither.
    for by_itself in (False, True):
        places = [
            (weights, batch)
            for weights in KINDS
            for batch in batches
            if (batch == "healthy" or weights == "after") is by_itself
        ]
        asked = [Trial(weights=weights, healthy_batch=batch == "healthy") for weights, batch in places]
        results = trials.ask_all("cause", asked, oracles.harm if by_itself else oracles.indicator)
        cells |= {cell_name(*place): result for place, result in zip(places, results, strict=True)}
    return {cell_name(w, b): cells[cell_name(w, b)] for w in KINDS for b in batches}


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
) -> Matrix:
    """What a pattern of outcomes (True: bad) proves."""
    this, healthy = outcomes.get("before weights, this batch"), outcomes.get("before weights, healthy batch")
    fresh, fresh_healthy = outcomes.get("fresh weights, this batch"), outcomes.get("fresh weights, healthy batch")
    carried: Cause = "weights" if grew is None else "accumulation"
    also = "the captured weights fail on a healthy batch" + (f", and {grew}" if grew else "")
    if poisoned is not None:
        damaged = f"{poisoned} was not finite when the step began: the damage is older than this step"
        innocent = not (fresh and fresh_healthy is False)
        return _proved(weights=damaged) if innocent else _proved(batch=FRESH_TELL, weights=damaged)
    if not this:
        return Matrix(proofs={}, cells={}, why_not="the captured step does not fail by itself")
    if reseeded_heals:
        return _proved(rng="the same batch and weights pass with other random numbers")
    if healthy is None:
        return Matrix(proofs={}, cells={}, why_not="there is no healthy batch to compare with")
    if healthy and fresh and fresh_healthy is False:
        return _proved(batch=FRESH_TELL, **{carried: also})
    if healthy and fresh and fresh_healthy:
        return _proved(weights="every batch fails, with fresh weights too: so they are from the beginning")
    if healthy and grew is not None:
        return _proved(accumulation=f"no batch is to blame: a healthy one fails as well, and {grew}")
    if healthy:
        return _proved(weights="the captured weights fail on a healthy batch too, fresh ones pass it")
    if fresh is None:
        return _proved(batch="the captured weights pass a healthy batch; fresh ones could not be tried")
    if fresh:
        return _proved(batch="fresh weights fail on it too, and the captured weights pass a healthy batch")
    both = _proved(
        batch="the captured weights pass a healthy batch; fresh weights pass this one: it takes both",
    )
    return dataclasses.replace(both, only_these_weights=True)


def _proved(**proofs: str) -> Matrix:
    return Matrix(proofs=proofs, cells={})  # type: ignore[arg-type]


def _second_fault(trials: Trials, oracles: Oracles, matrix: Matrix) -> Matrix:
    """Which word what the run carries deserves: on the healthy batch it may be the update alone that fails."""
    seen = matrix.cells[cell_name("before", "healthy")].observation
    if seen is None or not only_the_update(seen):
        return matrix
    second = _update(trials, oracles, dict(matrix.cells), healthy_fails=True, healthy_batch=True)
    return dataclasses.replace(second, proofs={"batch": matrix.proofs["batch"], **second.proofs})


def _bad_numbers(trials: Trials, oracles: Oracles, matrix: Matrix) -> Matrix:
    """Every batch fails with fresh weights: unless it is the random numbers that all of these trials shared."""
    other = Trial(weights="fresh", healthy_batch=True, generator=RESEEDED[0])
    control = trials.ask("cause", other, oracles.harm)
    matrix = dataclasses.replace(matrix, cells={**matrix.cells, "fresh, healthy, other random numbers": control})
    if control.outcome is not Outcome.GOOD:
        return matrix
    this = trials.ask("cause", dataclasses.replace(other, healthy_batch=False), oracles.indicator)
    part: Cause = "batch" if this.bad else "weights"
    told = (
        "other random numbers heal a healthy batch, not this one" if this.bad else "other random numbers heal no batch"
    )
    return dataclasses.replace(
        matrix,
        cells={**matrix.cells, "fresh, this, other random numbers": this},
        proofs={"rng": "a healthy batch passes with other random numbers and fails with these", part: told},
    )


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


def _update(
    trials: Trials, oracles: Oracles, cells: dict[str, Result], *, healthy_fails: bool, healthy_batch: bool = False
) -> Matrix:
    """Loss and gradients are finite, the update is not: is it the optimizer's state, its rates, or the gradients?"""
    base = Trial(healthy_batch=healthy_batch)
    changed = {
        "fresh optimizer": dataclasses.replace(base, fresh_optimizer=True),
        "fresh rates": dataclasses.replace(base, fresh_rates=True),
    }
    results = dict(zip(changed, trials.ask_all("cause", list(changed.values()), oracles.harm), strict=True))
    state, rates = (result.outcome is Outcome.GOOD for result in results.values())
    told = "loss and gradients are finite, what the optimizer makes of them is not"
    proofs: dict[Cause, str] = {}
    if state:
        proofs["optimizer"] = f"{told}; a fresh state of the optimizer heals it"
    if rates:
        rate = max(group.get("lr", 0.0) for group in trials.content.optimizer_state["param_groups"])
        proofs["schedule"] = f"{told}; the rate that the program begins with heals it, {float(rate):.3g} does not"
    if not proofs:
        both = dataclasses.replace(base, fresh_optimizer=True, fresh_rates=True)
        results["fresh optimizer and rates"] = trials.ask("cause", both, oracles.harm)
        if results["fresh optimizer and rates"].outcome is Outcome.GOOD:
            proofs = {
                "optimizer": f"{told}, and a fresh state heals it together with the rate of the beginning",
                "schedule": "neither of the two alone",
            }
        elif not healthy_fails and trials.content.healthy_micro_batches:
            proofs["batch"] = f"{told}; another batch passes with the same state and rate"
        else:
            proofs["optimizer"] = f"{told}; neither a fresh state nor another rate heals it"
    where = ", healthy batch" if healthy_batch else ""
    cells |= {f"before weights{where}, {name}": result for name, result in results.items()}
    return Matrix(proofs=proofs, cells=cells)
