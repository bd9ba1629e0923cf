"""Every matrix that a step took apart or divided by, and what is wrong with it. Imports no torch."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

DRAWN = 64
"""A matrix of a larger order is no graph that anybody could look at."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """From where on a quantity is degenerate: at or below `gap` (relative), at or above `condition`, above `error`.

    `error` holds for the residual and for the loss of orthogonality. The last two follow from precision and order.
    """

    gap: float
    condition: float
    error: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """One matrix: `index` in its stack, `sample` it belongs to. None where a quantity has no meaning.

    `gap` is relative, `multiplicities` the sizes of the groups of equal values in ascending order of the values (of
    eigh) or descending (of svd), `amplification` the factor that the gradient contains: 1/gap, or 1/`smallest`.
    `scaled` is the condition number with units of measurement taken out, the one that is judged where there is one.
    `degenerate` names the quantities that are beyond their limit and do harm here, `harmless` those that are beyond it
    while nothing depends on them: no gradient came back.
    """

    index: int
    sample: int | None
    finite: bool
    gap: float | None = None
    multiplicities: tuple[int, ...] = ()
    amplification: float | None = None
    condition: float | None = None
    scaled: float | None = None
    smallest: float | None = None
    residual: float | None = None
    orthogonality: float | None = None
    degenerate: tuple[str, ...] = ()
    harmless: tuple[str, ...] = ()

    @property
    def badness(self) -> tuple[float, ...]:
        """Sorts the worst last."""
        closeness = _log(self.scaled or self.condition or 1.0) if self.gap is None else -_log(self.gap)
        return float(bool(self.degenerate)), float(bool(self.harmless)), float(not self.finite), closeness


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of an operation: `op` as dispatched, `name` for a person, `site` the module, `location` path:line.

    `gradient` names the results that a gradient came back through; `divided_by_gaps` says that vectors are among them.
    `function` is the custom autograd Function that made the call, if one did: what its backward does cannot be told.
    `recomputed` says that this was the second forward pass of a checkpointed activation. `spectra` holds the values
    (real ones; magnitudes of complex ones) of the worst and of the best matrix, `entries` the rows of the worst one
    where that is square, real, finite and of an order of `DRAWN` at most.
    """

    op: str
    name: str
    site: str
    location: str
    micro_batch: int
    shape: tuple[int, ...]
    dtype: str
    limits: Limits
    gradient: tuple[str, ...]
    divided_by_gaps: bool
    function: str | None
    recomputed: bool
    matrices: tuple[Matrix, ...]
    spectra: Mapping[str, tuple[float, ...]]
    entries: tuple[tuple[float, ...], ...] = ()

    @property
    def worst(self) -> Matrix:
        """The matrix to look at first."""
        return max(self.matrices, key=lambda matrix: matrix.badness)

    @property
    def best(self) -> Matrix:
        """The healthiest matrix of the same stack."""
        return min(self.matrices, key=lambda matrix: matrix.badness)


def _log(value: float) -> float:
    return math.log10(value) if 0 < value < math.inf else math.copysign(400.0, value - 1)
