"""The learning rate of the first steps and the loss at its corners: computed by the code that trains, not assumed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from brainbrr_debug.checks.config import at
from brainbrr_debug.checks.registry import Given, check
from brainbrr_debug.records import Finding, Severity

if TYPE_CHECKING:
    from brainbrr_debug.facts import Schedule

WARMUP = "config.warmup"
CORNERS = "config.loss_corners"


@check(WARMUP, Severity.P1, needs="config", summary="a warm-up of another length than anybody means")
def warmup(given: Given) -> Iterator[Finding]:
    """In epochs always; in steps where the data are at hand, in hours where a run shows how long a step takes."""
    given.accepted  # noqa: B018  a refused configuration has no schedule
    schedule = given.schedule
    if schedule.steps is None:
        given.note(f"{WARMUP}: the steps of an epoch are not known without the cache; judged in epochs")
    most = given.setting(WARMUP, "max_epochs")
    first = f"the first rates are {', '.join(f'{rate:.3g}' for rate in schedule.rates)}"
    told = []
    if schedule.warmup_epochs > most:
        length = _length(schedule, given.step_seconds)
        told.append(
            f"the rate rises for {length}; expected {most:g} epochs at most" + f"; {first}" * bool(schedule.rates)
        )
    if list(schedule.rates) != sorted(schedule.rates):
        told.append(f"{first}: they fall within the warm-up")
    if any(not 0 <= rate <= schedule.peak * (1 + 1e-9) for rate in schedule.rates):
        told.append(f"{first}; expected 0 to {schedule.peak:g}")
    for what in told:
        yield Finding(
            check=WARMUP,
            severity=Severity.P1,
            message=what,
            **at(given, schedule.key),
            evidence={"rates": list(schedule.rates), "warmup_epochs": schedule.warmup_epochs},
            why="a share of all steps is not a number of steps: with many epochs nothing is learnt for hours",
            remedy=f"set {schedule.key} to {most / schedule.epochs:.2g} or less ({most:g} epochs)",
        )


def _length(schedule: Schedule, step_seconds: float | None) -> str:
    words = f"{schedule.warmup_epochs:.3g} epochs"
    if schedule.warmup_steps is not None:
        words += f", {schedule.warmup_steps:,} steps"
        if step_seconds is not None:
            words += f", {schedule.warmup_steps * step_seconds / 3600:.2g} hours"
    return words


@check(CORNERS, Severity.P1, needs="config", summary="a loss or gradient that is not finite at legal options")
def loss_corners(given: Given) -> Iterator[Finding]:
    """The configured loss at the bounds of its options, at small and saturated logits."""
    given.accepted  # noqa: B018  a refused configuration has no loss
    for corner in given.corners:
        bad = [name for name in ("loss", "gradient") if not math.isfinite(getattr(corner, name))]
        if bad:
            yield Finding(
                check=CORNERS,
                severity=Severity.P1,
                message=f"{' and '.join(bad)} not finite at {corner.name}",
                **at(given, "training.loss"),
                evidence={"loss": corner.loss, "gradient": corner.gradient},
                why="a search over these options, or a confident model, reaches the corner sooner or later",
                remedy="compute the loss from log-sigmoids, or narrow the range of the option",
            )
