"""The oracle: a check over the readings of a trial that calls it good or bad.

Two are needed, because a question about a component and a question about data are different questions.

*Harm* (components, weights): a loss, a gradient or a state that is not finite. A component is cured when no
harm is left, although the decomposition may still be degenerate: a detached, static or guarded encoding keeps its
repeated eigenvalues and divides by no gap.

*Indicator* (samples, time spans): harm, or an exact tie at a decomposition through whose vectors a gradient came back.
Whether a repeated eigenvalue is NaN or 1e7 is a matter of rounding, so the tie itself is asked for. Near ties are not:
graphs have plenty of them (gaps of 1e-8 to 1e-6, float32's rounding of a tie) in batches that do no harm at all.

Stability asks for the *leading* reading, the near tie, at the place that was blamed.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

from brainbrr_debug.observation import Decomposition, Observation
from brainbrr_debug.records import Finding, Outcome
from brainbrr_debug.spectral import THRESHOLD

TIE = 1e-10
"""A relative gap at or below this, in float64, is a tie: far below what float32 makes of one by rounding."""


JUMP = 100.0
"""No update of a healthy run makes the numbers of a parameter so many times as large."""


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


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Harm:
    """The oracle `harm`, as data that another process can be sent.

    With `jump`, what makes the numbers of a parameter so many times as large is bad, too.
    """

    outputs: bool = False
    jump: float | None = None

    def __call__(self, seen: Observation) -> Judgement:
        """See `harm`."""
        told = harm(seen, outputs=self.outputs)
        if self.jump is not None and told.outcome is Outcome.GOOD and seen.jump >= self.jump:
            return _bad(f"the update makes {seen.jumped} {seen.jump:.3g} times as large")
        return told


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Indicator:
    """Bad on `harm`, or when a relative gap that the gradient divides by is at most `threshold`."""

    threshold: float = TIE
    harm: Harm = Harm()

    def __call__(self, seen: Observation) -> Judgement:
        """The gap first: it names the place."""
        worst = degenerate(seen, self.threshold)
        if worst is not None:
            place = "" if worst.sample is None else f", sample {worst.sample}"
            return _bad(f"relative gap {worst.gap:.1e} at {worst.site or 'the root module'}{place}")
        return self.harm(seen)


def degenerate(seen: Observation, threshold: float = THRESHOLD) -> Decomposition | None:
    """The differentiated decomposition whose gap is at most `threshold`, the smallest of them."""
    worst = seen.smallest_gap()
    return worst if worst is not None and worst.gap <= threshold else None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Oracles:
    """Both judges of one bisection.

    `leading` names the leading indicator of the captured step, None when there is none but harm; `threshold` is that
    of a near tie.
    """

    harm: Harm
    indicator: Harm | Indicator
    leading: str | None
    threshold: float


def choose(finding: Finding | None, baseline: Observation) -> Oracles:
    """The judges that fit a capture.

    The gap leads when the captured step shows a tie, or a near one; an eigengap finding states what counts. What other
    findings say does not matter here: a gap that is not small leads nowhere.
    """
    stated = finding.evidence.get("threshold") if finding is not None and "gap" in finding.check else None
    threshold = float(stated) if stated is not None else THRESHOLD
    objected = finding.evidence.get("nonfinite", ()) if finding is not None else ()
    jump = finding.evidence.get("jump") if finding is not None else None
    judge = Harm(outputs="logits" in objected, jump=jump)
    exact = threshold if stated is not None else TIE
    return Oracles(
        harm=judge,
        indicator=judge if degenerate(baseline, exact) is None else Indicator(threshold=exact, harm=judge),
        leading=None if degenerate(baseline, threshold) is None else "relative eigengap",
        threshold=threshold,
    )


def _bad(reason: str) -> Judgement:
    return Judgement(outcome=Outcome.BAD, reason=reason)
