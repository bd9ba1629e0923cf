"""Always at batch N? Runs from the seed that part the batch, its place in the run, and what the run carries there.

    the run from its seed with …      fails                               passes
    the same batch at another step    the batch brings it along           it takes the weights, or the step
    another batch at that step        the run carries it there            the batch is needed
    the batches in another order      the order does not matter           it takes this history
    another seed                      the initial weights do not matter   it takes these weights or random numbers
    no updates before that step       training does not matter            the updates made it
    no rate above those before a jump –                                   the schedule
    a tenth of every rate             –                                   accumulation, if order or seed do not matter

The last two are asked only where the run carries the failure to its step, and the first of them where rates jump.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

from brainbrr_debug.course import Course
from brainbrr_debug.oracle import Oracles
from brainbrr_debug.questions.cause import Matrix, disagreement
from brainbrr_debug.records import Cause
from brainbrr_debug.sentence import listed
from brainbrr_debug.trials import Skipped, Trials

PATIENCE = 180.0
"""Seconds that all runs together may take, by what the fastest repeat of the captured step took."""
RUNS = 8
JUMP = 5.0
"""So many times the largest before it must a rate be for the schedule to be suspected: a warm-up doubles it at most."""
BATCH_ELSEWHERE, OTHER_BATCH = "the same batch at step {}", "another batch at step {}"
OTHER_ORDER, OTHER_SEED = "the batches in another order", "another seed"
FROZEN, CAPPED, TENTH = "no updates before step {}", "no rate above those before its jump", "a tenth of every rate"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """One run: the first step that `failed` (None: none), why, or why it was `skipped`."""

    name: str
    failed: int | None = None
    reason: str = ""
    skipped: str | None = None

    @property
    def fails(self) -> bool | None:
        """Whether it failed; None when it could not be told."""
        return None if self.skipped is not None else self.failed is not None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Sequence:
    """What the runs say: words with the evidence that proves them, or why there were no runs (`skipped`)."""

    proofs: Mapping[Cause, str] = dataclasses.field(default_factory=dict)
    evidence: str = ""
    runs: tuple[Ran, ...] = ()
    told: str = ""
    skipped: str | None = None

    @property
    def cause(self) -> Cause | None:
        """The word that alone is proved."""
        return next(iter(self.proofs)) if len(self.proofs) == 1 else None


def always_there(trials: Trials, oracles: Oracles, matrix: Matrix) -> Sequence:
    """Run from the seed as it was, and if that fails where it did, with one thing changed at a time."""
    content, step = trials.content, trials.content.step
    late = _too_late(trials)
    if late is not None:
        return Sequence(skipped=late)
    base = Course(until=step, oracle=oracles.indicator)
    try:
        value = trials.run("sequence", base)
    except Skipped as why:
        return Sequence(skipped=f"the run from its seed does not run here: {why}")
    if value["failed"] != step:
        otherwise = f"fails at step {value['failed']}" if value["failed"] is not None else "is healthy up to there"
        return Sequence(skipped=f"the run from its seed {otherwise}, and the captured step is {step}")
    carried = matrix.cause != "batch" and "rng" not in matrix.proofs
    beyond = step + step // 2 + 1 if carried else step
    elsewhere = step // 2 if step else 1
    courses = {
        BATCH_ELSEWHERE.format(elsewhere): dataclasses.replace(base, until=elsewhere, moved=elsewhere),
        OTHER_BATCH.format(step): dataclasses.replace(base, other_batch=True),
        OTHER_SEED: dataclasses.replace(base, until=beyond, seed=content.seed + 1),
    }
    if step > 1:
        courses[OTHER_ORDER] = dataclasses.replace(base, until=beyond, reordered=True)
    if step:
        courses[FROZEN.format(step)] = dataclasses.replace(base, frozen=True)
    usual = before_jump(value["rates"])
    if carried and step:
        if usual is not None:
            courses[CAPPED] = dataclasses.replace(base, most=usual)
        courses[TENTH] = dataclasses.replace(base, share=0.1)
    runs = tuple(_run(trials, name, course) for name, course in courses.items())
    return conclude(matrix, runs, step)


def _run(trials: Trials, name: str, course: Course) -> Ran:
    try:
        value: Mapping[str, Any] = trials.run("sequence", course)
    except Skipped as why:
        return Ran(name=name, skipped=str(why))
    if value["failed"] is None and value["steps"] <= min(course.until, trials.content.step):
        return Ran(name=name, skipped=f"the run has only {value['steps']} steps")
    return Ran(name=name, failed=value["failed"], reason=value["reason"])


def _too_late(trials: Trials) -> str | None:
    step = trials.content.step
    seconds = min((r.seconds for r in trials.results if r.question == "real" and r.seconds), default=0.0)
    together = seconds * (step + 1) * RUNS
    if together <= PATIENCE:
        return None
    return f"{RUNS} runs of {step + 1} steps would take about {together / 60:.0f} minutes"


def before_jump(rates: Iterable[Any]) -> float | None:
    """The largest rate before the first that is `JUMP` times as large, or no finite number; None where none is."""
    largest = 0.0
    for rate in map(float, rates):
        if largest and not rate < min(JUMP * largest, math.inf):
            return largest
        largest = max(largest, rate)
    return None


def conclude(matrix: Matrix, runs: tuple[Ran, ...], step: int) -> Sequence:
    """What the runs add to the matrix: another word, a disagreement, or the same word with more evidence."""
    fails = {run.name: run.fails for run in runs}
    other = fails.get(OTHER_BATCH.format(step))
    proofs: dict[Cause, str] = dict(matrix.proofs)
    no_batch = f"the run fails at step {step} with another batch, too"
    batch_needed = f"the run passes step {step} with another batch"
    if matrix.cause == "batch" and other:
        proofs["weights"] = no_batch
    elif matrix.cause in ("weights", "accumulation"):
        word, evidence = _carried(fails, step, matrix)
        proofs = {word: evidence} if other is not False else {"batch": batch_needed, word: evidence}
    elif not proofs and other is not None:
        word, evidence = _carried(fails, step, matrix) if other else ("batch", batch_needed)
        proofs = {word: evidence}
    evidence = disagreement(proofs) if len(proofs) > 1 else next(iter(proofs.values()), matrix.evidence)
    return Sequence(proofs=proofs, evidence=evidence, runs=runs, told=_told(runs, step))


def _carried(fails: Mapping[str, bool | None], step: int, matrix: Matrix) -> tuple[Cause, str]:
    """The run carries it to its step: by its schedule, by growing into it, or by weights from elsewhere."""
    if fails.get(CAPPED) is False:
        return "schedule", f"with {CAPPED} the run passes step {step}"
    made = fails.get(FROZEN.format(step)) is False and fails.get(TENTH) is False
    if made and (fails.get(OTHER_ORDER) or fails.get(OTHER_SEED)):
        return "accumulation", matrix.proofs.get(
            "accumulation", "no batch is to blame: every way of training leads there"
        )
    if matrix.cause == "accumulation" and fails.get(FROZEN.format(step)):
        return "weights", f"the run fails at step {step} without any update before it, too"
    if matrix.cause is not None:
        return matrix.cause, matrix.evidence
    return "weights", f"the run fails at step {step} with another batch, too"


def _told(runs: tuple[Ran, ...], step: int) -> str:
    """Which runs failed and which passed, in words."""
    bad, good = ([run.name for run in runs if run.fails is fails] for fails in (True, False))
    parts = [f"{verb} with {listed(names)}" for names, verb in ((bad, "fails as well"), (good, "passes")) if names]
    return f"the run from its seed, which fails at step {step}, {' and '.join(parts)}" if parts else ""
