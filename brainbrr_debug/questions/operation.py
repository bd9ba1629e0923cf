"""Which operation, and which line? The captured step, traced.

Tracing looks at every operation several times over, so the step is cut down first: to the culprit samples alone, if
those alone do the same harm.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from brainbrr_debug.capture import CaptureContent
from brainbrr_debug.oracle import Oracles
from brainbrr_debug.records import Origin, from_json
from brainbrr_debug.samples import Sample, samples_of
from brainbrr_debug.subject import Subject
from brainbrr_debug.trial import Trial, prepare
from brainbrr_debug.trials import Trials


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """The origin (healthy where no harm could be traced), and whether it was traced on the culprit samples alone."""

    origin: Origin
    cut_down: bool


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """A job: the trial's step, traced; its value is the Origin."""

    trial: Trial

    def __call__(self, content: CaptureContent, subject: Subject) -> Any:
        """Do the step under the tracer."""
        from brainbrr_debug.origin import trace_step

        run, batches, _ = prepare(content, subject, self.trial)
        return trace_step(run, batches, number=content.step).to_dict()


def which_operation(trials: Trials, oracles: Oracles, samples: tuple[Sample, ...]) -> Operation:
    """Trace the step; on the culprit samples alone if they fail alone and the trace then finds something."""
    if samples and len(samples) < len(samples_of(trials.content.micro_batches)):
        small = Trial(keep=samples, alone=True)
        if trials.ask("operation", small, oracles.harm).bad:
            origin = _trace(trials, small)
            if not origin.healthy and origin.phase != "data":  # data is named by its place in the whole batch
                return Operation(origin=origin, cut_down=True)
    return Operation(origin=_trace(trials, Trial()), cut_down=False)


def _trace(trials: Trials, trial: Trial) -> Origin:
    return from_json(Origin, trials.run("operation", Trace(trial=trial)))
