"""Checks over the readings of a run: pure functions, the same while training and afterwards. Imports no torch."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence

from brainbrr_debug.checks.steps import by_step
from brainbrr_debug.quantities import (
    EIGENGAP,
    GRADIENT_NORM,
    GRADIENT_NORM_DISCARDED,
    LOSS,
    MODULE_SUM,
    OUTPUT_SUM,
    STATE_NORM,
)
from brainbrr_debug.records import Finding, Reading, Severity

NONFINITE = "run.nonfinite"
NARROW_GAP = "run.eigengap"
OVERFLOW = "run.gradient_overflow"
INFINITE_OUTPUT = "run.infinite_output"
PROBE = "run.probe"

_WHERE = {
    OUTPUT_SUM: "logits",
    LOSS: "loss",
    GRADIENT_NORM: "gradient",
    STATE_NORM: "state",
}
"""What a non-finite reading of a quantity is called, in the order of cause."""


def nonfinite(readings: Iterable[Reading]) -> list[Finding]:
    """One P0 finding for each step in which loss, logits, gradient, parameters or optimizer state are not finite.

    Logits that are infinite and nothing else (a mask of −inf, say) are no finding of their own: they count only where
    the loss or the gradient shows that they did harm.
    """
    return [finding for step in by_step(readings) if (finding := _judge(step)) is not None]


def _judge(step: Sequence[Reading]) -> Finding | None:
    bad = [r for r in step if not math.isfinite(r.value)]
    kinds = {_WHERE[r.quantity] for r in bad if r.quantity in _WHERE and not _harmless(r)}
    if not kinds:
        return None
    if any(r.quantity == OUTPUT_SUM for r in bad):
        kinds.add("logits")
    ordered = [where for where in _WHERE.values() if where in kinds]
    first = next((r.site for r in bad if r.quantity == MODULE_SUM), None)
    evidence: dict[str, object] = {"nonfinite": ordered}
    if first is not None:
        evidence["first_module"] = first
    gap = smallest_gap(step)
    if gap is not None:
        evidence["eigengap"] = {"value": gap.value, "site": gap.site, "sample": gap.sample}
    return Finding(
        check=NONFINITE,
        severity=Severity.P0,
        message=f"step {step[0].step}: {_listed(ordered)} not finite",
        where=ordered[0],
        step=step[0].step,
        evidence=evidence,
        why="an update with a non-finite gradient makes every parameter non-finite, and clipping spreads it to all",
    )


def infinite_output(readings: Iterable[Reading]) -> list[Finding]:
    """A P2 finding for each step whose logits hold infinities of one sign while loss and gradient stay finite."""
    return [
        Finding(
            check=INFINITE_OUTPUT,
            severity=Severity.P2,
            message=f"step {step[0].step}: logits are infinite somewhere, loss and gradient are finite",
            where="logits",
            step=step[0].step,
            why="harmless where it masks; an overflow on its way where it does not",
        )
        for step in by_step(readings)
        if _judge(step) is None and any(_harmless(r) for r in step)
    ]


def _harmless(reading: Reading) -> bool:
    return reading.quantity == OUTPUT_SUM and math.isinf(reading.value)


def discarded(readings: Iterable[Reading]) -> list[Reading]:
    """The readings of a step whose update the loss scaler discards: its gradient norm goes by another name."""
    return [
        dataclasses.replace(r, quantity=GRADIENT_NORM_DISCARDED) if r.quantity == GRADIENT_NORM else r for r in readings
    ]


def overflow(reading: Reading) -> Finding:
    """The P1 finding for a gradient with finite elements and a norm (the reading's value) beyond float32."""
    return Finding(
        check=OVERFLOW,
        severity=Severity.P1,
        message=f"step {reading.step}: every gradient is finite, their norm {reading.value:.3g} overflows float32",
        where="gradient",
        step=reading.step,
        evidence={"gradient_norm": reading.value},
        why="clipping by a norm of infinity makes every gradient zero",
        remedy="find what makes the gradient so large; clip with watch.gradient_norm, computed in float64 here",
    )


def crashed(probe: str, error: Exception, trace: str) -> Finding:
    """The P3 finding for a probe that failed and looks no longer; the run goes on."""
    return Finding(
        check=PROBE,
        severity=Severity.P3,
        message=f"probe {probe} failed and is off for the rest of the run: {type(error).__name__}: {error}",
        where=probe,
        evidence={"traceback": trace},
    )


def smallest_gap(readings: Iterable[Reading]) -> Reading | None:
    """The smallest relative eigengap whose vectors carried a gradient; NaN counts as the smallest."""
    gaps = [r for r in readings if r.quantity == EIGENGAP]
    return min(gaps, key=lambda r: -1.0 if math.isnan(r.value) else r.value, default=None)


def eigengap(readings: Iterable[Reading], threshold: float) -> list[Finding]:
    """A P1 finding for each reading of a differentiated decomposition with a relative gap at or below `threshold`."""
    return [
        Finding(
            check=NARROW_GAP,
            severity=Severity.P1,
            message=(
                f"step {r.step}: relative eigengap {r.value:.3g} in {r.site or 'the root module'}"
                + (f", sample {r.sample}" if r.sample is not None else "")
                + f", at or below {threshold:g}, and a gradient flows through the vectors"
            ),
            where=r.site,
            step=r.step,
            evidence={"gap": r.value, "threshold": threshold, "sample": r.sample},
            why="the gradient of eigenvectors contains 1/(λi−λj): it grows without bound as the gap closes",
            remedy="use a gradient that is defined for repeated eigenvalues, detach the vectors, or avoid them",
        )
        for r in readings
        if r.quantity == EIGENGAP and not r.value > threshold
    ]


def _listed(names: Sequence[str]) -> str:
    nouns = {"loss": "the loss", "gradient": "the gradient", "state": "parameters or optimizer state"}
    words = [nouns.get(name, name) for name in names]
    plural = len(words) > 1 or names[0] in ("logits", "state")
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]])) + (" are" if plural else " is")
