"""What one repeat of a step showed. Imports no torch."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from brainbrr_debug.quantities import EIGENGAP, EIGENGAP_DETACHED, GRADIENT_NORM, LOSS, LOSS_SITE, ROOT_SITE
from brainbrr_debug.records import Reading


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Decomposition:
    """One call of an eigen or singular value decomposition, asked for at `location` (path:line).

    `gap` is the smallest distance of two neighbouring values over the largest magnitude, over the whole stack of
    matrices, from a float64 spectrum of the input (0 where the computed values are equal); NaN when the input is not
    finite. `gaps` holds the same for each sample, empty when the stack cannot be divided among the samples.
    `differentiated` says that a gradient came back through its vectors: only then does a gap of zero do harm.
    """

    site: str
    op: str
    location: str
    micro_batch: int
    gap: float
    gaps: tuple[float, ...] = ()
    differentiated: bool = False

    @property
    def sample(self) -> int | None:
        """The sample with the smallest gap, None when that cannot be told."""
        return min(range(len(self.gaps)), key=self.gaps.__getitem__) if self.gaps else None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """The readings of one step, all of them taken before clipping and before any sanitiser.

    `losses` follow the micro-batches; `output_nan` and `output_inf` count elements; `state_nonfinite` names parameters,
    buffers and optimizer states that ended the step non-finite, but for infinities that a buffer or a state began with;
    `jump` is the largest factor by which the step made a parameter's largest number grow, that of `jumped`.
    `discarded` says that a loss scaler threw the update away, which is no harm. `fingerprint` is what a repeat must
    reproduce, None when the step did not get as far as its gradients. `error` is the exception that a non-finite value
    caused, `notes` what a switch did to the weights.
    """

    losses: tuple[float, ...] = ()
    outputs: int = 0
    output_nan: int = 0
    output_inf: int = 0
    gradient_norm: float = math.nan
    gradients: int = 0
    gradients_nonfinite: tuple[str, ...] = ()
    state_nonfinite: tuple[str, ...] = ()
    jump: float = 1.0
    jumped: str = ""
    discarded: bool = False
    decompositions: tuple[Decomposition, ...] = ()
    fingerprint: Mapping[str, Any] | None = None
    error: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def loss(self) -> float:
        """The mean over the micro-batches; NaN when the step did not get that far."""
        return sum(self.losses) / len(self.losses) if self.losses else math.nan

    def smallest_gap(self) -> Decomposition | None:
        """The differentiated decomposition with the smallest gap; one whose input is not finite does not count."""
        used = [d for d in self.decompositions if d.differentiated and math.isfinite(d.gap)]
        return min(used, key=lambda d: d.gap) if used else None

    def readings(self, step: int) -> tuple[Reading, ...]:
        """The same as the readings of `step`, in the order of the step."""
        rows: list[tuple[str, str, str, float, int | None]] = [("forward", LOSS_SITE, LOSS, self.loss, None)]
        for seen in self.decompositions:
            quantity = EIGENGAP if seen.differentiated else EIGENGAP_DETACHED
            rows.append(("forward", seen.site, quantity, seen.gap, seen.sample))
        rows.append(("forward", ROOT_SITE, "output.nonfinite", float(self.output_nan + self.output_inf), None))
        rows.append(("backward", ROOT_SITE, GRADIENT_NORM, self.gradient_norm, None))
        rows.append(("backward", ROOT_SITE, "gradients.nonfinite", float(len(self.gradients_nonfinite)), None))
        rows.append(("optimizer", ROOT_SITE, "states.nonfinite", float(len(self.state_nonfinite)), None))
        return tuple(
            Reading(step=step, phase=phase, site=site, quantity=quantity, value=value, order=order, sample=sample)
            for order, (phase, site, quantity, value, sample) in enumerate(rows)
        )
