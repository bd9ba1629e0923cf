"""Which operation, and which line? The captured step, traced."""

from __future__ import annotations

from brainbrr_debug.records import Origin
from brainbrr_debug.trial import Trial, prepare
from brainbrr_debug.trials import Trials


def which_operation(trials: Trials) -> Origin:
    """The origin of the captured step; healthy where the step does no harm that could be traced."""
    from brainbrr_debug.origin import trace_step

    with trials.counted("operation"):
        run, batches, _ = prepare(trials.content, trials.subject, Trial())
        return trace_step(run, batches, number=trials.content.step)
