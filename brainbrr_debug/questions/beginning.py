"""When did it begin? The readings of the run, scanned for the first abnormal one, and the run gone back to before it.

A captured step may be later than its cause: the weights were damaged, finite still, and a later step could bear them no
longer; or they were not finite already, and nobody read them. Only such a history is rewound. A step that is the first
abnormal one is left alone, and so is growth from the start: then no step is to blame but the way there.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence

from brainbrr_debug.capture import CaptureContent
from brainbrr_debug.checks.growth import GROWTH
from brainbrr_debug.checks.indicators import indications
from brainbrr_debug.checks.run import nonfinite
from brainbrr_debug.checks.steps import by_step
from brainbrr_debug.checks.updates import SCHEDULE
from brainbrr_debug.oracle import JUMP
from brainbrr_debug.quantities import LOSS
from brainbrr_debug.questions.cause import poisoned
from brainbrr_debug.records import Finding, Reading
from brainbrr_debug.rewind import TooFar, rewind
from brainbrr_debug.rundir import RunDir
from brainbrr_debug.subject import Subject

QUIET = 3
"""So many steps must have gone well before a level can be said to have risen."""
LEVEL = 10.0
"""So many times its first loss a run that goes well may lose: what grew before had begun before."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Beginning:
    """The step in which it began, and the capture to go on with: that step's own where it could be made.

    `abnormal` is what the readings show, None where they show nothing before the captured step; `told` is how it was
    gone back to, or why it could not be.
    """

    step: int
    content: CaptureContent
    abnormal: str | None = None
    told: str = ""


def when_did_it_begin(content: CaptureContent, subject: Subject, run: RunDir | None = None) -> Beginning:
    """Scan, and where something was abnormal before the captured step, go back and forward again to what began it.

    The readings and checkpoints are those of `run`, else the capture's own readings are all there is.
    """
    read = run.readings().items if run is not None else ()
    readings = [r for r in (read or content.readings) if r.step <= content.step]
    abnormal = first_abnormal(readings, content)
    if abnormal is None:
        return Beginning(step=content.step, content=content)
    last, seen = abnormal
    checkpoints = run.checkpoints if run is not None else None
    try:
        found = rewind(content, subject, readings, last=last, checkpoints=checkpoints)
    except TooFar as why:
        return Beginning(step=content.step, content=content, abnormal=seen, told=str(why))
    return Beginning(step=found.step, content=found.content, abnormal=seen, told=found.told)


def first_abnormal(readings: Sequence[Reading], content: CaptureContent) -> tuple[int, str] | None:
    """By which step it had begun, and what shows it, in words; None where nothing does before the captured step."""
    earlier = [r for r in readings if r.step < content.step]
    bad = nonfinite(earlier)
    if bad:
        return bad[0].step or 0, bad[0].message
    signs = [sign for sign in (risen(earlier), indicated(earlier)) if sign is not None]
    if signs:
        return min(signs)
    damaged = poisoned(content.model_state)
    if damaged is not None and not content.lead_in:
        return content.step, f"{damaged} was not finite when step {content.step} began"
    return None


def indicated(readings: Iterable[Reading]) -> tuple[int, str] | None:
    """Where growth began, or the rate left its schedule; each is asked for its first finding only."""
    first: dict[str, Finding] = {}
    for finding in indications(readings):
        first.setdefault(finding.check, finding)
    found = [first[check] for check in (GROWTH, SCHEDULE) if check in first]
    begun = [((f.step or 0) - int(f.evidence.get("steps", 0)), f.message) for f in found]
    return min((sign for sign in begun if sign[0] >= QUIET), default=None)


def risen(readings: Iterable[Reading]) -> tuple[int, str] | None:
    """The first step from which on every loss is `JUMP` times what any loss before was; None where there is none."""
    losses = [(rows[0].step, _mean([r.value for r in rows if r.quantity == LOSS])) for rows in by_step(readings)]
    known = [(step, abs(loss)) for step, loss in losses if not math.isnan(loss)]
    for place in range(QUIET, len(known)):
        usual = max(loss for _, loss in known[:place])
        if usual > LEVEL * known[0][1]:
            return None
        if usual > 0 and min(loss for _, loss in known[place:]) >= JUMP * usual:
            step, loss = known[place]
            return step, f"the loss rose {loss / usual:.3g}-fold at step {step}, and stayed there"
    return None


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
