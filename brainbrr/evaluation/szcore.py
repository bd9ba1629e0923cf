"""SzCORE's event- and sample-based scores for one pair of annotations, through the `timescoring` library.

Dan et al., "SzCORE: seizure community open-source research evaluation framework" (Epilepsia, 2024). Annotations are
first put on the benchmark's grid of 1 Hz, both ends cut to whole seconds: an event within one second disappears.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from brainbrr.data.labels import Event

GRID_HZ = 1


def szcore(
    reference: Sequence[Event], hypothesis: Sequence[Event], duration_s: float
) -> dict[str, dict[str, float | None]]:
    """{"event": …, "sample": …} with the benchmark's parameters: 30 s and 60 s tolerance, merging under 90 s, 5 min.

    A ratio without a denominator is None.
    """
    from timescoring.annotations import Annotation
    from timescoring.scoring import EventScoring, SampleScoring

    truth, said = (Annotation(on_grid(events, duration_s), GRID_HZ) for events in (reference, hypothesis))
    return {
        "event": _fields(EventScoring(truth, said)),
        "sample": _fields(SampleScoring(truth, said, GRID_HZ)),
    }


def on_grid(events: Sequence[Event], duration_s: float) -> npt.NDArray[np.bool_]:
    """Seizure or not in every whole second of the recording, bool (seconds,)."""
    marked = np.zeros(int(duration_s * GRID_HZ), dtype=np.bool_)
    for event in events:
        # The benchmark's files hold onset and duration: their sum can round to just below the stop.
        stop_s = event.start_s + (event.stop_s - event.start_s)
        marked[int(event.start_s * GRID_HZ) : int(stop_s * GRID_HZ)] = True
    return marked


def _fields(scoring: Any) -> dict[str, float | None]:
    return {
        "ref_true": int(scoring.refTrue),
        "tp": int(scoring.tp),
        "fp": int(scoring.fp),
        "sensitivity": _ratio(scoring.sensitivity),
        "precision": _ratio(scoring.precision),
        "f1": _ratio(scoring.f1),
        "fp_per_24h": _ratio(scoring.fpRate),
    }


def _ratio(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
