"""SzCORE's event- and sample-based scores for one pair of annotations, through the `timescoring` library.

Dan et al., "SzCORE: seizure community open-source research evaluation framework" (Epilepsia, 2024). Annotations are
first put on the benchmark's grid of 1 Hz, both ends cut to whole seconds: an event within one second disappears.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from brainbrr.data.labels import Event

GRID_HZ = 1
RULES = ("event", "sample")
_DAY_S = 86_400


@dataclass(frozen=True, kw_only=True)
class Hits:
    """Counts of one rule, of events or of seconds; they add up over recordings. `seconds`: the length judged."""

    ref_true: int
    tp: int
    fp: int
    seconds: int

    def __add__(self, other: Hits) -> Hits:
        """The counts of both."""
        return Hits(
            ref_true=self.ref_true + other.ref_true,
            tp=self.tp + other.tp,
            fp=self.fp + other.fp,
            seconds=self.seconds + other.seconds,
        )

    def to_dict(self) -> dict[str, float | None]:
        """Counts, and the ratios that follow as the benchmark has them; None without a denominator."""
        return {
            "ref_true": self.ref_true,
            "tp": self.tp,
            "fp": self.fp,
            "sensitivity": _ratio(self.tp, self.ref_true),
            "precision": _ratio(self.tp, self.tp + self.fp),
            "f1": _ratio(2 * self.tp, self.ref_true + self.tp + self.fp) if self.ref_true + self.fp else None,
            "fp_per_24h": _ratio(self.fp * _DAY_S, self.seconds),
        }


def szcore(reference: Sequence[Event], hypothesis: Sequence[Event], duration_s: float) -> dict[str, Hits]:
    """{"event": …, "sample": …} with the benchmark's parameters: 30 s and 60 s tolerance, merging under 90 s, 5 min."""
    from timescoring.annotations import Annotation
    from timescoring.scoring import EventScoring, SampleScoring

    seconds = int(duration_s * GRID_HZ)
    if not seconds:  # the library divides by the length
        return dict.fromkeys(RULES, Hits(ref_true=0, tp=0, fp=0, seconds=0))
    truth, said = (Annotation(on_grid(events, duration_s), GRID_HZ) for events in (reference, hypothesis))
    return {
        "event": _hits(EventScoring(truth, said), seconds),
        "sample": _hits(SampleScoring(truth, said, GRID_HZ), seconds),
    }


def on_grid(events: Sequence[Event], duration_s: float) -> npt.NDArray[np.bool_]:
    """Seizure or not in every whole second of the recording, bool (seconds,)."""
    marked = np.zeros(int(duration_s * GRID_HZ), dtype=np.bool_)
    for event in events:
        # The benchmark's files hold onset and duration: their sum can round to just below the stop.
        stop_s = event.start_s + (event.stop_s - event.start_s)
        marked[int(event.start_s * GRID_HZ) : int(stop_s * GRID_HZ)] = True
    return marked


def _hits(scoring: Any, seconds: int) -> Hits:
    return Hits(ref_true=int(scoring.refTrue), tp=int(scoring.tp), fp=int(scoring.fp), seconds=seconds)


def _ratio(numerator: float, denominator: float) -> float | None:
    return numerator / denominator if denominator else None
