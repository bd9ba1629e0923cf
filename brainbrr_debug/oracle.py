"""The oracle: a check over the readings of a trial that calls it good or bad.

Two are needed, because a question about a component and a question about data are different questions.

*Harm* (components, weights): a loss, a gradient or a state that is not finite. A component is cured when no
harm is left, although the decomposition may still be degenerate: a detached, static or guarded encoding keeps its
repeated eigenvalues and divides by no gap.

*Indicator* (samples, time spans, stability): harm, or the leading indicator of the capture's finding at a decomposition
through whose vectors a gradient came back. A repeated eigenvalue is NaN in one arrangement of a batch and 1e7 in the
next, as rounding has it; asking for the gap keeps the answer from hanging on that.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable

from brainbrr_debug.observation import Decomposition, Observation
from brainbrr_debug.records import Finding, Outcome
from brainbrr_debug.spectral import THRESHOLD


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """Good, bad or skip, and why in words."""

    outcome: Outcome
    reason: str


Oracle = Callable[[Observation], Judgement]


def harm(seen: Observation, *, outputs: bool = False) -> Judgement:
    """Bad when a loss, a gradient or a state is not finite; with `outputs`, also when an output is NaN.

    Outputs that are not finite do no harm while everything that follows is finite (they were masked), unless the
    capture objected to them: then a sanitiser stands between. A step that a loss scaler discards is good.
    """
    if seen.error is not None:
        return _bad(seen.error)
    if not all(math.isfinite(loss) for loss in seen.losses):
        return _bad(f"loss {seen.loss}")
    if seen.output_nan and outputs:
        return _bad(f"{seen.output_nan} of {seen.outputs} outputs NaN")
    if seen.gradients_nonfinite and not seen.discarded:
        return _bad(f"{len(seen.gradients_nonfinite)} of {seen.gradients} gradients not finite")
    if seen.state_nonfinite:
        return _bad(f"{len(seen.state_nonfinite)} states not finite after the update, {seen.state_nonfinite[0]} first")
    if seen.discarded:
        return Judgement(outcome=Outcome.GOOD, reason="update discarded by the loss scaler")
    return Judgement(outcome=Outcome.GOOD, reason=f"finite, |g| {seen.gradient_norm:.3g}")


def indicator(threshold: float = THRESHOLD, harm: Oracle = harm) -> Oracle:
    """Bad on `harm`, or when a relative gap that the gradient divides by is at most `threshold`."""

    def judge(seen: Observation) -> Judgement:
        worst = degenerate(seen, threshold)
        if worst is not None:
            place = "" if worst.sample is None else f", sample {worst.sample}"
            return _bad(f"relative gap {worst.gap:.1e} at {worst.site or 'the root module'}{place}")
        return harm(seen)

    return judge


def degenerate(seen: Observation, threshold: float = THRESHOLD) -> Decomposition | None:
    """The differentiated decomposition whose gap is at most `threshold`, the smallest of them."""
    worst = seen.smallest_gap()
    return worst if worst is not None and worst.gap <= threshold else None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Oracles:
    """Both judges of one bisection; `leading` names the indicator, None when harm itself is all there is."""

    harm: Oracle
    indicator: Oracle
    leading: str | None
    threshold: float


def choose(finding: Finding | None, baseline: Observation) -> Oracles:
    """The judges that fit a capture.

    The gap leads when the captured step shows a degenerate decomposition; the finding's own threshold is used when it
    states one. A finding that names another cause does not matter here: a gap that is not small leads nowhere.
    """
    threshold = THRESHOLD
    if finding is not None and "gap" in finding.check:
        stated = finding.evidence.get("threshold")
        threshold = float(stated) if stated is not None else threshold
    objected = finding.evidence.get("nonfinite", ()) if finding is not None else ()
    judge = functools.partial(harm, outputs="logits" in objected)
    if degenerate(baseline, threshold) is None:
        return Oracles(harm=judge, indicator=judge, leading=None, threshold=threshold)
    return Oracles(harm=judge, indicator=indicator(threshold, judge), leading="relative eigengap", threshold=threshold)


def _bad(reason: str) -> Judgement:
    return Judgement(outcome=Outcome.BAD, reason=reason)
