"""A corpus of small training programs that fail, and of healthy ones that look as if they might."""

from tests.faults import (
    arithmetic,
    attention,
    backward,
    data,
    distractors,
    exotic,
    geometry,
    harmless,
    healthy,
    loss,
    optimizer,
    overflow,
    probability,
    sequences,
    sleepers,
    state,
    structure,
    updates,
    vision,
)
from tests.faults.table import CONTROLS, FAULTS, Control, Fault, Program

FAMILIES = (
    arithmetic,
    attention,
    overflow,
    structure,
    loss,
    backward,
    optimizer,
    data,
    distractors,
    state,
    exotic,
    geometry,
    probability,
    sequences,
    vision,
    updates,
    sleepers,
    healthy,
    harmless,
)

__all__ = ["CONTROLS", "FAMILIES", "FAULTS", "Control", "Fault", "Program"]
