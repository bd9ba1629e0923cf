"""A corpus of small training programs that fail, and of healthy ones that look as if they might."""

from tests.faults import backward, data, distractors, forward, healthy, loss, optimizer, state
from tests.faults.table import CONTROLS, FAULTS, Control, Fault, Program

__all__ = ["CONTROLS", "FAULTS", "Control", "Fault", "Program", "backward", "data", "distractors", "forward", "healthy",
           "loss", "optimizer", "state"]  # fmt: skip
