"""Which matrix could not be taken apart? The worst one of the culprit's operation, kept to be looked at."""

from __future__ import annotations

import dataclasses
from typing import Any

from brainbrr_debug.capture import CaptureContent
from brainbrr_debug.factorization import OPERATIONS
from brainbrr_debug.records import Origin, to_json
from brainbrr_debug.spectrum import measured
from brainbrr_debug.subject import Subject
from brainbrr_debug.trials import Trials


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """A job: the captured step, every matrix of it measured; its value is the worst degenerate one of module `site`,
    with its values, those of the healthiest of the same call, and its entries. None where none there is degenerate."""

    site: str

    def __call__(self, content: CaptureContent, subject: Subject) -> Any:
        """Do the step under interception."""
        spectrum = measured("", content, subject)
        calls = [call for call in spectrum.calls if call.site == self.site and call.worst.degenerate]
        if not calls:
            return None
        call = max(calls, key=lambda call: call.worst.badness)
        kept = {
            "operation": call.name,
            "site": call.site,
            "location": call.location,
            "micro_batch": call.micro_batch,
            "identity": spectrum.identity(call, call.worst),
            "matrix": call.worst,
            "values": call.spectra.get("worst", ()),
            "healthy": call.spectra.get("best", ()) if call.best is not call.worst else (),
            "entries": call.entries,
        }
        return to_json(kept)


def which_matrix(trials: Trials, origin: Origin) -> dict[str, Any] | None:
    """The matrix, where the origin is an operation that takes one apart or divides by one; see `Measure`."""
    if origin.op not in OPERATIONS or origin.module is None:
        return None
    found: dict[str, Any] | None = trials.run("matrix", Measure(site=origin.module))
    return found
